"""Ragged arrays: the rows of many videos, concatenated, and what is done about gaps and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.heads.config import LongPolicy, MissingPolicy

_BLOCK = 1 << 13  # rows worked on at once: they stay in the cache


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

    def take(
        self, rows: NDArray[np.int64], lengths: NDArray[np.int64], *, reuse: bool = False
    ) -> Ragged:
        """Build a ragged array of other lengths from rows of this one.

        With `reuse` the rows must rise, and are moved within the memory of this array, which is
        not to be used any more.
        """
        if not reuse:
            return Ragged(self.values[rows], _offsets(lengths))
        for start in range(0, len(rows), _BLOCK):
            # What rises never lies before its new place: nothing unread is overwritten.
            block = rows[start : start + _BLOCK]
            self.values[start : start + len(block)] = self.values[block]
        return Ragged(self.values[: len(rows)], _offsets(lengths))

    def select(self, videos: Sequence[int] | NDArray[np.int64]) -> Ragged:
        """Pick some videos, in the given order; neighbours, in order, are not copied."""
        picked = np.asarray(videos, dtype=np.int64)
        if len(picked) and (np.diff(picked) == 1).all() and picked[0] >= 0:
            offsets = self.offsets[picked[0] : picked[-1] + 2]
            return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        lengths = self.lengths[picked]
        rows = np.repeat(self.offsets[:-1][picked], lengths) + _positions(lengths)
        return self.take(rows, lengths)


def every_kth(
    ragged: Ragged, valid: NDArray[np.bool_], k: int, *, reuse: bool = False
) -> tuple[Ragged, NDArray[np.bool_]]:
    """Keep the frames 0, k, 2k, … of each video, and their flags; see `fill_missing`."""
    if k == 1:
        return ragged, valid
    lengths = ragged.lengths
    rows = np.flatnonzero(_positions(lengths) % k == 0)
    return ragged.take(rows, -(-lengths // k), reuse=reuse), valid[rows]


def fill_missing(
    ragged: Ragged, valid: NDArray[np.bool_], policy: MissingPolicy, *, reuse: bool = False
) -> Ragged:
    """Deal with frames without a face.

    Parameters
    ----------
    ragged : Ragged
    valid : ndarray of bool, shape (rows,)
        Whether the frame shows a face. A row with a value that is not finite counts as without.
    policy : {"drop", "hold", "zero", "interpolate"}
        ``drop`` removes the frames; ``hold`` repeats the last frame with a face (before the first
        one: that one); ``zero`` leaves NaN, which standardisation turns into zero, the mean of
        the training frames; ``interpolate`` leaves NaN too, for `interpolate`.
    reuse : bool
        Whether the memory of `ragged` may be used for the result.

    Returns
    -------
    Ragged
        A video without any face has no rows, whatever the policy.
    """
    usable = valid & _finite(ragged.values)
    if usable.all():
        return ragged
    lengths = ragged.lengths
    owner = np.repeat(np.arange(len(ragged)), lengths)
    faces = np.bincount(owner[usable], minlength=len(ragged))
    if policy == "drop":
        return ragged.take(np.flatnonzero(usable), faces, reuse=reuse)
    row = np.arange(len(usable))
    if policy == "hold":
        # The last usable row so far; where that is another video's, the first usable one after.
        source = np.maximum.accumulate(np.where(usable, row, -1))
        after = np.minimum.accumulate(np.where(usable, row, len(row))[::-1])[::-1]
        early = source < ragged.offsets[:-1][owner]
        source[early] = after[early]
        keep = faces[owner] > 0
        return ragged.take(source[keep], np.where(faces > 0, lengths, 0))
    values = ragged.values if reuse else ragged.values.copy()
    values[~usable] = np.nan
    kept = Ragged(values, ragged.offsets)
    return kept.take(row[faces[owner] > 0], np.where(faces > 0, lengths, 0), reuse=True)


def interpolate(ragged: Ragged) -> Ragged:
    """Interpolate rows with NaN linearly within each video, and hold its ends.

    Returns
    -------
    Ragged
        Of the same offsets; a video without one whole row stays NaN.
    """
    values = ragged.values.copy()
    for i in range(len(ragged)):
        rows = values[ragged.offsets[i] : ragged.offsets[i + 1]]
        whole = np.flatnonzero(_finite(rows))
        if 0 < len(whole) < len(rows):
            at = np.arange(len(rows))
            for column in rows.T:
                column[:] = np.interp(at, whole, column[whole])
    return Ragged(values, ragged.offsets)


def shorten(ragged: Ragged, t: int, policy: LongPolicy, *, reuse: bool = False) -> Ragged:
    """Bring videos of more than `t` rows down to `t`; leave the others alone.

    Parameters
    ----------
    ragged : Ragged
    t : int
        Rows to keep at most, at least 1.
    policy : {"uniform", "head"}
        ``uniform`` takes the rows in the middle of `t` equal stretches of the video; ``head``
        takes the first `t`.
    reuse : bool
        Whether the memory of `ragged` may be used for the result.
    """
    lengths = ragged.lengths
    if not (lengths > t).any():
        return ragged
    kept = np.minimum(lengths, t)
    position = _positions(kept)
    if policy == "uniform":
        long = np.repeat(lengths, kept)
        position = np.where(long > t, (2 * position + 1) * long // (2 * t), position)
    return ragged.take(np.repeat(ragged.offsets[:-1], kept) + position, kept, reuse=reuse)


def _finite(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which rows hold finite values only."""
    finite = np.empty(len(values), np.bool_)
    ones = np.ones(values.shape[1], values.dtype)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        with np.errstate(invalid="ignore", over="ignore"):
            sums = block @ ones  # finite only if all terms are, and much faster than a look at each
        found = np.isfinite(sums)
        if not found.all():
            found = np.isfinite(block).all(axis=1)
        finite[start : start + _BLOCK] = found
    return finite


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _positions(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … within each video."""
    return np.arange(int(lengths.sum())) - np.repeat(_offsets(lengths)[:-1], lengths)
