"""Table 1 of the MMA paper: which action units an expression entails."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import ACTION_UNITS, EXPRESSIONS

PROTOTYPICAL: dict[str, tuple[int, ...]] = {
    "neutral": (),
    "anger": (4, 7, 24),
    "disgust": (9, 10, 17),
    "fear": (1, 4, 20, 25),
    "happiness": (12, 25),
    "sadness": (4, 15),
    "surprise": (1, 2, 25, 26),
}
"""Action units by FACS number that an expression's prototype has."""

OBSERVATIONAL: dict[str, tuple[int, ...]] = {
    "neutral": (),
    "anger": (10, 17, 23),
    "disgust": (4, 24),
    "fear": (2, 5, 26),
    "happiness": (6,),
    "sadness": (1, 6, 11, 17),
    "surprise": (5,),
}
"""Action units that most observers saw in an expression."""


def relation_matrix() -> NDArray[np.float32]:
    """Give r_AU|expr of Eq. 1: 1 for prototypical or observational action units, else 0.

    Returns
    -------
    ndarray (7, 17) float32
        Rows in the order of `EXPRESSIONS`, columns in the order of `ACTION_UNITS`.
    """
    matrix = np.zeros((len(EXPRESSIONS), len(ACTION_UNITS)), dtype=np.float32)
    for row, expression in enumerate(EXPRESSIONS):
        for unit in PROTOTYPICAL[expression] + OBSERVATIONAL[expression]:
            matrix[row, ACTION_UNITS.index(f"AU{unit:02d}")] = 1.0
    return matrix
