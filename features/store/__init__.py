"""The store: a Zarr v3 group in the CF contiguous ragged array layout (see SPEC.md)."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
