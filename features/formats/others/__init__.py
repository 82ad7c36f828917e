"""Formats of other tools, one module each; a new one is a line in `registry`."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
