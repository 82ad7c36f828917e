"""A line a video for the page about a store: shares, means and a coarse course over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.store.reader import Store
from feie.pipeline.progress import Progress, ProgressCallback

_BLOCK_ROWS = 65_536
NO_FACE = 255
"""Code of a part of a video that shows no face."""


@dataclass(frozen=True)
class Courses:
    """How columns run through videos, each cut into the same number of parts of equal length.

    Attributes
    ----------
    codes : ndarray of uint8, shape (videos, columns, parts)
        0 to 254 for the mean of a part between `low` and `high`; `NO_FACE` for none.
    mean : ndarray of float64, shape (videos, columns)
        NaN where there is no face at all.
    low, high : ndarray of float64, shape (columns,)
    """

    codes: NDArray[np.uint8]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def courses_of(
    store: Store,
    videos: pd.DataFrame,
    columns: Sequence[int],
    drawn: int,
    parts: int,
    progress: ProgressCallback,
    signed: bool = False,
) -> Courses:
    """Read the columns of many videos once, in stored order, a block of rows at a time.

    Parameters
    ----------
    store : Store
    videos : pandas.DataFrame
        Rows of `Store.videos`, in the wanted order.
    columns : sequence of int
        Columns of ``affect`` to average.
    drawn : int
        How many of them, from the first on, are to have a course.
    parts : int
        Parts of each video.
    signed : bool
        Draw from -1 to 1 at least; else from the least to the most in these videos.
    """
    count = len(videos)
    sums = np.zeros((count, drawn, parts))
    faces = np.zeros((count, parts), np.int64)
    there = np.zeros((count, parts), np.bool_)
    mean = np.full((count, len(columns)), np.nan)
    offset, length = videos["offset"].to_numpy(np.int64), videos["length"].to_numpy(np.int64)
    done = 0
    for mine in _blocks(offset, length):
        start, stop = int(offset[mine[0]]), int(offset[mine[-1]] + length[mine[-1]])
        values = store.read_rows("affect", slice(start, stop))[:, list(columns)]
        valid = store.read_rows("valid", slice(start, stop))
        for row in mine:
            rows = slice(int(offset[row]) - start, int(offset[row] + length[row]) - start)
            part = np.arange(length[row]) * parts // length[row]
            there[row, part] = True
            seen, of = values[rows][valid[rows]].astype(np.float64), part[valid[rows]]
            if not len(seen):
                continue
            mean[row] = seen.mean(axis=0)
            faces[row] = np.bincount(of, minlength=parts)
            for column in range(drawn):
                sums[row, column] = np.bincount(of, seen[:, column], parts)
        done += len(mine)
        progress(Progress("videos", done, count))
    # A video of fewer frames than parts shows each frame for several parts.
    held = np.maximum.accumulate(np.where(there, np.arange(parts), 0), axis=1)
    faces = np.take_along_axis(faces, held, axis=1)
    sums = np.take_along_axis(sums, held[:, None], axis=2)
    course = np.divide(
        sums, faces[:, None], out=np.full_like(sums, np.nan), where=faces[:, None] > 0
    )
    return _coded(course, mean, signed)


def _coded(course: NDArray[np.float64], mean: NDArray[np.float64], signed: bool) -> Courses:
    known = np.isfinite(course)
    low = np.where(known, course, np.inf).min(axis=(0, 2), initial=np.inf)
    high = np.where(known, course, -np.inf).max(axis=(0, 2), initial=-np.inf)
    low, high = np.where(low > high, 0.0, low), np.where(low > high, 1.0, high)
    if signed:
        low, high = np.minimum(low, -1.0), np.maximum(high, 1.0)
    span = np.where(high > low, high - low, 1.0)[None, :, None]
    scaled = np.nan_to_num((course - low[None, :, None]) / span) * (NO_FACE - 1)
    return Courses(np.where(known, np.rint(scaled), NO_FACE).astype(np.uint8), mean, low, high)


def _blocks(offset: NDArray[np.int64], length: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Give videos in stored order, in groups of whole ones that lie close together."""
    order = np.flatnonzero(length > 0)
    order = order[np.argsort(offset[order], kind="stable")]
    group = offset[order] // _BLOCK_ROWS
    yield from np.split(order, np.flatnonzero(np.diff(group)) + 1) if len(order) else []
