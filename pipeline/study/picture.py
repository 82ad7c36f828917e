"""Differences with their intervals, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feie.features.pictures import literal

# isort: split
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_APART, _CHANCE = "#1f4e79", "#9aa5b1"


Line = tuple[str, float | None, tuple[float, float] | None, bool]
"""A name, a difference, its interval, and whether it is told from zero."""


def draw_differences(lines: Sequence[Line], caption: str, picture: Path) -> None:
    """Draw a line a difference: dark where it is told from zero, pale where it may be chance.

    Parameters
    ----------
    lines : sequence of Line
    caption : str
        Of the axis.
    picture : Path
        The PNG to write.
    """
    figure = Figure(figsize=(9, 1.4 + 0.34 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (_, difference, interval, told_apart) in enumerate(lines):
        colour = _APART if told_apart else _CHANCE
        if interval is not None:
            axes.plot(interval, [place, place], "-", color=colour, lw=2)
        if difference is not None:
            axes.plot(difference, place, "D", color=colour, ms=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(lines)), [literal(name) for name, *_ in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set(xlabel=literal(caption))
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(picture, dpi=120)
