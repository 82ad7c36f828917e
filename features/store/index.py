"""The index of a store: one row a video, checked against itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import StoreError
from feie.features.store.backends.location import is_url
from feie.features.store.layout import STATUSES, VIDEO_ARRAYS, ArraySpec

_TRUSTED = 1 << 20
"""So many rows are read at one go; of more, all ids must be there before memory is asked for."""

_BLOCK = 1 << 16


def refuse_absent_rows(
    path: str, committed: int, read: Callable[[str, slice], NDArray[Any]]
) -> None:
    """Refuse an index that counts rows which nobody wrote; see `read_index`.

    Raises
    ------
    StoreError
    """
    if committed <= _TRUSTED:
        return
    for start in range(0, committed, _BLOCK):
        ids = read("video/id", slice(start, min(start + _BLOCK, committed)))
        if not len(ids) or not all(ids):
            raise StoreError(
                f"{path} is damaged: {committed} videos are committed, and there is none at row "
                f"{start + int(np.argmin(ids.astype(bool)) if len(ids) else 0)}"
            )


def read_index(
    path: str, committed: int, read: Callable[[str, slice], NDArray[Any]]
) -> pd.DataFrame:
    """Read all committed rows of ``video/``, superseded ones included, in stored order.

    Parameters
    ----------
    path : str
        Where the store lies.
    committed : int
        Rows that count.
    read : callable
        Gives rows of an array by its name.

    Raises
    ------
    StoreError
        Rows are not there, or contradict each other.
    """
    refuse_absent_rows(path, committed, read)

    def column(spec: ArraySpec) -> Any:
        count = committed + (spec.name == "offset")
        values = read(f"video/{spec.name}", slice(count))
        if len(values) < count:
            raise StoreError(
                f"{path}: video/{spec.name} has {len(values)} rows, {committed} are committed"
            )
        return [str(v) for v in values] if spec.dtype is str else values

    # Side by side, because each array of an address costs two answers of its server.
    with ThreadPoolExecutor(len(VIDEO_ARRAYS) if is_url(path) else 1) as pool:
        columns = pool.map(column, VIDEO_ARRAYS)
        table = {spec.name: values for spec, values in zip(VIDEO_ARRAYS, columns, strict=True)}
    offsets, lengths = table["offset"], table["length"]
    # A chunk that is gone reads as zeros, which would hand out the rows of other videos.
    if offsets[0] != 0 or (np.diff(offsets) != lengths).any() or (lengths < 0).any():
        raise StoreError(f"{path} is damaged: video/offset and video/length do not agree")
    if not set(table["status"]) <= set(STATUSES):
        raise StoreError(f"{path} is damaged: video/status holds unknown words")
    table["offset"] = offsets[:-1]
    return pd.DataFrame(table)
