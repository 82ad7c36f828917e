"""Time-major packing of a batch: videos sorted by length drop out of the rows as they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK_ROWS = 512
"""Rows handled at once outside the recurrence: their gates and gradients stay in the cache."""


@dataclass(frozen=True)
class Packing:
    """The layout of one batch, without padding.

    The videos of the batch are sorted from the longest to the shortest; the rows of all videos
    that still run at step 0 come first, then those of step 1, and so on. The videos running at
    step k are therefore always a prefix of those running at step k - 1.

    Attributes
    ----------
    lengths : ndarray of int64, shape (batch,)
        Lengths in the caller's order, each at least 1.
    order : ndarray of int64, shape (batch,)
        Caller's position of each sorted video.
    sizes : tuple of int, shape (steps,)
        How many videos run at each step; never rises.
    starts : tuple of int, shape (steps,)
        First packed row of each step.
    """

    lengths: NDArray[np.int64]
    order: NDArray[np.int64]
    sizes: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int] | NDArray[np.int64]) -> Packing:
        """Lay out videos of these lengths.

        Raises
        ------
        ValueError
            An empty batch or a length below 1.
        """
        count = np.asarray(lengths, dtype=np.int64)
        if count.size == 0 or count.min() < 1:
            raise ValueError("a batch needs videos of at least one frame")
        order = np.argsort(-count, kind="stable")
        # Videos longer than k = batch - (videos of length <= k).
        sizes = count.size - np.cumsum(np.bincount(count))[:-1]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return cls(count, order, tuple(sizes.tolist()), tuple(starts.tolist()))

    @property
    def steps(self) -> int:
        """Number of steps: the longest length, which is also how many blocks are reached."""
        return len(self.sizes)

    @property
    def rows(self) -> int:
        """Number of packed rows: the frames of the batch."""
        return self.starts[-1] + self.sizes[-1]

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Step and sorted video of every packed row."""
        sizes = np.asarray(self.sizes)
        step = np.repeat(np.arange(self.steps), sizes)
        return step, np.arange(self.rows) - np.repeat(np.asarray(self.starts), sizes)

    def gather(self, first_rows: NDArray[np.int64]) -> Tensor:
        """Row numbers that bring a ragged array into this layout.

        Parameters
        ----------
        first_rows : ndarray of int64, shape (batch,)
            Where each video (in the caller's order) starts in the ragged array.

        Returns
        -------
        Tensor of int64, shape (rows,)
        """
        step, video = self.places
        return torch.from_numpy(first_rows[self.order][video] + step)

    @cached_property
    def padded(self) -> Tensor:
        """Row of every packed row in a padded batch (step times batch + sorted video); int64."""
        step, video = self.places
        return torch.from_numpy(step * self.sizes[0] + video)

    @cached_property
    def previous(self) -> Tensor:
        """Packed row one step earlier, of every row from step 1 on; int64, (rows - sizes[0],)."""
        step, video = self.places
        later = slice(self.sizes[0], None)
        return torch.from_numpy(np.asarray(self.starts)[step[later] - 1] + video[later])

    @cached_property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        """Runs of consecutive steps (first step, end step) of at least `CHUNK_ROWS` rows each."""
        cuts = [0]
        for k in range(1, self.steps):
            if self.starts[k] - self.starts[cuts[-1]] >= CHUNK_ROWS:
                cuts.append(k)
        return tuple(zip(cuts, [*cuts[1:], self.steps], strict=True))

    def rows_of(self, first_step: int, end_step: int) -> slice:
        """Packed rows of a run of steps."""
        return slice(self.starts[first_step], self.starts[end_step - 1] + self.sizes[end_step - 1])

    @cached_property
    def segments(self) -> tuple[tuple[int, int, int, int], ...]:
        """Runs of steps with the same videos: (first step, end step, videos, first row)."""
        sizes = np.asarray(self.sizes)
        cuts = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), self.steps]
        return tuple((a, b, self.sizes[a], self.starts[a]) for a, b in pairwise(cuts))

    def restore(self, sorted_rows: Tensor) -> Tensor:
        """Bring one row a video back from sorted to the caller's order."""
        back = np.empty_like(self.order)
        back[self.order] = np.arange(len(back))
        return sorted_rows[torch.from_numpy(back).to(sorted_rows.device)]
