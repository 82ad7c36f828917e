"""The labels of some data in the terms of a network: which of its expressions, or none of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from feie.features.mma.data.labelled import Labelled
from feie.features.schema import EXPRESSIONS, Schema

_D = TypeVar("_D", bound=Labelled)


def relabel(data: _D, schema: Schema) -> _D:
    """Give labels that count a network's expressions instead of the seven.

    Parameters
    ----------
    data : Labelled
        Labels by the seven, and the names of others.
    schema : Schema
        Outputs of the network.

    Returns
    -------
    Labelled
        ``expression`` is an index into the network's expressions, -1 where the label is unknown
        or none of them, and ``other`` names the label that is none of them.
    """
    names = schema.group("expr")
    if names == EXPRESSIONS:
        return data
    labels = [
        EXPRESSIONS[code] if code >= 0 else other
        for code, other in zip(data.expression.tolist(), data.other, strict=True)
    ]
    places = {name: place for place, name in enumerate(names)}
    return replace(
        data,
        expression=np.array([places.get(label, -1) for label in labels], dtype=np.int64),
        other=["" if label in places else label for label in labels],
    )
