"""`feie cross-validate` and `feie compare`: persons kept apart, and differences beyond chance."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
