"""Choosing the backend of a store by its path or address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from feie.features.store.backends.base import Backend
from feie.features.store.backends.bucket import Bucket
from feie.features.store.backends.folder import Folder
from feie.features.store.backends.location import is_url


def backend_of(store: str | Path, waiting: Callable[[str], None] | None = None) -> Backend:
    """Give the backend of what a path or an address names.

    Parameters
    ----------
    store : str or Path
        A folder, or an address such as ``s3://bucket/features.zarr``.
    waiting : callable, optional
        See `Lease`.

    Raises
    ------
    StoreError
        What writes to such an address is not installed.
    """
    if is_url(str(store)):
        return Bucket(str(store), waiting)
    return Folder(Path(store))
