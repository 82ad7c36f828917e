"""Training of the MMA: batches, targets, losses, the trainer and its checkpoint."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
