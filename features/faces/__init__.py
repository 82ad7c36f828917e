"""Faces in frames: found, followed from frame to frame, aligned to the 112x112 template."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
