"""`feie evaluate`: scores, checks of what makes them doubtful, the report."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
