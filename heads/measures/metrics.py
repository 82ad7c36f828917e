"""Agreement of predictions and labels over a whole split, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Figures of a split; NaN where a constant column leaves them undefined.

    Attributes
    ----------
    pearson, ccc, mae : ndarray, shape (targets,)
        Pearson's rho, Lin's concordance correlation, mean absolute error.
    pearson_interval : ndarray, shape (targets, 2)
        Bootstrap 95 % interval over videos.
    mean_pearson_interval : ndarray, shape (2,)
    """

    pearson: Array
    ccc: Array
    mae: Array
    pearson_interval: Array
    mean_pearson_interval: Array

    @property
    def mean_pearson(self) -> float:
        """Mean over the targets where it is defined; NaN if nowhere."""
        return mean_defined(self.pearson)


def mean_defined(values: Array) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def known(value: float) -> float | None:
    """Give a figure as JSON has it: None where it is undefined."""
    return None if np.isnan(value) else float(value)


def _varies(variance: Array, level: Array) -> NDArray[np.bool_]:
    # Rounding of a constant column leaves relative variances of some 1e-14 in float32.
    return variance > 1e-12 * np.maximum(level * level, 1e-12)


def pearson(prediction: Array, target: Array) -> Array:
    """Pearson's rho of each column, shape (targets,); NaN where a column is constant.

    Parameters
    ----------
    prediction, target : ndarray, shape (videos, targets)
    """
    p, y = prediction - prediction.mean(0), target - target.mean(0)
    var_p, var_y = (p * p).mean(0), (y * y).mean(0)
    defined = _varies(var_p, prediction.mean(0)) & _varies(var_y, target.mean(0))
    rho = np.full(p.shape[1], np.nan)
    rho[defined] = ((p * y).mean(0) / np.sqrt(np.where(defined, var_p * var_y, 1.0)))[defined]
    return np.clip(rho, -1.0, 1.0)


def ccc(prediction: Array, target: Array) -> Array:
    """Lin's concordance correlation (population moments); NaN where both are the same constant."""
    p, y = prediction - prediction.mean(0), target - target.mean(0)
    shift = prediction.mean(0) - target.mean(0)
    spread = (p * p).mean(0) + (y * y).mean(0) + shift * shift
    defined = spread > 0
    out = np.full(p.shape[1], np.nan)
    out[defined] = 2 * (p * y).mean(0)[defined] / spread[defined]
    return out


def mae(prediction: Array, target: Array) -> Array:
    """Mean absolute error of each column."""
    out: Array = np.abs(prediction - target).mean(0)
    return out


def bootstrap_pearson(
    prediction: Array,
    target: Array,
    samples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Array:
    """Pearson's rho of resampled splits, shape (samples, targets); NaN where undefined.

    Videos are drawn with replacement, the same ones for all targets of a sample; with `groups`,
    shape (videos,), whole groups are (all videos of a subject, or none). What is drawn depends
    on the seed and the groups alone, so that samples of two predictions are paired.
    """
    n = len(target)
    unit = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(unit.max()) + 1
    p, y = prediction - prediction.mean(0), target - target.mean(0)
    full_p, full_y = (p * p).mean(0), (y * y).mean(0)
    terms = np.concatenate([p, y, p * p, y * y, p * y], axis=1)
    rng = np.random.default_rng(seed)
    out = []
    for start in range(0, samples, 100):
        rows = min(100, samples - start)
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)[:, unit]
        means = counts @ terms / counts.sum(axis=1, keepdims=True)
        mean_p, mean_y, square_p, square_y, product = np.split(means, 5, axis=1)
        var_p, var_y = square_p - mean_p**2, square_y - mean_y**2
        defined = (var_p > 1e-10 * full_p) & (var_y > 1e-10 * full_y)
        spread = np.sqrt(np.where(defined, var_p * var_y, 1.0))
        out.append(np.where(defined, (product - mean_p * mean_y) / spread, np.nan))
    return np.concatenate(out)


def interval(samples: Array) -> Array:
    """2.5 and 97.5 % points; NaN unless nine samples in ten are defined."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < 0.9 * len(samples):
        return np.full(2, np.nan)
    return np.percentile(defined, [2.5, 97.5])


def score(
    prediction: Array, target: Array, seed: int = 0, groups: NDArray[np.int64] | None = None
) -> Scores:
    """Score the predictions of a whole split (never averaged over batches).

    Parameters
    ----------
    prediction, target : ndarray of float64, shape (videos, targets)
    seed : int
        Of the bootstrap.
    groups : ndarray of int64, shape (videos,), optional
        Subject of each video: the bootstrap draws subjects then.
    """
    rho = pearson(prediction, target)
    samples = bootstrap_pearson(prediction, target, seed=seed, groups=groups)
    samples[:, np.isnan(rho)] = np.nan
    means = np.array([mean_defined(row) for row in samples])
    return Scores(
        pearson=rho,
        ccc=ccc(prediction, target),
        mae=mae(prediction, target),
        pearson_interval=np.stack([interval(column) for column in samples.T]),
        mean_pearson_interval=interval(means),
    )


def two_sided(samples: Array) -> float:
    """Twice the smaller share of samples on one side of zero; NaN where none is defined."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan")
    sides = (defined <= 0).mean(), (defined >= 0).mean()
    return float(min(1.0, 2 * max(min(sides), 1 / len(defined))))


@dataclass(frozen=True)
class Comparison:
    """How much better one prediction is than another on the same videos.

    Attributes
    ----------
    difference : ndarray, shape (targets + 1,)
        Of Pearson's rho, a target each, then of the mean.
    interval : ndarray, shape (targets + 1, 2)
        Paired bootstrap 95 % interval.
    p_value : ndarray, shape (targets + 1,)
        Two-sided: twice the smaller share of samples on one side of zero.
    """

    difference: Array
    interval: Array
    p_value: Array


def compare(
    one: Array,
    other: Array,
    target: Array,
    seed: int = 0,
    samples: int = 2000,
    groups: NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare two predictions by a paired bootstrap over videos, or over groups of them.

    Parameters
    ----------
    one, other, target : ndarray of float64, shape (videos, targets)
    groups
        As in `score`.
    """
    found, drawn = [], []
    for prediction in (one, other):
        rho = pearson(prediction, target)
        rows = bootstrap_pearson(prediction, target, samples, seed, groups)
        rows[:, np.isnan(rho)] = np.nan
        means = np.array([mean_defined(row) for row in rows])
        found.append(np.append(rho, mean_defined(rho)))
        drawn.append(np.column_stack([rows, means]))
    difference = drawn[0] - drawn[1]
    return Comparison(
        difference=found[0] - found[1],
        interval=np.stack([interval(column) for column in difference.T]),
        p_value=np.array([two_sided(column) for column in difference.T]),
    )
