"""Labels of a set of face images, wherever the images are."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from feie.features.mma.vocabulary import Codes

Texts = Sequence[str] | NDArray[Any]
"""Strings, one an image: a list, or where there are millions an array."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels in the vocabulary of the affect vector, one row an image.

    Attributes
    ----------
    title : str
        What messages call the data.
    names : sequence or array of str
        One name an image.
    expression : ndarray (n,) of integers
        Index into `EXPRESSIONS`; -1 where unknown or outside the seven.
    other : sequence or array of str
        The label of an image whose expression is outside the seven (contempt, …), else "".
    codes : {"names", "classes", "aff-wild2"} or None
        What says which expression is meant: its name, a code into the data set's own list of
        classes, or a code that is taken in Aff-Wild2's order. None without expressions.
    valence_arousal : ndarray (n, 2) of floats
        In [-1, 1]; NaN where unknown.
    units : ndarray (n, 17) of floats
        Action-unit activations in [0, 1]; NaN where unknown.
    identity : ndarray (n,) int64 or None
        Who is seen, where the data set says so.
    votes : ndarray (n, k) float32 or None
        How many people said what, where several labelled each image.
    vote_classes : tuple of str
        What the columns of `votes` mean, in the vocabulary of `expression_name`.
    """

    title: str
    names: Texts
    expression: NDArray[np.signedinteger[Any]]
    other: Texts
    codes: Codes | None
    valence_arousal: NDArray[np.floating[Any]]
    units: NDArray[np.floating[Any]]
    identity: NDArray[np.int64] | None = None
    votes: NDArray[np.float32] | None = None
    vote_classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """What to resample whole in a bootstrap; None for single images."""
        return None

    @property
    def outside(self) -> dict[str, int]:
        """Labels outside the seven expressions, and how often each occurs."""
        return dict(sorted(Counter(label for label in self.other if label).items()))

    def select(self, rows: NDArray[np.signedinteger[Any]]) -> Self:
        """Give the labels of some rows, in the order asked for."""
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                chosen[field.name] = [value[i] for i in rows]
            elif isinstance(value, np.ndarray):
                chosen[field.name] = value[rows]
        return replace(self, **chosen)


def held_out(names: Texts, share: float) -> NDArray[np.bool_]:
    """Tell which images are held out: a fixed share, by a hash of the name alone.

    Parameters
    ----------
    names : sequence or array of str
        Names of images, or of the persons on them.
    share : float
        Expected share in (0, 1).

    Returns
    -------
    ndarray (n,) bool
    """
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(d, "big") < share * 2**64 for d in digests], dtype=np.bool_)


def persons(data: Labelled) -> list[str]:
    """Say who is seen on each image: the data set's own identity, else the name without number.

    The name loses its suffix and the digits at the end of what remains: ``Ann_Lee_0002.jpg`` is
    ``Ann_Lee``, and all numbered images of a folder are one person. A name that is nothing but a
    number stays as it is.
    """
    if data.identity is not None:
        return [f"#{number}" for number in data.identity]
    stems = [re.sub(r"\.[A-Za-z]{3,4}$", "", name) for name in data.names]
    return [re.sub(r"(?<=[^\W_])[\W_]+\d+$|(?<=[^\d\W_])\d+$", "", stem) for stem in stems]
