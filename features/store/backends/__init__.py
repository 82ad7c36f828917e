"""Where a store lies: a folder, or a bucket that has neither locks nor appends."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
