"""The log of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_curves(log: Path, picture: Path) -> None:
    """Draw every series of a long-form log (step, name, value): losses left, validation right.

    Parameters
    ----------
    log : Path
        CSV with columns ``step``, ``name``, ``value``.
    picture : Path
        The PNG to write.
    """
    table = pd.read_csv(log)
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, validation = figure.subplots(1, 2)
    for name, rows in table.groupby("name", sort=False):
        if "/" not in str(name):
            if name != "lr":
                losses.plot(rows["step"], rows["value"], label=str(name))
        elif name != "images/s":
            validation.plot(rows["step"], rows["value"], marker=".", label=str(name))
    losses.set(xlabel="step", ylabel="mean loss since the last line", yscale="log")
    validation.set(xlabel="step", ylabel="validation", ylim=(0, 1))
    for axes in (losses, validation):
        axes.grid(alpha=0.3)
        if axes.has_data():
            # Beside the curves: inside it hides the lowest of them, the calibration error.
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(picture, dpi=100)
