"""Compound expressions by the rule of [S]: no training, two constituents each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError

COMPOUNDS: dict[str, tuple[str, str]] = {
    "Fearfully Surprised": ("fear", "surprise"),
    "Happily Surprised": ("happiness", "surprise"),
    "Sadly Surprised": ("sadness", "surprise"),
    "Disgustedly Surprised": ("disgust", "surprise"),
    "Angrily Surprised": ("anger", "surprise"),
    "Sadly Fearful": ("sadness", "fear"),
    "Sadly Angry": ("sadness", "anger"),
}
"""The seven of C-EXPR-DB, and what each is made of."""


def compound_scores(
    probabilities: NDArray[np.floating], columns: Sequence[str]
) -> NDArray[np.float64]:
    """Score of each compound: the sum of its two constituents' probabilities.

    Parameters
    ----------
    probabilities : ndarray, shape (frames, columns)
        A frame with several faces has the mean of its faces here ([S]); NaN stays NaN.
    columns : sequence of str
        What the columns are called.

    Returns
    -------
    ndarray of float64, shape (frames, 7)
        In the order of `COMPOUNDS`.

    Raises
    ------
    HeadError
        A constituent is missing.
    """
    wanted = sorted({name for pair in COMPOUNDS.values() for name in pair})
    if lacking := [name for name in wanted if name not in columns]:
        raise HeadError(f"compound expressions need the columns {', '.join(lacking)}")
    place = {name: list(columns).index(name) for name in wanted}
    p = probabilities.astype(np.float64)
    return np.stack([p[:, place[a]] + p[:, place[b]] for a, b in COMPOUNDS.values()], axis=1)


def class_frequencies(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the frames in which each compound has the highest score, shape (7,).

    Frames without a face do not count; all zeros where there is no other.
    """
    rows = scores[np.isfinite(scores).all(axis=1)]
    counts = np.bincount(rows.argmax(axis=1), minlength=scores.shape[1]) if len(rows) else 0
    return np.zeros(scores.shape[1]) + counts / max(1, len(rows))


def kl_divergence(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """KL divergence of class frequencies, in nats, as [S] compares a prediction with a prior.

    Parameters
    ----------
    expected, found : ndarray, shape (classes,)
        Frequencies; each is smoothed by 1e-6 and made to sum to one.
    """
    p, q = (a / a.sum() for a in (expected + 1e-6, found + 1e-6))
    return float((p * np.log(p / q)).sum())
