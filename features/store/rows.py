"""Reading many videos at once, as ragged rows; no chunk is decoded twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import StoreError, UnknownNameError
from feie.features.store.layout import rows_within

if TYPE_CHECKING:
    from feie.features.store.contents import StoreContents

_BLOCK_ROWS = 65_536
_BLOCK_VALUES = 1 << 24  # 64 MB
_ROUNDING = 1e-3


@dataclass(frozen=True)
class RaggedRows:
    """Rows of several videos, concatenated.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, columns)
        NaN where no face was found.
    valid : ndarray of bool, shape (rows,)
    offsets : ndarray of int64, shape (videos + 1,)
        Rows of video i are ``offsets[i]:offsets[i + 1]``.
    ids : list of str
        Video ids, one a video.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    ids: list[str]


def read_ragged(
    store: StoreContents, ids: Sequence[str] | None = None, columns: Sequence[int] | None = None
) -> RaggedRows:
    """Read videos of a store; see `Store.read`."""
    wanted = store.ids if ids is None else list(ids)
    known = set(store.ids)
    missing = [v for v in wanted if v not in known]
    if missing:
        raise UnknownNameError(f"{store.path} has no video {missing[0]!r} ({len(missing)} missing)")
    every = list(range(len(store.columns)))
    picked = every if columns is None else list(columns)
    rows = store.videos.loc[wanted]
    lengths = rows["length"].to_numpy(np.int64)
    starts = rows["offset"].to_numpy(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    try:
        values = np.empty((int(offsets[-1]), len(picked)), np.float32)
        valid = np.empty(int(offsets[-1]), np.bool_)
    except (MemoryError, ValueError):
        raise StoreError(
            f"{store.path}: {offsets[-1]} frames of {len(picked)} numbers do not fit into memory"
        ) from None
    size = rows_within(len(every), _BLOCK_ROWS, _BLOCK_VALUES)
    for start, stop, pieces in _blocks(starts, offsets[:-1], lengths, size):
        block = store.read_rows("affect", slice(start, stop))
        flags = store.read_rows("valid", slice(start, stop))
        if picked != every:
            block = block[:, picked]
        for source, target, count in pieces:
            rows_of = slice(source - start, source - start + count)
            values[target : target + count] = block[rows_of]
            valid[target : target + count] = flags[rows_of]
    refuse_blanks(store.path, values, valid, offsets, rows["faces"])
    return RaggedRows(values, valid, offsets, wanted)


def refuse_blanks(
    path: str,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    faces: pd.Series,
) -> None:
    """Raise `StoreError` where rows that were written with a face are blank.

    A chunk without a value is not stored, so one that is gone looks like it: what tells them
    apart is the index, which knows each video's share of faces.
    """
    counted = np.concatenate([[0], np.cumsum(valid)])[offsets]
    lengths = np.maximum(np.diff(offsets), 1)
    lost = np.abs(np.diff(counted) / lengths - faces.to_numpy(np.float64)) > _ROUNDING
    if values.shape[1]:
        # All columns of a row lie in one chunk.
        blank = np.flatnonzero(valid & np.isnan(values[:, 0]))
        lost[np.searchsorted(offsets, blank, side="right") - 1] = True
    # A share that cannot be compared is damage too.
    lost |= ~np.isfinite(faces.to_numpy(np.float64))
    if lost.any():
        video = str(faces.index[int(np.flatnonzero(lost)[0])])
        raise StoreError(
            f"{path} is damaged: the faces of {int(lost.sum())} videos, e.g. {video!r}, are not as "
            f"its index says, as if a chunk were gone; run `feie verify {path}`"
        )


def _blocks(
    starts: NDArray[np.int64], targets: NDArray[np.int64], lengths: NDArray[np.int64], size: int
) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """Cut the wanted rows into chunk-aligned blocks, so that no chunk is decoded twice.

    Parameters
    ----------
    starts, targets, lengths : ndarray of int64, shape (videos,)
        Where each video begins in the store and in the result, and how many rows it has.
    size : int
        Rows of a block.

    Yields
    ------
    start, stop : int
        Stored rows of the block.
    pieces : list of (source, target, count)
        Where runs of wanted rows lie in the store and where they go.
    """
    pieces: dict[int, list[tuple[int, int, int]]] = {}
    for start, target, length in zip(starts, targets, lengths, strict=True):
        source, at, left = int(start), int(target), int(length)
        while left:
            block = source // size
            count = min(left, (block + 1) * size - source)
            pieces.setdefault(block, []).append((source, at, count))
            source, at, left = source + count, at + count, left - count
    for block in sorted(pieces):
        wanted = pieces[block]
        yield (
            min(source for source, _, _ in wanted),
            max(source + count for source, _, count in wanted),
            wanted,
        )
