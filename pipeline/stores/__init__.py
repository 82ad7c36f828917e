"""`feie info`, `feie verify`, `feie merge`: what is done with whole stores."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
