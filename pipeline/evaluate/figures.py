"""Pictures of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feie.features.pictures import colours, literal

# isort: split
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feie.heads.config import MEASURE_NAMES, InputConfig, Measure

Array = NDArray[np.float64]
_BLUE, _ORANGE, _GREY = "#1f6fb2", "#d9730d", "#8a949e"
_LINES = 6
"""Most columns of a group that a timeline draws: those that move most."""


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def bars(
    figures: Mapping[str, float | None],
    intervals: Mapping[str, tuple[float, float] | None],
    baseline: Mapping[str, float | None],
    measure: Measure,
    baseline_name: str,
) -> Figure:
    """Draw the figure of each target with its interval, and that of a baseline."""
    figure = Figure(figsize=(8, 0.42 * len(figures) + 1.1), layout="constrained")
    axes = figure.subplots()
    for place, (name, value) in enumerate(figures.items()):
        if value is not None:
            axes.barh(place, value, color=_BLUE, height=0.62)
        if (pair := intervals[name]) is not None:
            axes.plot(pair, (place, place), color="#10314d", lw=2)
        if (alone := baseline.get(name)) is not None:
            axes.plot([alone], [place], "D", color=_ORANGE, ms=5)
    if baseline:
        axes.plot([], [], "D", color=_ORANGE, ms=5, label=baseline_name)
    axes.plot([], [], color="#10314d", lw=2, label="95 % interval")
    axes.axvline(0, color=_GREY, lw=0.8)
    axes.set_yticks(range(len(figures)), [literal(name) for name in figures])
    axes.invert_yaxis()
    axes.set_xlabel(MEASURE_NAMES[measure])
    _clean(axes)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    return figure


def scatter(targets: Sequence[str], prediction: Array, truth: Array) -> Figure:
    """Prediction against label, with the mean label of five shares of the predictions."""
    columns = min(4, len(targets))
    rows = -(-len(targets) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(targets) :]:
        axes.set_visible(False)
    for axes, name, p, y in zip(grid, targets, prediction.T, truth.T, strict=False):
        low, high = min(p.min(), y.min()), max(p.max(), y.max())
        axes.plot([low, high], [low, high], color=_GREY, lw=0.8)
        axes.plot(p, y, ".", color=_BLUE, ms=4, alpha=max(0.15, min(0.8, 60 / len(p))))
        shares = [s for s in np.array_split(np.argsort(p), 5) if len(s)]
        axes.plot([p[s].mean() for s in shares], [y[s].mean() for s in shares], "o-",
                  color=_ORANGE, ms=4, lw=1.4)  # fmt: skip
        axes.set_title(literal(name), fontsize=9)
        _clean(axes)
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("given", fontsize=9)
    return figure


def curves(epochs: Sequence[Mapping[str, float]], best: int) -> Figure:
    """Draw the loss and the figure on the validation split, an epoch each."""
    scored = next(name for name in epochs[0] if name.startswith("val_"))
    title = f"validation {MEASURE_NAMES['ccc' if scored == 'val_ccc' else 'pearson']}"
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    number = [e["epoch"] for e in epochs]
    left.plot(number, [e["train_loss"] for e in epochs], color=_BLUE)
    left.set_title("training loss", fontsize=9)
    right.plot(number, [e[scored] for e in epochs], color=_BLUE)
    if best:
        right.axvline(best, color=_ORANGE, lw=1, ls="--", label=f"kept: epoch {best}")
        right.legend(fontsize=8, frameon=False)
    right.set_title(title, fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("epoch", fontsize=8)
        _clean(axes)
    return figure


def course(targets: Sequence[str], prediction: Array, truth: Array) -> Figure:
    """Draw given and predicted values of one video over its frames."""
    figure = Figure(figsize=(9, 1.6 * len(targets)), layout="constrained")
    panels = figure.subplots(len(targets), sharex=True, squeeze=False).ravel()
    for place, (axes, name) in enumerate(zip(panels, targets, strict=True)):
        axes.plot(truth[:, place], color=_GREY, lw=2.2, label="given")
        axes.plot(prediction[:, place], color=_BLUE, lw=1.2, label="predicted")
        axes.set_ylim(-1.05, 1.05)
        axes.set_ylabel(literal(name), fontsize=8)
        axes.margins(x=0)
        _clean(axes)
    axes.set_xlabel("frame", fontsize=8)
    axes.legend(loc="lower right", fontsize=7, frameon=False, ncols=2)
    return figure


def timeline(values: NDArray[np.float32], inputs: InputConfig) -> Figure:
    """Columns of a video over its frames, a panel a group; a column's colour never changes."""
    names = list(inputs.groups)
    figure = Figure(figsize=(9, 1.35 * len(names) + 0.4), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), squeeze=False).ravel(), names, strict=True):
        columns = list(range(*inputs.groups[name]))
        moving = sorted(columns, key=lambda c: -float(np.nanstd(values[:, c])))[:_LINES]
        of_column = dict(zip(columns, colours([inputs.columns[c] for c in columns]), strict=True))
        for column in sorted(moving):
            label = literal(inputs.columns[column])
            axes.plot(values[:, column], lw=1.1, color=of_column[column], label=label)
        axes.set_ylabel(literal(name), fontsize=8)
        axes.margins(x=0)
        _clean(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    axes.set_xlabel("usable frame", fontsize=8)
    return figure
