"""Training and judging extractors: `train-mma`, `evaluate-mma`, renders, pseudo-labels."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
