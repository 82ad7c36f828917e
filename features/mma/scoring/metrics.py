"""Figures by which an extractor is judged, with bootstrap intervals (Table 5 of the paper)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def concordance(prediction: Array, target: Array) -> float:
    """Concordance correlation coefficient with population moments; NaN for fewer than two values.

    A constant vector has no concordance with anything, not even with itself: 0.
    """
    if len(prediction) < 2:
        return float("nan")
    # Asked of the values: rounding of the mean may leave a constant some variance.
    if np.ptp(prediction) == 0 or np.ptp(target) == 0:
        return 0.0
    gap = prediction.mean() - target.mean()
    spread = prediction.var() + target.var() + gap**2
    covariance = ((prediction - prediction.mean()) * (target - target.mean())).mean()
    return float(2 * covariance / spread) if spread > 0 else 0.0


def confusion(
    predicted: NDArray[np.int64], target: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Count (classes, classes): rows are what is true, columns what was predicted."""
    flat = np.bincount(target * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)


def accuracy(counts: NDArray[np.int64]) -> float:
    """Share of a confusion matrix that lies on the diagonal; NaN where it is empty."""
    total = int(counts.sum())
    return float(np.trace(counts) / total) if total else float("nan")


def recalls(counts: NDArray[np.int64]) -> Array:
    """Recall of each class; NaN for a class that does not occur."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.diag(counts) / counts.sum(axis=1), dtype=np.float64)


def balanced_accuracy(counts: NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur; NaN where none does."""
    values = recalls(counts)
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur or were predicted; NaN where there is none."""
    hits = np.diag(counts)
    touched = counts.sum(axis=0) + counts.sum(axis=1)
    present = touched > 0
    return float((2 * hits[present] / touched[present]).mean()) if present.any() else float("nan")


def calibration_error(
    probability: Array, target: NDArray[np.int64] | NDArray[np.floating[Any]], bins: int = 15
) -> float:
    """Compute the expected calibration error of the predicted class.

    ECE = sum_b (n_b / n) |mean_b(q_i) - mean_b(p_i)|, where p_i is the probability of the class
    that is predicted for image i, and q_i is 1 or 0 as that is the true class or not; or, of
    votes, the share of the votes that it has.

    Parameters
    ----------
    probability : ndarray (n, classes)
        Rows sum to one.
    target : ndarray (n,) or (n, classes)
        True classes, or shares of votes.
    bins : int
        Bins b of equal width over the confidence p.

    Returns
    -------
    float
        In [0, 1]; NaN for n = 0.
    """
    if not len(target):
        return float("nan")
    confidence = probability.max(axis=1)
    said = probability.argmax(axis=1)
    right = target[np.arange(len(said)), said] if target.ndim == 2 else said == target
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(place, weights=right.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(target))


def unit_f1(probability: Array, target: Array, threshold: float = 0.5) -> Array:
    """F1 of each action unit over the samples that are annotated for it.

    Parameters
    ----------
    probability, target : ndarray (n, units)
        Both cut at the threshold; NaN in `target` is unknown.

    Returns
    -------
    ndarray (units,)
        NaN for a unit that never occurs among the annotated (F1 says nothing there).
    """
    known = ~np.isnan(target)
    true = known & (np.nan_to_num(target) >= threshold)
    said = known & (probability >= threshold)
    hits = (true & said).sum(axis=0)
    touched = true.sum(axis=0) + said.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(true.any(axis=0), 2 * hits / np.maximum(touched, 1), np.nan)


def bootstrap(
    score: Callable[[NDArray[np.int64]], float],
    n: int,
    repeats: int = 1000,
    seed: int = 0,
    clusters: NDArray[np.int64] | None = None,
) -> tuple[float, float] | None:
    """95 % percentile interval of a score over samples drawn with replacement.

    Parameters
    ----------
    score : callable
        From the indices of a resample to a figure.
    n : int
        Number of samples.
    repeats, seed : int
        Resamples, and where they start.
    clusters : ndarray (n,), optional
        Draw whole clusters (persons, videos) of these numbers instead of single samples.

    Returns
    -------
    (low, high) or None
        None where the score is undefined in every resample.
    """
    if n == 0:
        return None
    rng = np.random.default_rng(seed)
    if clusters is None:
        values = np.array([score(rng.integers(0, n, n)) for _ in range(repeats)])
    else:
        order = np.argsort(clusters, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
        values = np.array(
            [
                score(
                    np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
                )
                for _ in range(repeats)
            ]
        )
    if np.isnan(values).all():
        return None
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
