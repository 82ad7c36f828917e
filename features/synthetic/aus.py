"""Action units as expression deltas of the face model, and the affect they stand for.

An activation of 1 is the mixture of deltas below, 0 the neutral face, and geometry is linear
between: the activations of a rendered face are exact by construction. They are not FACS
intensities A-E, which no human coder assigned here. Deltas that look faint at their stored
strength are taken further, up to `LARGEST_WEIGHT`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import ACTION_UNITS

# Names without side exist as <name>_L and <name>_R in the model.
AU_SHAPES: dict[str, dict[str, float]] = {
    "AU01": {"browInnerUp": 1.3},
    "AU02": {"browOuterUp": 1.2},
    "AU04": {"browDown": 1.4},
    "AU05": {"eyeWide": 1.5},
    "AU06": {"cheekSquint": 1.3, "cheekRaiser": 1.3},
    "AU07": {"eyeSquint": 2.0, "eyeBlink": 0.2},
    "AU09": {"noseSneer": 1.0},
    "AU10": {"mouthUpperUp": 1.0},
    "AU11": {},  # nasolabial deepener: the model has no shape for it, so it stays unknown
    "AU12": {"mouthSmile": 1.0},
    "AU15": {"mouthFrown": 1.4},
    "AU17": {"mouthShrugLower": 1.4, "mouthShrugUpper": 0.5},
    "AU20": {"mouthStretch": 1.6},
    "AU23": {"mouthRollLower": 1.0, "mouthRollUpper": 1.0},
    "AU24": {"mouthPress": 2.0},
    "AU25": {"mouthLowerDown": 0.6, "mouthUpperUp": 0.15, "jawOpen": 0.12},
    "AU26": {"jawOpen": 0.75},
}
"""Expression deltas of each action unit at activation 1."""

SIDES = ("_L", "_R")
LARGEST_WEIGHT = 2.0
"""Deltas that several units share add up to this and no further: beyond it faces tear."""


def expression_weights(
    activation: NDArray[np.floating], names: Mapping[str, object], asymmetry: float = 0.0
) -> dict[str, float]:
    """Delta weights of a set of action units.

    Parameters
    ----------
    activation : (17,)
        Activations in [0, 1] in the order of `ACTION_UNITS`; NaN counts as 0.
    names : mapping
        Delta names of the model, e.g. `FaceMesh.expression`.
    asymmetry : float
        In [-1, 1]; above 0 the subject's right side moves less, by that share, below 0 the left.

    Returns
    -------
    dict of str to float
        Weights by delta name; shapes shared by several units add up to `LARGEST_WEIGHT`.
    """
    left, right = 1.0 + min(asymmetry, 0.0), 1.0 - max(asymmetry, 0.0)
    weights: dict[str, float] = {}
    for unit, value in zip(ACTION_UNITS, np.nan_to_num(activation), strict=True):
        for shape, share in AU_SHAPES[unit].items():
            if shape in names:
                sides = {shape: 1.0}
            else:
                sides = {shape + SIDES[0]: left, shape + SIDES[1]: right}
            for name, side in sides.items():
                weights[name] = min(
                    LARGEST_WEIGHT, weights.get(name, 0.0) + float(value) * share * side
                )
    return weights
