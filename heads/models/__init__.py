"""The heads: masked recurrent (MRNN), STAT, frame by frame, plugins, compound expressions."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
