"""Formats of other tools, one module each; a new one is a line in `registry`."""
