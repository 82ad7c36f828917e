"""`feie train-head`: options, data, the run and its log; fusion of several stores."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
