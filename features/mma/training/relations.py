"""Table 1 of the MMA paper: which action units an expression entails."""

from __future__ import annotations

from collections.abc import Sequence

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


def relation_matrix(expressions: Sequence[str] = EXPRESSIONS) -> NDArray[np.float32]:
    """Give r_AU|expr of Eq. 1: 1 for prototypical or observational action units, else 0.

    Parameters
    ----------
    expressions : sequence of str
        Those that Table 1 does not have (contempt, …) entail nothing.

    Returns
    -------
    ndarray (expressions, 17) float32
        Columns in the order of `ACTION_UNITS`.
    """
    matrix = np.zeros((len(expressions), len(ACTION_UNITS)), dtype=np.float32)
    for row, expression in enumerate(expressions):
        for unit in PROTOTYPICAL.get(expression, ()) + OBSERVATIONAL.get(expression, ()):
            matrix[row, ACTION_UNITS.index(f"AU{unit:02d}")] = 1.0
    return matrix
