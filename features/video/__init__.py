"""Sources and their frames: found in a folder, decoded one by one, each with its time."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
