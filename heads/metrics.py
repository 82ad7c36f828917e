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
    prediction: Array, target: Array, samples: int = 1000, seed: int = 0
) -> Array:
    """Pearson's rho of resampled splits, shape (samples, targets); NaN where undefined.

    Videos are drawn with replacement, the same ones for all targets of a sample.
    """
    n = len(target)
    p, y = prediction - prediction.mean(0), target - target.mean(0)
    full_p, full_y = (p * p).mean(0), (y * y).mean(0)
    terms = np.concatenate([p, y, p * p, y * y, p * y], axis=1)
    rng = np.random.default_rng(seed)
    out = []
    for start in range(0, samples, 100):
        rows = min(100, samples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        mean_p, mean_y, square_p, square_y, product = np.split(counts @ terms / n, 5, axis=1)
        var_p, var_y = square_p - mean_p**2, square_y - mean_y**2
        defined = (var_p > 1e-10 * full_p) & (var_y > 1e-10 * full_y)
        spread = np.sqrt(np.where(defined, var_p * var_y, 1.0))
        out.append(np.where(defined, (product - mean_p * mean_y) / spread, np.nan))
    return np.concatenate(out)


def _interval(samples: Array) -> Array:
    """2.5 and 97.5 % points; NaN unless nine samples in ten are defined."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < 0.9 * len(samples):
        return np.full(2, np.nan)
    return np.percentile(defined, [2.5, 97.5])


def score(prediction: Array, target: Array, seed: int = 0) -> Scores:
    """Score the predictions of a whole split (never averaged over batches).

    Parameters
    ----------
    prediction, target : ndarray of float64, shape (videos, targets)
    seed : int
        Of the bootstrap.
    """
    rho = pearson(prediction, target)
    samples = bootstrap_pearson(prediction, target, seed=seed)
    samples[:, np.isnan(rho)] = np.nan
    means = np.array([mean_defined(row) for row in samples])
    return Scores(
        pearson=rho,
        ccc=ccc(prediction, target),
        mae=mae(prediction, target),
        pearson_interval=np.stack([_interval(column) for column in samples.T]),
        mean_pearson_interval=_interval(means),
    )
