"""Agreement frame by frame: concordance over all labelled frames, intervals over videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.heads.measures.metrics import ccc, interval, mae, mean_defined, pearson, two_sided

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FrameScores:
    """Figures over all labelled frames of a split; NaN where undefined.

    Attributes
    ----------
    ccc, pearson, mae : ndarray, shape (2,)
        Of valence and arousal.
    interval : ndarray, shape (2, 2)
        Bootstrap 95 % interval of the CCC over videos.
    mean_interval : ndarray, shape (2,)
        Of their mean.
    """

    ccc: Array
    pearson: Array
    mae: Array
    interval: Array
    mean_interval: Array

    @property
    def mean_ccc(self) -> float:
        """Mean of valence and arousal, where defined."""
        return mean_defined(self.ccc)


def score_frames(
    prediction: Array, target: Array, video: NDArray[np.int64], seed: int = 0
) -> FrameScores:
    """Score labelled frames.

    Parameters
    ----------
    prediction, target : ndarray of float64, shape (frames, 2)
        Finite.
    video : ndarray of int64, shape (frames,)
        Which video a frame is of: frames of a video resemble each other, so videos are drawn.
    """
    drawn = bootstrap_ccc(prediction, target, video, seed=seed)
    return FrameScores(
        ccc=ccc(prediction, target),
        pearson=pearson(prediction, target),
        mae=mae(prediction, target),
        interval=np.stack([interval(column) for column in drawn.T]),
        mean_interval=interval(np.array([mean_defined(row) for row in drawn])),
    )


def bootstrap_ccc(
    prediction: Array,
    target: Array,
    video: NDArray[np.int64],
    samples: int = 1000,
    seed: int = 0,
) -> Array:
    """CCC of resampled splits, shape (samples, targets); NaN where undefined.

    Whole videos are drawn with replacement. What is drawn depends on the seed and the number of
    videos alone, so samples of two predictions of the same frames are paired.
    """
    owner = np.unique(video, return_inverse=True)[1]
    videos = int(owner.max()) + 1
    level = target.mean(0)  # the same for both: nothing changes but the rounding
    p, y = prediction - level, target - level
    terms = np.concatenate([np.ones((len(p), 1)), p, y, p * p, y * y, p * y], axis=1)
    sums = np.zeros((videos, terms.shape[1]))
    np.add.at(sums, owner, terms)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(videos, size=(samples, videos)) + videos * np.arange(samples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=samples * videos).reshape(samples, videos)
    totals = counts @ sums
    means = totals[:, 1:] / totals[:, :1]
    mean_p, mean_y, square_p, square_y, product = np.split(means, 5, axis=1)
    spread = square_p - mean_p**2 + square_y - mean_y**2 + (mean_p - mean_y) ** 2
    defined = spread > 1e-12
    out = np.full(spread.shape, np.nan)
    out[defined] = 2 * (product - mean_p * mean_y)[defined] / spread[defined]
    return out


@dataclass(frozen=True)
class FrameComparison:
    """How much better one prediction is than another: valence, arousal, then their mean.

    Attributes
    ----------
    difference, p_value : ndarray, shape (3,)
        Of the CCC; two-sided.
    interval : ndarray, shape (3, 2)
        Paired bootstrap 95 % interval over videos.
    """

    difference: Array
    interval: Array
    p_value: Array


def compare_frames(
    one: Array, other: Array, target: Array, video: NDArray[np.int64], seed: int = 0
) -> FrameComparison:
    """Compare two predictions of the same frames; parameters as in `score_frames`."""
    found, drawn = [], []
    for prediction in (one, other):
        value = ccc(prediction, target)
        rows = bootstrap_ccc(prediction, target, video, 2000, seed)
        found.append(np.append(value, mean_defined(value)))
        drawn.append(np.column_stack([rows, [mean_defined(row) for row in rows]]))
    difference = drawn[0] - drawn[1]
    return FrameComparison(
        difference=found[0] - found[1],
        interval=np.stack([interval(column) for column in difference.T]),
        p_value=np.array([two_sided(column) for column in difference.T]),
    )
