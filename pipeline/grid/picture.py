"""The table of an ablation as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feie.features.pictures import literal

# isort: split
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SEED, MEAN = "#9aa5b1", "#1f4e79"


def draw_table(
    names: Sequence[str],
    seeds: Sequence[Sequence[float]],
    captions: Sequence[str],
    title: str,
    picture: Path,
) -> None:
    """Draw a line a row: each seed as a dot, mean and standard deviation over them, a caption.

    Parameters
    ----------
    names : sequence of str
    seeds : sequence of sequence of float
        Mean Pearson of each seed, a row each; a row may have none.
    captions : sequence of str
        What stands at the right end of each line.
    title : str
    picture : Path
        The PNG to write.
    """
    figure = Figure(figsize=(9, 1.4 + 0.42 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, values in enumerate(seeds):
        if not values:
            continue
        mean = sum(values) / len(values)
        sd = _sd(values)
        axes.plot(values, [place] * len(values), "o", color=SEED, ms=5, zorder=1)
        axes.errorbar(mean, place, xerr=sd, fmt="D", color=MEAN, ms=6, capsize=4, zorder=2)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(names)), [literal(text) for text in captions], fontsize="small")
    right.tick_params(length=0)
    axes.set_yticks(range(len(names)), [literal(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set(xlabel="mean Pearson over the targets, validation split", title=literal(title))
    axes.title.set_fontsize("medium")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(picture, dpi=120)


def _sd(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 of a single value."""
    if len(values) < 2:
        return 0.0
    mean = sum(values) / len(values)
    return float((sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5)
