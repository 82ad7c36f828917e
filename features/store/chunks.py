"""The chunks that were read last, kept: neighbouring videos share the decoding of a chunk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

_CACHE_BYTES = 64 << 20


class ChunkCache:
    """Rows of arrays whose first dimension is cut into chunks; safe to use from several threads.

    Parameters
    ----------
    most_bytes : int
        What the kept chunks may take together.
    """

    def __init__(self, most_bytes: int = _CACHE_BYTES) -> None:
        self._most = most_bytes
        self._taken = 0
        self._kept: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, array: zarr.Array[Any], start: int, stop: int) -> NDArray[Any]:
        """Give a copy of rows ``start:stop``, which must exist."""
        height = array.chunks[0]
        first, last = start // height, max(start, stop - 1) // height
        if last - first > 1:  # zarr decodes them side by side, and most are read for one video only
            return np.asarray(array[start:stop])
        parts = [
            self._chunk(array, k, height)[max(0, start - k * height) : max(0, stop - k * height)]
            for k in range(first, last + 1)
        ]
        return np.concatenate(parts)

    def _chunk(self, array: zarr.Array[Any], number: int, height: int) -> NDArray[Any]:
        key = (array.path, number)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        chunk = np.asarray(array[number * height : (number + 1) * height])
        with self._lock:
            if key not in self._kept:
                self._kept[key] = chunk
                self._taken += chunk.nbytes
            while self._taken > self._most and len(self._kept) > 1:
                self._taken -= self._kept.popitem(last=False)[1].nbytes
        return chunk
