"""Reading runs of rows in blocks, so that neighbours share the decoding of a chunk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feie.features.store.reader import Store

_BLOCK_ROWS = (2_048, 65_536)  # fewest and most rows read at a time


class RowBlocks:
    """Rows of one store by ranges; the block that was read last is kept.

    Parameters
    ----------
    store : Store
    names : sequence of str
        Frame arrays to read.
    most_bytes : int
        Size of a block of all these arrays together, as far as 2,048 rows allow.
    """

    def __init__(self, store: Store, names: Sequence[str], most_bytes: int) -> None:
        self._store = store
        self._names = list(names)
        arrays = [store.array(name) for name in self._names]
        width = sum(a.dtype.itemsize * int(np.prod(a.shape[1:])) for a in arrays)
        fewest, most = _BLOCK_ROWS
        rows = min(most, max(fewest, most_bytes // width))
        self._rows = 1 << (rows.bit_length() - 1)  # whole chunks, which have powers of two
        self._number = -1
        self._block: dict[str, NDArray[np.generic]] = {}

    def read(self, start: int, stop: int) -> dict[str, NDArray[np.generic]]:
        """Give rows ``start : stop`` of every array."""
        return self.read_runs([(start, stop)])

    def read_runs(self, runs: Sequence[tuple[int, int]]) -> dict[str, NDArray[np.generic]]:
        """Give several runs of rows, joined.

        The arrays are copies, so that a few rows do not keep a whole block alive.
        """
        parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in self._names}
        for start, stop in runs:
            at = start
            while at < stop or not parts[self._names[0]]:
                self._load(at // self._rows)
                first = self._number * self._rows
                until = min(stop, first + self._rows)
                for name, array in self._block.items():
                    parts[name].append(array[at - first : until - first])
                at = until
        return {name: np.concatenate(parts[name]) for name in self._names}

    def _load(self, number: int) -> None:
        if number != self._number:
            rows = slice(number * self._rows, (number + 1) * self._rows)
            self._block = {}  # before the next one is read: one block at a time
            self._number = -1
            self._block = {name: self._store.read_rows(name, rows) for name in self._names}
            self._number = number
