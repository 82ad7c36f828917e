"""What L_CCE and weak valence-arousal aim at: distributions over expressions, sharp or soft.

A label says which expression a face shows, not how much of it, and on photographs it is often one
of several that would do. Two things soften it (both ours, both off by default): the intensity of a
smile, and the opinion of the weights that a stage starts from (self-distillation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import ACTION_UNITS, Schema

Floats = NDArray[np.float32]

WEAK_VALENCE_AROUSAL: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "anger": (-0.55, 0.6),
    "disgust": (-0.65, 0.35),
    "fear": (-0.55, 0.75),
    "happiness": (0.8, 0.35),
    "sadness": (-0.7, -0.35),
    "surprise": (0.2, 0.75),
}
"""Weak labels (ours): where the circumplex of affect puts a full expression. A network that is
unsure between expressions learns the mean of their places, weighted by their probabilities."""


def one_hot(expression: NDArray[np.int64], classes: int) -> Floats:
    """Give labels (n,) as distributions (n, classes); a row of NaN where the label is -1."""
    targets = np.zeros((len(expression), classes), dtype=np.float32)
    known = expression >= 0
    targets[known, expression[known]] = 1.0
    targets[~known] = np.nan
    return targets


def drawn_labels(targets: Floats, draws: NDArray[np.float64]) -> Floats:
    """Draw one label a row from distributions (b, k), by numbers (b,) in [0, 1)."""
    known = ~np.isnan(targets).any(axis=1)
    sums = np.cumsum(np.nan_to_num(targets), axis=1)
    place = (sums <= (draws * sums[:, -1])[:, None]).sum(axis=1).clip(max=targets.shape[1] - 1)
    return one_hot(np.where(known, place, -1), targets.shape[1])


def with_intensity(valence_arousal: Floats, units: NDArray[np.floating], share: float) -> Floats:
    """Let weak valence follow the smile, and the frown and the lowered brow, of each face.

    v' = (1 - share) * v + share * (AU12 - (AU04 + AU15) / 2)

    Parameters
    ----------
    valence_arousal : ndarray (n, 2)
        NaN where unknown.
    units : ndarray (n, 17)
        Activations in [0, 1]; where one of the three is NaN, v stays.
    share : float
        In [0, 1].
    """
    smile, brow, frown = (units[:, ACTION_UNITS.index(n)] for n in ("AU12", "AU04", "AU15"))
    seen = smile - (brow + frown) / 2
    valence = valence_arousal[:, 0]
    moved = np.where(np.isnan(seen), valence, (1 - share) * valence + share * seen)
    return np.column_stack([moved, valence_arousal[:, 1]]).astype(np.float32)


def graded(targets: Floats, units: NDArray[np.floating], share: float, schema: Schema) -> Floats:
    """Move mass from happiness to neutral, the more the fainter the smile.

    q_neutral = share * (1 - AU12) * q_happiness is taken from happiness.

    Parameters
    ----------
    targets : ndarray (n, k)
        Distributions over the expressions of the schema.
    units : ndarray (n, 17)
        Activations in [0, 1]; where AU12 is NaN nothing moves.
    share : float
        In [0, 0.5): below one half happiness stays the likeliest whatever the smile.
    schema : Schema
        Its expressions; without happiness or neutral nothing moves.
    """
    names = schema.group("expr")
    if not share or not {"happiness", "neutral"} <= set(names):
        return targets
    happy, rest = names.index("happiness"), names.index("neutral")
    smile = units[:, ACTION_UNITS.index("AU12")]
    moved = np.nan_to_num(share * (1 - smile)) * targets[:, happy]
    targets = targets.copy()
    targets[:, happy] -= moved
    targets[:, rest] += moved
    return targets


def blended(targets: Floats, opinion: Floats, share: float) -> Floats:
    """Give (1 - share) * targets + share * opinion; what has no target stays without."""
    return (1 - share) * targets + np.float32(share) * opinion


def weak_valence_arousal(targets: Floats, schema: Schema) -> Floats:
    """Give the mean place (n, 2) of distributions over expressions in the circumplex.

    Parameters
    ----------
    targets : ndarray (n, k)
        Distributions over the expressions of the schema; NaN where unknown.

    Returns
    -------
    ndarray (n, 2) float32
        Valence and arousal; NaN where the target is, or gives mass to an expression that has no
        place (contempt, …).
    """
    nowhere = (np.nan, np.nan)
    table = np.array(
        [WEAK_VALENCE_AROUSAL.get(name, nowhere) for name in schema.group("expr")],
        dtype=np.float32,
    )
    placed = ~np.isnan(table[:, 0])
    unknown: NDArray[np.bool_] = np.any(np.isnan(targets) | (~placed & (targets > 0)), axis=1)
    values = np.where(unknown[:, None], 0, targets)[:, placed] @ table[placed]
    values[unknown] = np.nan
    return values
