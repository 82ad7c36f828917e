"""A video's rows as the cells of a picture: one a frame, or several frames a cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_CELLS = 1500
"""Cells side by side that a picture holds; a page of print does not show more."""

_USUAL_STEP = 1 / 30  # s, of a lone frame whose video has no rate
_LONGEST_STEPS = 10  # usual steps, and
_LONGEST = 1.0  # s, that a frame may stay on: beyond both there are no frames


@dataclass(frozen=True)
class Cells:
    """m cells over c columns.

    Attributes
    ----------
    left, right : ndarray of float64, shape (m,)
        From when to when the frames of a cell are on, s.
    low, mean, high : ndarray of float32, shape (m, c)
        Over the frames with a face; NaN where a cell has none.
    share : ndarray of float64, shape (m,)
        Of its frames that have a face.
    frames : int
        Most frames in a cell; 1 where every frame has a cell of its own, and low, mean and high
        are the same.
    """

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    low: NDArray[np.float32]
    mean: NDArray[np.float32]
    high: NDArray[np.float32]
    share: NDArray[np.float64]
    frames: int

    def outline(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Give the points of a curve that is broken where there is no face.

        Returns
        -------
        x : ndarray of float64
            The middles of the cells, each stretch with its own two ends; NaN between stretches.
        cell : ndarray of int64
            Whose value stands there; any where x is NaN.
        """
        x, cell = [np.full(1, np.nan)], [np.zeros(1, np.int64)]
        for run in self._stretches(self.share > 0):
            left, right = self.left[run], self.right[run]
            x += [left[:1], (left + right) / 2, right[-1:], np.full(1, np.nan)]
            last = run.stop - 1
            cell.append(np.array([run.start, *range(run.start, run.stop), last, last]))
        return np.concatenate(x), np.concatenate(cell)

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Give the borders of all cells in a row, and whose each field is: -1 where none is."""
        apart = np.flatnonzero(self.left[1:] - self.right[:-1] > 1e-6) + 1
        field = np.insert(np.arange(len(self.left)), apart, -1)
        borders = np.insert(self.left, apart, self.right[apart - 1])
        return np.append(borders, self.right[-1]), field

    def gaps(self) -> list[tuple[float, float]]:
        """Give start and length in seconds of each stretch of cells without a face."""
        found = self._stretches(self.share == 0)
        return [(self.left[s.start], self.right[s.stop - 1] - self.left[s.start]) for s in found]

    def _stretches(self, mine: NDArray[np.bool_]) -> Iterator[slice]:
        apart = self.left[1:] - self.right[:-1] > 1e-6
        cuts = np.flatnonzero(apart | (mine[1:] != mine[:-1])) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(mine)], strict=True):
            if stop > start and mine[start]:
                yield slice(int(start), int(stop))


def cells_of(
    time: NDArray[np.float64],
    valid: NDArray[np.bool_],
    values: NDArray[np.float32],
    fps: float,
    most: int = MOST_CELLS,
) -> Cells:
    """Lay a video's frames side by side; of many, neighbours share a cell.

    Parameters
    ----------
    time : ndarray of float64, shape (n,)
        Presentation time stamps, s; n > 0.
    valid : ndarray of bool, shape (n,)
    values : ndarray of float32, shape (n, c)
        NaN where there is no face.
    fps : float
        Frames a second; 0 or NaN where nothing is known. Used for a lone frame only.
    most : int
        Cells at most.
    """
    count = len(time)
    right = time + _step(time, fps)
    steps = np.diff(time)
    joined = steps <= max(_LONGEST, _LONGEST_STEPS * (right[0] - time[0]))
    right[:-1] = np.where(joined, time[1:], right[:-1])
    wide = -(-count // most)
    starts = np.arange(0, count, wide)
    seen = np.add.reduceat(valid, starts, dtype=np.int64)
    frames = np.diff([*starts, count])
    masked = np.where(valid[:, None], values, np.nan)
    total = np.add.reduceat(np.nan_to_num(masked), starts, axis=0, dtype=np.float64)
    mean = np.full(total.shape, np.nan)
    np.divide(total, seen[:, None], out=mean, where=seen[:, None] > 0)
    return Cells(
        left=time[starts],
        right=right[np.append(starts[1:], count) - 1],
        low=np.fmin.reduceat(masked, starts, axis=0),
        mean=mean.astype(np.float32),
        high=np.fmax.reduceat(masked, starts, axis=0),
        share=seen / frames,
        frames=wide,
    )


def _step(time: NDArray[np.float64], fps: float) -> float:
    steps = np.diff(time)
    if (steps > 0).any():
        return float(np.median(steps[steps > 0]))
    return 1 / fps if np.isfinite(fps) and fps > 0 else _USUAL_STEP
