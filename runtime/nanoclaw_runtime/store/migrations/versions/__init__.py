"""One file a change: never edited after a release."""
