"""Ragged arrays: the rows of many videos, concatenated, and what is done about gaps and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MissingPolicy = Literal["drop", "hold", "zero"]
LongPolicy = Literal["uniform", "head"]


@dataclass(frozen=True)
class Ragged:
    """Rows of several videos.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, columns)
    offsets : ndarray of int64, shape (videos + 1,)
        Rows of video i are ``offsets[i]:offsets[i + 1]``; a video may have none.
    """

    values: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        steps = np.diff(self.offsets)
        if (
            len(self.offsets) == 0
            or self.offsets[0] != 0
            or self.offsets[-1] != len(self.values)
            or (steps < 0).any()
        ):
            raise ValueError(f"offsets do not describe {len(self.values)} rows")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, video: int) -> NDArray[np.float32]:
        return self.values[self.offsets[video] : self.offsets[video + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Rows of each video, shape (videos,)."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ragged:
        """Build a ragged array of other lengths from rows of this one."""
        return Ragged(self.values[rows], _offsets(lengths))

    def select(self, videos: Sequence[int] | NDArray[np.int64]) -> Ragged:
        """Pick some videos, in the given order."""
        picked = np.asarray(videos, dtype=np.int64)
        lengths = self.lengths[picked]
        rows = np.repeat(self.offsets[:-1][picked], lengths) + _positions(lengths)
        return self.take(rows, lengths)


def fill_missing(ragged: Ragged, valid: NDArray[np.bool_], policy: MissingPolicy) -> Ragged:
    """Deal with frames without a face.

    Parameters
    ----------
    ragged : Ragged
    valid : ndarray of bool, shape (rows,)
        Whether the frame shows a face. A row with a value that is not finite counts as without.
    policy : {"drop", "hold", "zero"}
        ``drop`` removes the frames; ``hold`` repeats the last frame with a face (before the first
        one: that one); ``zero`` leaves NaN, which standardisation turns into zero, the mean of
        the training frames.

    Returns
    -------
    Ragged
        A video without any face has no rows, whatever the policy.
    """
    usable = valid & np.isfinite(ragged.values).all(axis=1)
    if usable.all():
        return ragged
    lengths = ragged.lengths
    owner = np.repeat(np.arange(len(ragged)), lengths)
    faces = np.bincount(owner[usable], minlength=len(ragged))
    if policy == "drop":
        return ragged.take(np.flatnonzero(usable), faces)
    row = np.arange(len(usable))
    if policy == "hold":
        # The last usable row so far; where that is another video's, the first usable one after.
        source = np.maximum.accumulate(np.where(usable, row, -1))
        after = np.minimum.accumulate(np.where(usable, row, len(row))[::-1])[::-1]
        early = source < ragged.offsets[:-1][owner]
        source[early] = after[early]
        keep = faces[owner] > 0
        return ragged.take(source[keep], np.where(faces > 0, lengths, 0))
    values = ragged.values.copy()
    values[~usable] = np.nan
    kept = Ragged(values, ragged.offsets)
    return kept.take(row[faces[owner] > 0], np.where(faces > 0, lengths, 0))


def shorten(ragged: Ragged, t: int, policy: LongPolicy) -> Ragged:
    """Bring videos of more than `t` rows down to `t`; leave the others alone.

    Parameters
    ----------
    ragged : Ragged
    t : int
        Rows to keep at most, at least 1.
    policy : {"uniform", "head"}
        ``uniform`` takes the rows in the middle of `t` equal stretches of the video; ``head``
        takes the first `t`.
    """
    lengths = ragged.lengths
    if not (lengths > t).any():
        return ragged
    kept = np.minimum(lengths, t)
    position = _positions(kept)
    if policy == "uniform":
        long = np.repeat(lengths, kept)
        position = np.where(long > t, (2 * position + 1) * long // (2 * t), position)
    return ragged.take(np.repeat(ragged.offsets[:-1], kept) + position, kept)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … within each video."""
    return np.arange(int(lengths.sum())) - np.repeat(_offsets(lengths)[:-1], lengths)
