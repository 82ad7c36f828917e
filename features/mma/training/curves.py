"""The log of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

from feie.features.pictures import literal

# isort: split
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_NO_LOSS = ("lr", "images/s")


def draw_curves(log: Path, picture: Path) -> None:
    """Draw the losses of a long-form log on the left, and a panel for each validation set.

    A figure (accuracy, …) has one colour in all panels.

    Parameters
    ----------
    log : Path
        CSV with columns ``step``, ``name``, ``value``; a validation figure is named
        ``set/figure``, all others but the learning rate and the speed are losses.
    picture : Path
        The PNG to write.
    """
    table = pd.read_csv(log)
    table = table[~table["name"].isin(_NO_LOSS)]
    places = table["name"].str.partition("/")
    table = table.assign(set=places[0].where(places[1] == "/", ""), figure=places[2])
    measured = table[table["set"] != ""]
    sets, figures = list(measured["set"].unique()), list(measured["figure"].unique())
    canvas = Figure(figsize=(6 + 3.6 * len(sets), 4), layout="constrained")
    FigureCanvasAgg(canvas)
    losses, *panels = canvas.subplots(
        1, 1 + len(sets), squeeze=False, width_ratios=[1.4] + [1] * len(sets)
    )[0]
    for name, rows in table[table["set"] == ""].groupby("name", sort=False):
        losses.plot(rows["step"], rows["value"], label=literal(str(name)))
    losses.set(title="losses", ylabel="mean since the last line", yscale="log")
    for panel, name in zip(panels, sets, strict=True):
        ours = measured[measured["set"] == name]
        for figure, rows in ours.groupby("figure", sort=False):
            colour = f"C{figures.index(figure)}"
            panel.plot(rows["step"], rows["value"], ".-", color=colour)
        panel.set(title=literal(name), ylim=(min(0.0, ours["value"].min()), 1))
    for axes in (losses, *panels):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    # Beside the curves: inside they hide the lowest of them, such as the calibration error.
    _legend(losses, *losses.get_legend_handles_labels())
    if panels:
        lines = [Line2D([], [], color=f"C{i}", marker=".") for i in range(len(figures))]
        _legend(panels[-1], lines, [literal(figure) for figure in figures])
    canvas.savefig(picture, dpi=100)


def _legend(axes: Axes, lines: list[Line2D], names: list[str]) -> None:
    axes.legend(lines, names, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
