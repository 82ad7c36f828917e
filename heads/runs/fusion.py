"""Late fusion of [S]: a weighted mean of several heads' intensities, weights from validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError

Array = NDArray[np.float64]
Weighting = Literal["common", "target"]
"""One weight a head (ours, the default), or one a head and target (the code of [S])."""
MOST_HEADS = 8
_STEPS = (100, 50, 20, 10, 5)
_MOST_POINTS = 200_000
_BLOCK = 1 << 14  # points scored at once
_TIE = 1e-9


def fuse(predictions: Sequence[Array], weights: Array) -> Array:
    """Weighted mean of predictions.

    Parameters
    ----------
    predictions : sequence of ndarray, shape (videos, targets)
        One a head.
    weights : ndarray, shape (heads, targets)
        At least 0, of sum 1 for every target.

    Returns
    -------
    ndarray, shape (videos, targets)
        Bit for bit a head's own prediction where its weight is 1.
    """
    out = np.zeros_like(predictions[0])
    for prediction, row in zip(predictions, weights, strict=True):
        # What has no weight has no say, whatever it predicts.
        out[:, row > 0] += prediction[:, row > 0] * row[row > 0]
    return out


def weight_range(weights: Mapping[str, float]) -> str:
    """Write a head's weights, a target each, as one figure or their range."""
    low, high = min(weights.values()), max(weights.values())
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def weight_grid(heads: int) -> Array:
    """All weights of a number of heads on an even grid, shape (points, heads).

    Steps of 0.01 for up to three heads, coarser for more ([S] has 0.1 for two).

    Raises
    ------
    UsageError
        Fewer than two heads, or more than `MOST_HEADS`.
    """
    if not 2 <= heads <= MOST_HEADS:
        raise UsageError(f"2 to {MOST_HEADS} heads can be fused, not {heads}")
    step = next(n for n in _STEPS if math.comb(n + heads - 1, heads - 1) <= _MOST_POINTS)
    # Stars and bars: where the bars lie says how the steps are shared out.
    bars = np.array(list(combinations(range(step + heads - 1), heads - 1)))
    ends = np.full((len(bars), 1), step + heads - 1)
    edges = np.concatenate([np.full_like(ends, -1), bars, ends], axis=1)
    return (np.diff(edges, axis=1) - 1) / step


def choose_weights(
    predictions: Sequence[Array], truth: Array, weighting: Weighting = "common"
) -> Array:
    """Find the weights of highest Pearson's rho on the grid of `weight_grid`.

    Parameters
    ----------
    predictions : sequence of ndarray of float64, shape (videos, targets)
        One a head, of the validation videos.
    truth : ndarray of float64, shape (videos, targets)
    weighting : {"common", "target"}
        ``common``: the same weights for all targets, by the mean rho; ``target``: each target's
        own, which also is the highest mean.

    Returns
    -------
    ndarray, shape (heads, targets)
        Of equally good ones those nearest to equal weights, so that heads that say the same
        share evenly.

    Notes
    -----
    Rho of a mixture needs only the covariances of the predictions with each other and with the
    labels: ``w'c / sqrt(w'Cw v)``. Where it is undefined it counts as 0.
    """
    p = np.stack([q - q.mean(0) for q in predictions])
    y = truth - truth.mean(0)
    among = np.einsum("hvt,gvt->thg", p, p) / len(y)
    with_truth, variance = np.einsum("hvt,vt->th", p, y) / len(y), (y * y).mean(0)
    level = 1e-12 * np.maximum((among.diagonal(axis1=1, axis2=2)).max(1), 1e-12)
    grid = weight_grid(len(p))
    rho = np.concatenate(
        [
            _mixed(grid[i : i + _BLOCK], among, with_truth, variance, level)
            for i in range(0, len(grid), _BLOCK)
        ]
    )
    if weighting == "common":
        rho = np.repeat(rho.mean(1, keepdims=True), rho.shape[1], axis=1)
    uneven = ((grid - 1 / len(p)) ** 2).sum(1)
    order = np.argsort(uneven, kind="stable")
    best = [order[np.argmax(column[order] >= column.max() - _TIE)] for column in rho.T]
    return grid[best].T


def _mixed(grid: Array, among: Array, with_truth: Array, variance: Array, level: Array) -> Array:
    """Rho of every point and target, shape (points, targets)."""
    power = np.einsum("nh,thg,ng->nt", grid, among, grid, optimize=True)
    defined = (power > level) & (variance > 0)
    spread = np.sqrt(np.where(defined, power * variance, 1.0))
    return np.where(defined, grid @ with_truth.T / spread, 0.0)
