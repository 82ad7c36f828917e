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
