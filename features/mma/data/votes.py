"""What several people said of the same image: a distribution to learn and be judged by, a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_VOTES = 2
"""Votes of a single person are dropped as outliers, as in FER+."""


def vote_targets(
    votes: NDArray[np.float32],
    classes: tuple[str, ...],
    expressions: tuple[str, ...],
    majority: bool = False,
) -> NDArray[np.float32]:
    """Give votes as distributions over a network's expressions.

    The rule (FER+'s, Barsoum et al., arXiv 1608.01041, section 4, for any set of expressions):
    classes with fewer than `FEWEST_VOTES` votes count as none. A picture whose most voted class
    is no expression of the network (contempt, unknown, not a face) has no target; of the others,
    votes for what is no expression are dropped and the rest is normalised.

    Parameters
    ----------
    votes : ndarray (n, k)
        How many people said what.
    classes : tuple of str
        Names of the k classes.
    expressions : tuple of str
        Of the network, in its order.
    majority : bool
        All of the mass on the most voted expression; shared where several are.

    Returns
    -------
    ndarray (n, len(expressions)) float32
        Rows of NaN where there is no target.
    """
    counted = np.where(votes >= FEWEST_VOTES, votes, 0.0).astype(np.float32)
    ours = np.zeros((len(votes), len(expressions)), dtype=np.float32)
    for place, name in enumerate(expressions):
        if name in classes:
            ours[:, place] = counted[:, classes.index(name)]
    most = ours.max(axis=1, initial=0.0)
    if majority:
        ours = np.where(ours == most[:, None], ours, 0.0).astype(np.float32)
    led = (most > 0) & (most >= counted.max(axis=1, initial=0.0))
    total = ours.sum(axis=1, keepdims=True)
    return np.where(led[:, None], ours / np.where(total > 0, total, 1), np.nan).astype(np.float32)


def voted(votes: NDArray[np.float32], classes: tuple[str, ...]) -> list[str]:
    """Name the most voted class of each image, the first of equals; "" without votes that count."""
    return [
        classes[place] if count >= FEWEST_VOTES else ""
        for place, count in zip(votes.argmax(axis=1), votes.max(axis=1, initial=0.0), strict=True)
    ]
