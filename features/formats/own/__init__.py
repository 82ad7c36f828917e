"""Formats of `feie dump`, one module each, read back value for value."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
