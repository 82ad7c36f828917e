"""Runs on disk: checkpoints, the stores that they read, late fusion."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
