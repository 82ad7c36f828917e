"""Pictures of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from feie.features.pictures import colours, literal

# isort: split
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feie.heads.data.inputs import InputConfig

if TYPE_CHECKING:
    from feie.pipeline.evaluate.job import EvaluateResult

Array = NDArray[np.float64]
_BLUE, _ORANGE, _GREY = "#1f6fb2", "#d9730d", "#8a949e"
_LINES = 6
"""Most columns of a group that a timeline draws: those that move most."""


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def bars(targets: Sequence[str], result: EvaluateResult) -> Figure:
    """Pearson of each target with its interval, and that of the length alone."""
    figure = Figure(figsize=(8, 0.42 * len(targets) + 1.1), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(targets):
        value, pair = result.pearson[name], result.intervals[name]
        if value is not None:
            axes.barh(place, value, color=_BLUE, height=0.62)
        if pair is not None:
            axes.plot(pair, (place, place), color="#10314d", lw=2)
        alone = result.length_baseline.pearson[name]
        if alone is not None:
            axes.plot([alone], [place], "D", color=_ORANGE, ms=5)
    axes.plot([], [], "D", color=_ORANGE, ms=5, label="length alone")
    axes.plot([], [], color="#10314d", lw=2, label="95 % interval")
    axes.axvline(0, color=_GREY, lw=0.8)
    axes.set_yticks(range(len(targets)), [literal(name) for name in targets])
    axes.invert_yaxis()
    axes.set_xlabel("Pearson")
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


def curves(epochs: Sequence[dict[str, float]], best: int) -> Figure:
    """Loss and validation Pearson, an epoch each."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    number = [e["epoch"] for e in epochs]
    left.plot(number, [e["train_loss"] for e in epochs], color=_BLUE)
    left.set_title("training loss", fontsize=9)
    right.plot(number, [e["val_pearson"] for e in epochs], color=_BLUE)
    if best:
        right.axvline(best, color=_ORANGE, lw=1, ls="--", label=f"kept: epoch {best}")
        right.legend(fontsize=8, frameon=False)
    right.set_title("validation Pearson", fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("epoch", fontsize=8)
        _clean(axes)
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
