"""Labelled faces for training: packs, data sets of others, and what their labels mean."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
