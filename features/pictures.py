"""What all pictures share: matplotlib without a window, names that are taken literally, colours.

Whoever draws imports this module before matplotlib.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def _load() -> None:
    """Import matplotlib, whatever a notebook named as the way to show its pictures.

    feie only writes files. But matplotlib fails to be imported where ``MPLBACKEND`` names what
    is not installed, as it does in whatever a notebook starts outside of its own environment.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        try:
            mpl.rcParams["backend"] = named  # for the rest of the user's own session
        except ValueError:
            mpl.rcParams["backend"] = "agg"


if "matplotlib" not in sys.modules:
    _load()

# Okabe and Ito's colours, told apart by people of every kind of colour vision.
_OKABE_ITO = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#7f7f7f",
)  # fmt: skip
_MANY = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
    "#bcbd22", "#17becf", "#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94",
    "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5",
)  # fmt: skip
_KNOWN = {
    "valence": "#0072B2", "arousal": "#D55E00",
    "neutral": "#b6bcc2", "anger": "#D55E00", "disgust": "#009E73", "fear": "#CC79A7",
    "happiness": "#F0E442", "sadness": "#0072B2", "surprise": "#56B4E9", "contempt": "#6b4c9a",
}  # fmt: skip
_KNOWN |= {"happy": _KNOWN["happiness"], "sad": _KNOWN["sadness"], "angry": _KNOWN["anger"]}


def colours(columns: Sequence[str]) -> list[str]:
    """Give each column of a group its colour: an expression has the same one in every picture."""
    known = [_KNOWN.get(name.rpartition("=")[2].lower()) for name in columns]
    others = _OKABE_ITO if len(columns) <= len(_OKABE_ITO) else _MANY
    free = [colour for colour in others if colour not in known]
    return [colour or free[i % len(free)] for i, colour in enumerate(known)]


def literal(text: str) -> str:
    """Give a text that matplotlib draws letter for letter.

    Else ``$`` would begin a formula, and a legend passes over names that begin with ``_``.
    """
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
