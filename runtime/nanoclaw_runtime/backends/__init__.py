"""Places where agent sessions run. They differ in where, never in meaning."""
