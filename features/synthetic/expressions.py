"""Patterns of action units, and the weak affect labels that follow from them by rule.

The prototypes are those of Table 1 of Kollias et al. (arXiv 2303.00180). Valence and arousal are
a rule of ours: the intensity of a prototypical expression times its anchor, nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import ACTION_UNITS, EXPRESSIONS

Floats = NDArray[np.float64]

# Expression -> (prototypical units, observational units with the share of faces that show them).
# Happiness may keep the lips closed (AU25 in three faces of four): smiles do.
PROTOTYPES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "anger": ({"AU04": 1, "AU07": 1, "AU24": 1}, {"AU10": 0.3, "AU17": 0.5, "AU23": 0.6}),
    "disgust": ({"AU09": 1, "AU10": 1, "AU17": 1}, {"AU04": 0.6, "AU24": 0.3}),
    "fear": (
        {"AU01": 1, "AU04": 1, "AU20": 1, "AU25": 1},
        {"AU02": 0.6, "AU05": 0.7, "AU26": 0.5},
    ),
    "happiness": ({"AU12": 1, "AU25": 0.75}, {"AU06": 0.75}),
    "sadness": ({"AU04": 1, "AU15": 1}, {"AU01": 0.75, "AU06": 0.2, "AU17": 0.5}),
    "surprise": ({"AU01": 1, "AU02": 1, "AU25": 1, "AU26": 1}, {"AU05": 0.65}),
}
# Valence and arousal of a full expression, after their usual places in the circumplex.
ANCHORS: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "anger": (-0.6, 0.65),
    "disgust": (-0.7, 0.35),
    "fear": (-0.65, 0.75),
    "happiness": (0.85, 0.45),
    "sadness": (-0.7, -0.35),
    "surprise": (0.1, 0.8),
}
LABEL_FROM = 0.35
"""A prototype at least this intense is labelled with its expression."""
NEUTRAL_BELOW = 0.1
"""A face whose units all stay below this is labelled neutral."""
# Lips cannot press together and part, the jaw cannot drop behind pressed lips, and of lids that are
# raised and narrowed at once nothing is seen.
_EXCLUSIVE = (
    ("AU24", "AU25"),
    ("AU24", "AU26"),
    ("AU23", "AU26"),
    ("AU12", "AU15"),
    ("AU05", "AU06"),
    ("AU05", "AU07"),
)


class Affect(NamedTuple):
    """A pattern of units and what is known of its affect.

    Attributes
    ----------
    units : (17,) activations in [0, 1], order of `ACTION_UNITS`; AU11 is NaN.
    expression : one of `EXPRESSIONS`, or "" where the pattern is no prototype.
    valence, arousal : in [-1, 1]; NaN where the pattern is no prototype.
    """

    units: Floats
    expression: str
    valence: float
    arousal: float


def prototype(expression: str, intensity: float, rng: np.random.Generator) -> Floats:
    """Activations (17,) of an expression of Table 1 at an intensity in [0, 1].

    Prototypical units reach 0.75-1 times the intensity, observational ones, where present,
    0.4-1 times. AU11, which the model cannot show, is NaN.
    """
    units = np.zeros(len(ACTION_UNITS))
    if expression != "neutral":
        core, other = PROTOTYPES[expression]
        for group, least in ((core, 0.75), (other, 0.4)):
            for unit, share in group.items():
                if rng.uniform() < share:
                    units[ACTION_UNITS.index(unit)] = intensity * rng.uniform(least, 1)
    units[ACTION_UNITS.index("AU11")] = np.nan
    return units


def draw_affect(rng: np.random.Generator) -> Affect:
    """Draw a pattern: prototypes of any intensity, free combinations, single units, rest.

    A unit that acts is more often well seen than faint: activations follow a beta (2, 1).

    Returns
    -------
    Affect
        Expression and valence/arousal only where the rules of this module define them.
    """
    nothing = float("nan")
    kind = rng.uniform()
    if kind < 0.4:
        expression = str(rng.choice(EXPRESSIONS[1:]))
        intensity = float(0.1 + 0.9 * rng.beta(2, 1))
        units = prototype(expression, intensity, rng)
        if rng.uniform() < 0.3:
            other = int(rng.integers(len(units)))
            units[other] = np.fmax(units[other], rng.uniform(0, 0.25))
        valence, arousal = (intensity * anchor for anchor in ANCHORS[expression])
        label = expression if intensity >= LABEL_FROM else ""
        return Affect(_settle(units), label, valence, arousal)
    units = np.zeros(len(ACTION_UNITS))
    if kind < 0.5:
        units += rng.uniform(0, 0.6 * NEUTRAL_BELOW, len(units)) * (rng.uniform(size=17) < 0.3)
        label, valence, arousal = "neutral", *ANCHORS["neutral"]
    else:
        count = 1 if kind < 0.6 else int(rng.integers(2, 8))
        chosen = rng.choice(len(units), count, replace=False)
        units[chosen] = 0.1 + 0.9 * rng.beta(2, 1, count)
        label, valence, arousal = "", nothing, nothing
    return Affect(_settle(units), label, valence, arousal)


def _settle(units: Floats) -> Floats:
    """Take back the weaker of two units that exclude each other; AU11 stays unknown."""
    units[ACTION_UNITS.index("AU11")] = np.nan
    for first, second in _EXCLUSIVE:
        a, b = ACTION_UNITS.index(first), ACTION_UNITS.index(second)
        if min(units[a], units[b]) > 0:
            units[a if units[a] < units[b] else b] = 0.0
    return units
