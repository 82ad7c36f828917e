"""`feie predict` and `feie compound`: intensities of videos without labels."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
