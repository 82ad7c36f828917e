"""Writing dumps: what is dumped, in which names, batch by batch."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
