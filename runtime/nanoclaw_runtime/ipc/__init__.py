"""Files and streams shared with agents; the only code that touches group volumes."""
