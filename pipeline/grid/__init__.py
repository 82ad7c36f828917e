"""Many trainings side by side: sweeps and the ablation tables of the paper."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
