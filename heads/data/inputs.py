"""From stored rows to what a head reads: columns, gaps, length, space, standardisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError, UsageError
from feie.features.schema import Schema
from feie.features.store.reader import RaggedRows
from feie.heads.config import InputConfig, Space
from feie.heads.data.ragged import Ragged, every_kth, fill_missing, interpolate, shorten

CLIP = 1e-4
"""Probabilities are kept this far from 0 and 1 (and |valence|, |arousal| from 1) before a logit."""
SD_FLOOR: dict[Space, float] = {"prob": 1e-3, "logit": 0.0}
"""Least standard deviation that a column is divided by. A probability that moves by less in
training is as good as constant: its noise, scaled up, would drown the other columns elsewhere."""
_BLOCK = 1 << 13  # rows worked on at once: they stay in the cache


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be standardised.

    Attributes
    ----------
    frames : Ragged
        Of a head of frames every stored frame; NaN throughout a video without a face.
    seen : ndarray of bool, shape (videos,)
        Which videos have a usable frame.
    shortened : int
        Videos brought down to t frames.
    whole : ndarray of bool, shape (rows,), or None
        Of a head of frames: which rows show a face, rather than being filled in.
    """

    frames: Ragged
    seen: NDArray[np.bool_]
    shortened: int
    whole: NDArray[np.bool_] | None = None

    @property
    def faceless(self) -> int:
        """Videos without one usable frame."""
        return int((~self.seen).sum())


def pick_columns(
    schema: Schema, subset: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
    """Names of a subset's columns, and its groups' ranges among them.

    Raises
    ------
    UsageError
        A group that the store lacks.
    """
    picked = schema.indices(subset)
    place = {column: i for i, column in enumerate(picked)}
    groups = {
        name: (place[start], place[stop - 1] + 1)
        for name, (start, stop) in schema.groups.items()
        if start in place and stop - 1 in place
    }
    return tuple(schema.columns[i] for i in picked), groups


def find_columns(schema: Schema, config: InputConfig, store: str) -> list[int]:
    """Where a head's columns stand in a store.

    Raises
    ------
    HeadError
        The store's columns in the head's groups are not the ones that it was trained on.
    """
    subset = [name for name in config.groups if name in schema.groups]
    there = {schema.columns[i] for i in schema.indices(subset)} if subset else set()
    lacking = [c for c in config.columns if c not in schema.columns]
    surplus = [c for c in schema.columns if c in there and c not in config.columns]
    if lacking or surplus:
        what = [
            f"{verb} {', '.join(names)}"
            for verb, names in (("lacks", lacking), ("adds", surplus))
            if names
        ]
        raise HeadError(
            f"{store} {' and '.join(what)}, compared with the {len(config.columns)} columns "
            f"that this head was trained on; use a store of the same extractor or train again"
        )
    return [schema.columns.index(c) for c in config.columns]


def prepare(rows: RaggedRows, config: InputConfig) -> Prepared:
    """Apply the policies for missing faces and long videos, and the space.

    Parameters
    ----------
    rows : RaggedRows
        Only the head's columns, in its order; their memory is used for the result.
    config : InputConfig
    """
    ragged = Ragged(rows.values, rows.offsets)
    if config.unit == "frame":
        return _every_frame(ragged, rows.valid, config)
    ragged, valid = every_kth(ragged, rows.valid, config.stride, reuse=True)
    usable = fill_missing(ragged, valid, config.missing, reuse=True)
    if config.missing == "interpolate":  # of what the head reads, so its space comes first
        usable = interpolate(_in_space(usable, config))
    shortened = int((usable.lengths > config.t).sum())
    frames = shorten(usable, config.t, config.long, reuse=True)
    if config.missing != "interpolate":
        frames = _in_space(frames, config)
    return Prepared(frames=frames, seen=frames.lengths > 0, shortened=shortened)


def _every_frame(ragged: Ragged, valid: NDArray[np.bool_], config: InputConfig) -> Prepared:
    """Keep every row, filled in between the faces of its video."""
    ragged.values[~valid] = np.nan
    frames = _in_space(ragged, config)
    whole: NDArray[np.bool_] = np.all(np.isfinite(frames.values), axis=1)
    frames.values[~whole] = np.nan
    owner = np.repeat(np.arange(len(frames)), frames.lengths)
    seen = np.bincount(owner[whole], minlength=len(frames)) > 0
    return Prepared(frames=interpolate(frames), seen=seen, shortened=0, whole=whole)


def _in_space(frames: Ragged, config: InputConfig) -> Ragged:
    if config.space == "logit":
        for start in range(0, len(frames.values), _BLOCK):
            block = frames.values[start : start + _BLOCK]
            block[:] = to_logits(block, config.groups)
    return frames


def to_logits(
    values: NDArray[np.float32], groups: dict[str, tuple[int, int]]
) -> NDArray[np.float32]:
    """Undo the extractor's output functions, with clipping.

    Valence and arousal go back through tanh, action units through the sigmoid, and expression
    probabilities through the softmax (up to the constant that it loses: logits of mean zero).
    Columns of other groups stay as they are.

    Raises
    ------
    UsageError
        Values that no probability (or tanh) takes.
    """
    out = values.astype(np.float32, copy=True)
    for name, low in (("va", -1.0), ("expr", 0.0), ("au", 0.0)):
        if name not in groups or not len(out):
            continue
        part = out[:, slice(*groups[name])]
        if np.nanmin(part, initial=0) < low - 1e-3 or np.nanmax(part, initial=0) > 1 + 1e-3:
            raise UsageError(
                f"columns of group {name!r} leave [{low:g}, 1], so they have no logits: "
                f"use the space prob"
            )
        if name == "va":
            part[:] = np.arctanh(np.clip(part, CLIP - 1, 1 - CLIP))
        elif name == "au":
            p = np.clip(part, CLIP, 1 - CLIP)
            part[:] = np.log(p) - np.log1p(-p)
        else:
            logs = np.log(np.maximum(part, CLIP))
            part[:] = logs - logs.mean(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class Standardiser:
    """Mean and standard deviation of the training frames, a column each.

    Attributes
    ----------
    mean, sd : ndarray of float64, shape (columns,)
        A column that is constant in training has sd 1; one that is nearly so has the floor given
        to `fit`, see `SD_FLOOR`.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]

    @classmethod
    def fit(
        cls, frames: Ragged, videos: NDArray[np.int64] | None = None, floor: float = 0.0
    ) -> Standardiser:
        """Measure the rows of training videos; NaN rows are left out.

        Parameters
        ----------
        frames : Ragged
        videos : ndarray of int64, optional
            The training videos; all of them by default.
        floor : float
            Least sd of a column that is not constant.
        """
        chosen = np.arange(len(frames)) if videos is None else videos
        # Blocks of whole videos, so that never more than a few are copied.
        cuts = np.searchsorted(
            np.cumsum(frames.lengths[chosen]),
            np.arange(_BLOCK, int(frames.lengths[chosen].sum()), _BLOCK),
        )
        parts = np.split(chosen, np.unique(cuts))
        columns = frames.values.shape[1]
        total, squares = np.zeros((2, columns))
        count, mean = 0, np.zeros(columns)
        for turn in range(2):
            for part in parts:
                block = frames.select(part).values
                if np.isnan(block.sum()):  # as good as a look at every value
                    block = block[~np.isnan(block).any(axis=1)]
                if turn == 0:
                    count += len(block)
                    total += block.sum(axis=0, dtype=np.float64)
                else:
                    centred = block - mean
                    squares += np.einsum("ij,ij->j", centred, centred)
            mean = total / max(count, 1)
        sd = np.sqrt(squares / max(count, 1))
        varies = sd > 1e-6 * (1 + np.abs(mean))
        return cls(mean, np.where(varies, np.maximum(sd, floor), 1.0))

    def apply(self, frames: Ragged, *, reuse: bool = False) -> Ragged:
        """Standardise; NaN becomes 0, the mean of the training frames.

        With `reuse` the values of `frames` are overwritten.
        """
        values = frames.values if reuse else frames.values.copy()
        mean, sd = self.mean.astype(np.float32), self.sd.astype(np.float32)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            block -= mean
            block /= sd
            if np.isnan(block.sum()):
                block[np.isnan(block)] = 0.0
        return Ragged(values, frames.offsets)
