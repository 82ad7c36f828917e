"""The store: a Zarr v3 group in the CF contiguous ragged array layout (see SPEC.md)."""
