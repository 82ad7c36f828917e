"""Frozen networks that turn faces into affect vectors: ours, ONNX files, and plugins."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
