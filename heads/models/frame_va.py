"""Frame-level valence and arousal of [S]: linear, tanh, CCC loss, and a box filter over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from feie.features.errors import HeadError
from feie.heads.data.ragged import Ragged
from feie.heads.measures.losses import ccc_loss
from feie.heads.measures.metrics import ccc, mean_defined
from feie.heads.models.mrnn import glorot

HALF_WINDOW = 25
"""Frames on each side that the box filter averages: 51 in all, the paper's 50 made odd. The
code that came with [S] has 50 on each side."""


def fill_gaps(ragged: Ragged) -> Ragged:
    """Interpolate rows with NaN linearly within each video, and hold its ends.

    Returns
    -------
    Ragged
        Of the same offsets; a video without one whole row stays NaN.
    """
    values = ragged.values.copy()
    for i in range(len(ragged)):
        rows = values[ragged.offsets[i] : ragged.offsets[i + 1]]
        whole = np.flatnonzero(np.isfinite(rows).all(axis=1))
        if 0 < len(whole) < len(rows):
            at = np.arange(len(rows))
            for column in rows.T:
                column[:] = np.interp(at, whole, column[whole])
    return Ragged(values, ragged.offsets)


def box_filter(series: NDArray[np.float64], half: int = HALF_WINDOW) -> NDArray[np.float64]:
    """Mean over the frames i - half to i + half that there are.

    Parameters
    ----------
    series : ndarray, shape (frames, columns)
        One video.
    half : int
    """
    n = len(series)
    sums = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series, axis=0)])
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    out: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)[:, None]
    return out


@dataclass(frozen=True)
class FrameVA:
    """``tanh(W x + b)``, then `box_filter`.

    Attributes
    ----------
    mean, sd : ndarray of float64, shape (columns,)
        Of the training rows.
    weight : ndarray of float64, shape (2, columns)
    bias : ndarray of float64, shape (2,)
    half : int
        See `box_filter`.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    half: int = HALF_WINDOW

    @classmethod
    def fit(
        cls,
        frames: Ragged,
        labels: NDArray[np.float64],
        val: tuple[Ragged, NDArray[np.float64]],
        *,
        epochs: int = 30,
        batch: int = 1024,
        lr: float = 1e-3,
        seed: int = 0,
        half: int = HALF_WINDOW,
        notice: Callable[[int, float, float], None] | None = None,
    ) -> FrameVA:
        """Train by Adam on 1 - CCC over random batches of frames.

        Parameters
        ----------
        frames : Ragged
            E.g. logits (`feie.heads.data.inputs.to_logits`); rows with NaN are left out.
        labels : ndarray of float64, shape (rows, 2)
            Valence and arousal in [-1, 1]; rows with NaN are left out.
        val : (Ragged, ndarray)
            The epoch with the best mean CCC here, after the filter, is kept.
        notice : callable, optional
            Told of every epoch: its number from 1, the mean loss, the mean CCC on `val`.

        Raises
        ------
        HeadError
            Fewer than two rows can be used.
        """
        x, usable = frames.values.astype(np.float64), np.isfinite(labels).all(axis=1)
        usable &= np.isfinite(x).all(axis=1)
        if usable.sum() < 2:
            raise HeadError("fewer than two frames have both a face and a label of valence-arousal")
        x, y = x[usable], labels[usable]
        mean, sd = x.mean(0), x.std(0)
        sd = np.where(sd > 1e-6, sd, 1.0)
        inputs = torch.from_numpy((x - mean) / sd)
        targets, rng = torch.from_numpy(y), np.random.default_rng([seed, 0x5641])
        weight = torch.nn.Parameter(glorot(rng, 2, x.shape[1], fan_out=2).detach().double())
        bias = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        adam, best, kept = torch.optim.Adam([weight, bias], lr=lr), -np.inf, None
        for number in range(1, epochs + 1):
            losses = []
            order = rng.permutation(len(x))
            for rows in np.array_split(order, max(1, round(len(x) / batch))):
                adam.zero_grad()
                out = torch.tanh(inputs[rows] @ weight.t() + bias)
                loss = ccc_loss(out, targets[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()
                losses.append(loss.item())
            w, b = (p.detach().numpy().copy() for p in (weight, bias))
            head = cls(mean, sd, w, b, half)
            found = head.score(*val)
            if notice is not None:
                notice(number, float(np.mean(losses)), found)
            if kept is None or found > best:
                kept = head
            best = max(best, found) if found == found else best
        assert kept is not None
        return kept

    def predict(self, frames: Ragged) -> NDArray[np.float64]:
        """Valence and arousal of every frame, shape (rows, 2); NaN where a video has no face."""
        z = (fill_gaps(frames).values.astype(np.float64) - self.mean) / self.sd
        out = np.tanh(z @ self.weight.T + self.bias)
        for i in range(len(frames)):
            rows = slice(frames.offsets[i], frames.offsets[i + 1])
            out[rows] = box_filter(out[rows], self.half)
        return out

    def score(self, frames: Ragged, labels: NDArray[np.float64]) -> float:
        """Mean CCC over all labelled frames; NaN where it is undefined."""
        found = self.predict(frames)
        rows = np.isfinite(labels).all(axis=1) & np.isfinite(found).all(axis=1)
        return mean_defined(ccc(found[rows], labels[rows])) if rows.any() else float("nan")
