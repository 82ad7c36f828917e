"""Agreement of predictions and labels over a whole split, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.heads.config import Measure

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Figures of a split; NaN where a constant column leaves them undefined.

    Attributes
    ----------
    pearson, ccc, mae : ndarray, shape (targets,)
        Pearson's rho, Lin's concordance correlation, mean absolute error.
    headline : {"pearson", "ccc"}
        Which of them the intervals are of.
    interval : ndarray, shape (targets, 2)
        Bootstrap 95 % interval over units, or groups of them.
    mean_interval : ndarray, shape (2,)
        Of the mean over the targets.
    """

    pearson: Array
    ccc: Array
    mae: Array
    headline: Measure
    interval: Array
    mean_interval: Array

    @property
    def mean(self) -> float:
        """Mean of the headline over the targets where it is defined; NaN if nowhere."""
        return mean_defined(self.pearson if self.headline == "pearson" else self.ccc)


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


def bootstrap_ccc(
    prediction: Array,
    target: Array,
    samples: int = 1000,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
) -> Array:
    """Do as `bootstrap_pearson` does, for the CCC; made for millions of frames in few videos.

    Sums of whole groups are drawn, which frames of a video resemble each other enough to need.
    """
    owner = np.arange(len(target)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(owner.max()) + 1
    level = target.mean(0)  # the same for both: nothing changes but the rounding
    p, y = prediction - level, target - level
    terms = np.concatenate([np.ones((len(p), 1)), p, y, p * p, y * y, p * y], axis=1)
    sums = np.zeros((units, terms.shape[1]))
    np.add.at(sums, owner, terms)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(units, size=(samples, units)) + units * np.arange(samples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=samples * units).reshape(samples, units)
    totals = counts @ sums
    means = totals[:, 1:] / totals[:, :1]
    mean_p, mean_y, square_p, square_y, product = np.split(means, 5, axis=1)
    spread = square_p - mean_p**2 + square_y - mean_y**2 + (mean_p - mean_y) ** 2
    defined = spread > 1e-12
    out = np.full(spread.shape, np.nan)
    out[defined] = 2 * (product - mean_p * mean_y)[defined] / spread[defined]
    return out


MEASURES: dict[Measure, Callable[[Array, Array], Array]] = {"pearson": pearson, "ccc": ccc}
_BOOTSTRAPS: dict[Measure, Callable[..., Array]] = {
    "pearson": bootstrap_pearson,
    "ccc": bootstrap_ccc,
}


def _drawn(
    headline: Measure,
    prediction: Array,
    target: Array,
    samples: int,
    seed: int,
    groups: NDArray[np.int64] | None,
) -> tuple[Array, Array]:
    """Give the figure of each target, and of resampled splits, with the mean as last column."""
    found = MEASURES[headline](prediction, target)
    rows = _BOOTSTRAPS[headline](prediction, target, samples=samples, seed=seed, groups=groups)
    rows[:, np.isnan(found)] = np.nan
    means = np.array([mean_defined(row) for row in rows])
    return np.append(found, mean_defined(found)), np.column_stack([rows, means])


def interval(samples: Array) -> Array:
    """2.5 and 97.5 % points; NaN unless nine samples in ten are defined."""
    defined = samples[~np.isnan(samples)]
    if len(defined) < 0.9 * len(samples):
        return np.full(2, np.nan)
    return np.percentile(defined, [2.5, 97.5])


def score(
    prediction: Array,
    target: Array,
    seed: int = 0,
    groups: NDArray[np.int64] | None = None,
    headline: Measure = "pearson",
) -> Scores:
    """Score the predictions of a whole split (never averaged over batches).

    Parameters
    ----------
    prediction, target : ndarray of float64, shape (units, targets)
        Of videos, or of all labelled frames.
    seed : int
        Of the bootstrap.
    groups : ndarray of int64, shape (units,), optional
        Subject of each video, or video of each frame: the bootstrap draws these then.
    headline : {"pearson", "ccc"}
        What the intervals are of.
    """
    found, drawn = _drawn(headline, prediction, target, 1000, seed, groups)
    own = {headline: found[:-1]}
    intervals = np.stack([interval(column) for column in drawn.T])
    return Scores(
        pearson=own["pearson"] if "pearson" in own else pearson(prediction, target),
        ccc=own["ccc"] if "ccc" in own else ccc(prediction, target),
        mae=mae(prediction, target),
        headline=headline,
        interval=intervals[:-1],
        mean_interval=intervals[-1],
    )


def two_sided(samples: Array) -> float:
    """Twice the smaller share of samples on one side of zero; NaN where none is defined."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan")
    sides = (defined <= 0).mean(), (defined >= 0).mean()
    return float(min(1.0, 2 * max(min(sides), 1 / len(defined))))


def holm(p_values: Array) -> Array:
    """Correct p-values for their number (Holm 1979); NaN stays NaN and does not count.

    Parameters
    ----------
    p_values : ndarray, any shape

    Returns
    -------
    ndarray of the same shape
        The k-th smallest of m is multiplied by m - k + 1, and none is below a smaller one.
    """
    flat = p_values.ravel()
    order = np.argsort(flat)[: int((~np.isnan(flat)).sum())]  # NaN sorts last
    steps = flat[order] * np.arange(len(order), 0, -1)
    out = np.full(len(flat), np.nan)
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return out.reshape(p_values.shape)


@dataclass(frozen=True)
class Comparison:
    """How much better one prediction is than another of the same units.

    Attributes
    ----------
    difference : ndarray, shape (targets + 1,)
        Of the headline, a target each, then of the mean.
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
    headline: Measure = "pearson",
) -> Comparison:
    """Compare two predictions by a paired bootstrap over units, or over groups of them.

    Parameters
    ----------
    one, other, target : ndarray of float64, shape (units, targets)
    groups, headline
        As in `score`.
    """
    both = [_drawn(headline, p, target, samples, seed, groups) for p in (one, other)]
    (found, theirs), drawn = (f for f, _ in both), [rows for _, rows in both]
    difference = drawn[0] - drawn[1]
    return Comparison(
        difference=found - theirs,
        interval=np.stack([interval(column) for column in difference.T]),
        p_value=np.array([two_sided(column) for column in difference.T]),
    )
