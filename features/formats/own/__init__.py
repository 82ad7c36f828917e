"""Formats of `feie dump`, one module each, read back value for value."""
