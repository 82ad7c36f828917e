"""Panels of a video's picture: lines, stacked areas, heat maps, and which group gets which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from feie.features.pictures import colours, literal

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from feie.features.schema import Schema
from feie.pipeline.inspect.cells import Cells

Floats = NDArray[np.floating]

INK, GREY = "#22303c", "#5b6770"
GAP: dict[str, Any] = {
    "facecolor": "#efefef", "edgecolor": "#b5b5b5", "hatch": "/////", "linewidth": 0,
}  # fmt: skip
LEGEND: dict[str, Any] = {
    "fontsize": 7, "frameon": False, "handlelength": 1.1, "handletextpad": 0.5,
    "labelspacing": 0.35, "borderaxespad": 0.6, "borderpad": 0,
}  # fmt: skip

_MAP = "YlGnBu"
_MOST_LINES = 8
_MOST_NAMES = 40
_ROW, _LEAST_HEIGHT, _MOST_HEIGHT = 0.145, 0.5, 3.6  # inches

Kind = Literal["lines", "stack", "map"]


@dataclass(frozen=True)
class Panel:
    """One group of columns.

    Attributes
    ----------
    name : str
        What stands beside it.
    kind : {"lines", "stack", "map"}
    indices : tuple of int
        Its columns in the cells.
    columns : tuple of str
        Their names.
    low, high : float
        Range of the values that is drawn; NaN for a map whose rows have each their own.
    """

    name: str
    kind: Kind
    indices: tuple[int, ...]
    columns: tuple[str, ...]
    low: float
    high: float

    @property
    def height(self) -> float:
        """Inches."""
        if self.kind != "map":
            return 1.15
        return min(max(_ROW * len(self.columns), _LEAST_HEIGHT), _MOST_HEIGHT)

    @property
    def long_names(self) -> bool:
        """Whether the names of its rows need more room than AU01."""
        return self.kind == "map" and max(map(len, self.columns)) > 7

    def draw(self, axes: Axes, cells: Cells) -> None:
        """Draw the group's columns into axes whose gaps are marked already."""
        axes.tick_params(labelsize=7, length=2.5, pad=2, labelbottom=False)
        axes.yaxis.set_label_coords(-0.115 if self.long_names else -0.088, 0.5)
        {"lines": _lines, "stack": _stack, "map": _map}[self.kind](self, axes, cells)
        axes.spines[:].set_linewidth(0.6)
        if self.kind != "map":
            axes.spines[["top", "right"]].set_visible(False)


def panels_of(schema: Schema, values: NDArray[np.float32]) -> list[Panel]:
    """Choose a panel for every group of a store, by what the group's values are.

    Valence and arousal, and other groups of a few columns, become lines; columns that are shares
    of one become stacked areas; action units and all wider groups become a heat map.

    Parameters
    ----------
    schema : Schema
    values : ndarray of float32, shape (n, c)
        NaN where there is no face.
    """
    groups = {name: tuple(range(*span)) for name, span in schema.groups.items()}
    grouped = {i for indices in groups.values() for i in indices}
    if rest := tuple(i for i in range(len(schema)) if i not in grouped):
        groups["other"] = rest
    return [_panel(name, indices, schema, values) for name, indices in groups.items()]


_TITLES = {"va": "valence,\narousal", "expr": "expression", "au": "action unit"}


def _panel(
    name: str, indices: tuple[int, ...], schema: Schema, values: NDArray[np.float32]
) -> Panel:
    columns = tuple(schema.columns[i] for i in indices)
    part = values[:, list(indices)]
    part = part[np.isfinite(part).all(axis=1)]
    least, most = (float(part.min()), float(part.max())) if part.size else (0.0, 1.0)
    unit = least >= 0 and most <= 1
    title = _TITLES.get(name, name)
    if set(columns) <= {"valence", "arousal"} and -2 <= least <= most <= 2:  # some overshoot
        return Panel(title, "lines", indices, columns, min(-1.0, least), max(1.0, most))
    shares = unit and len(columns) > 1 and bool((np.abs(part.sum(axis=1) - 1) < 0.01).all())
    if (part.size and shares) or (name == "expr" and unit):
        return Panel(title, "stack", indices, columns, 0.0, 1.0)
    units = all(c.upper().startswith("AU") for c in columns)
    low, high = (0.0, 1.0) if unit else (least, most) if most > least else (least - 0.5, most + 0.5)
    if not (unit or units) and _apart(part):
        low = high = np.nan
    if units or len(columns) > _MOST_LINES or np.isnan(low):
        return Panel(title, "map", indices, columns, low, high)
    edge = 0.0 if unit else 0.05 * (high - low)
    return Panel(title, "lines", indices, columns, low - edge, high + edge)


def _apart(part: NDArray[np.float32]) -> bool:
    """Tell whether columns differ so much in scale that on a common one some would stand still."""
    spans = part.max(axis=0) - part.min(axis=0)
    moving = spans[spans > 0]
    whole = float(part.max() - part.min())
    return bool(len(moving) and (whole > 4 * np.median(moving) or whole > 50 * moving.min()))


def _lines(panel: Panel, axes: Axes, cells: Cells) -> None:
    if panel.low < 0 < panel.high:
        axes.axhline(0, color="#9aa3ab", lw=0.6, zorder=1)
    x, cell = cells.outline()
    for index, name, colour in zip(
        panel.indices, panel.columns, colours(panel.columns), strict=True
    ):
        if cells.frames > 1:
            low, high = cells.low[cell, index], cells.high[cell, index]
            axes.fill_between(x, low, high, color=colour, alpha=0.3, lw=0.3, zorder=2)
        axes.plot(x, cells.mean[cell, index], color=colour, lw=1.1, zorder=3,
                  solid_capstyle="butt", solid_joinstyle="round")  # fmt: skip
        axes.plot([], [], color=colour, lw=1.6, label=literal(shortened(name, 18)))
    axes.set_ylim(panel.low, panel.high)
    if panel.low <= -1 <= 1 <= panel.high <= 2:
        axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    axes.set_ylabel(literal(panel.name), fontsize=8)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **LEGEND)


def _stack(panel: Panel, axes: Axes, cells: Cells) -> None:
    shades = colours(panel.columns)
    x, cell = cells.outline()
    tops = np.cumsum(cells.mean[cell][:, list(panel.indices)], axis=1)
    below = np.zeros(len(x))
    for top, colour in zip(tops.T, shades, strict=True):
        axes.fill_between(x, below, top, facecolor=colour, edgecolor="white", lw=0.15, zorder=2)
        below = top
    patches = [
        mpl.patches.Patch(facecolor=colour, label=literal(shortened(name, 18)))
        for name, colour in zip(panel.columns, shades, strict=True)
    ]
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel(literal(panel.name), fontsize=8)
    axes.legend(handles=patches[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), **LEGEND)


def _map(panel: Panel, axes: Axes, cells: Cells) -> None:
    values = cells.high[:, list(panel.indices)].astype(np.float64)
    own = np.isnan(panel.low)
    if own:
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduce(values), np.fmax.reduce(values)
            values = (values - low) / np.where(high > low, high - low, 1.0)
    low, high = (0.0, 1.0) if own else (panel.low, panel.high)
    rows = len(panel.columns)
    borders, field = cells.edges()
    shown = np.where(field[:, None] >= 0, values[field], np.nan)
    image = axes.pcolormesh(
        borders, np.arange(rows + 1), shown.T, cmap=_MAP, vmin=low, vmax=high, shading="flat",
        rasterized=True, zorder=2,
    )  # fmt: skip
    axes.set_ylim(rows, 0)
    if rows <= _MOST_NAMES and panel.height >= 0.1 * rows:
        names = [literal(shortened(name, 10)) for name in panel.columns]
        axes.set_yticks(np.arange(rows) + 0.5, names)
        axes.tick_params(axis="y", left=False)
        axes.yaxis.set_tick_params(labelsize=6 if panel.long_names else 7)
    else:
        axes.set_yticks([])
        axes.yaxis.set_label_coords(-0.03, 0.5)
    named = f"{panel.name}\n{rows} columns" if not len(axes.get_yticks()) else panel.name
    axes.set_ylabel(literal(named), fontsize=8)
    if (cells.share > 0).any():
        tall = min(0.72 if own else 0.9, 1.0 / panel.height)
        scale = axes.inset_axes((1.025, 0.05, 0.022, tall))
        bar = axes.figure.colorbar(image, cax=scale)
        bar.outline.set_linewidth(0.4)
        bar.set_ticks(
            [low, high], labels=["least", "most"] if own else [f"{low:.3g}", f"{high:.3g}"]
        )
        scale.tick_params(labelsize=7, length=2, pad=2)
        scale.set_title("each row" if own else "", fontsize=7, loc="left")


def shortened(text: str, most: int) -> str:
    """Cut the middle out of a text that is too long."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[-(most - 1 - head) :]}"
