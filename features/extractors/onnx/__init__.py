"""ONNX files as extractors, each by a small description of what goes in and what comes out."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
