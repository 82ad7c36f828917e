"""`feie extract`: every video of a folder becomes rows of a store."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
