"""The picture of one video: faces, valence and arousal, expressions, action units, over time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feie.features.pictures import literal

# isort: split
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from feie.features.video.reader import Image
from feie.pipeline.inspect import panels
from feie.pipeline.inspect.cells import Cells
from feie.pipeline.inspect.panels import Panel

WIDTH = 7.5  # inches: a page of A4 or letter between its margins
_LEFT, _RIGHT = 0.8, 1.1  # inches beside the panels: names, keys
_TOP, _BOTTOM, _BETWEEN = 0.5, 0.62, 0.13
_STRIP = 0.09
_CLOCK_FROM = 180  # s from which the time axis counts minutes
_CLOCK_STEPS = (30, 60, 120, 300, 600, 900, 1200, 1800, 3600)
_DPI = 220
FACES = 10
"""Faces in a row above the panels."""

_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC",
    "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """A face above the panels: `time` in seconds of its frame, `place` from 0 to `FACES` - 1."""

    place: int
    time: float
    image: Image


def draw(
    title: str,
    subtitle: str,
    footer: str,
    cells: Cells,
    panels_: Sequence[Panel],
    faces: Sequence[Face] = (),
) -> Figure:
    """Draw one video.

    Parameters
    ----------
    title, subtitle, footer : str
        Taken literally.
    cells : Cells
    panels_ : sequence of Panel
        From top to bottom.
    faces : sequence of Face
        None where the source is not there.
    """
    span = float(cells.left[0]), float(cells.right[-1])
    inner = WIDTH - _LEFT - _RIGHT
    heights = [inner / FACES] * bool(faces) + [_STRIP] + [panel.height for panel in panels_]
    gaps = [0.03] * bool(faces) + [_BETWEEN] * len(panels_)
    total = _TOP + sum(heights) + sum(gaps) + _BOTTOM
    figure = Figure(figsize=(WIDTH, total))
    tops = total - _TOP - np.cumsum([0.0, *(h + g for h, g in zip(heights, gaps, strict=False))])
    rows = [
        figure.add_axes((_LEFT / WIDTH, (top - height) / total, inner / WIDTH, height / total))
        for top, height in zip(tops, heights, strict=True)
    ]
    for axes in rows:
        axes.set_xlim(span)
    if faces:
        _faces(rows[0], rows[1], faces, span)
    _strip(rows[bool(faces)], cells)
    for axes, panel in zip(rows[1 + bool(faces) :], panels_, strict=True):
        _gaps(axes, cells)
        panel.draw(axes, cells)
        _time_axis(axes, span, last=axes is rows[-1])
    _words(figure, total, title, subtitle, footer)
    _key(figure, rows[bool(faces)], cells)
    return figure


def encode(figure: Figure, kind: str) -> bytes:
    """Give a figure as the bytes of a file; the same bytes for the same figure.

    Parameters
    ----------
    figure : Figure
    kind : {"png", "pdf", "svg"}
    """
    dates = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    families = ["DejaVu Sans", *(f for f in _FONTS if f in {e.name for e in fontManager.ttflist})]
    data = io.BytesIO()
    settings: Any = {
        "svg.hashsalt": "feie",
        "pdf.fonttype": 42,
        "hatch.linewidth": 0.5,
        "font.family": families,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A character that no font here has is drawn as a box; the id is also the file's name.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(data, format=kind, dpi=_DPI, metadata=dates[kind])
    return data.getvalue()


def _faces(axes: Axes, strip: Axes, faces: Sequence[Face], span: tuple[float, float]) -> None:
    """Each face stands over its part of the time axis; a line leads down to its frame."""
    axes.axis("off")
    axes.set_ylim(0, 1)
    slot = (span[1] - span[0]) / FACES
    for face in faces:
        left = span[0] + face.place * slot
        axes.imshow(
            face.image,
            extent=(left + 0.02 * slot, left + 0.98 * slot, 0.02, 0.98),
            aspect="auto",
            interpolation="antialiased",
        )
        strip.plot([face.time], [1.0], marker="v", ms=3.5, color=panels.INK, clip_on=False,
                   transform=strip.get_xaxis_transform(), zorder=5)  # fmt: skip
    axes.set_xlim(span)
    axes.set_ylim(0, 1)


def _strip(axes: Axes, cells: Cells) -> None:
    """Share of frames with a face: dark for all, the lighter the fewer, hatched for none."""
    _gaps(axes, cells)
    shade = np.where(cells.share == 1, 1.0, 0.15 + 0.5 * cells.share)
    colours = np.tile(np.array([*mpl.colors.to_rgb(panels.INK), 1.0]), (len(shade), 1))
    colours[:, 3] = np.where(cells.share == 0, 0.0, shade)
    _cells_of_one_row(axes, cells, colours)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], ["face"], fontsize=7)
    axes.tick_params(left=False, bottom=False, labelbottom=False, pad=2)
    axes.spines[:].set_visible(False)


def _cells_of_one_row(axes: Axes, cells: Cells, colours: panels.Floats) -> None:
    left, right = cells.left, cells.right
    low, high = np.zeros_like(left), np.ones_like(left)
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1)
    axes.add_collection(
        PolyCollection(
            list(corners.reshape(-1, 4, 2)), facecolors=colours, linewidths=0, rasterized=True
        )
    )


def _gaps(axes: Axes, cells: Cells) -> None:
    gaps = cells.gaps()
    if gaps:
        axes.broken_barh(gaps, (0, 1), transform=axes.get_xaxis_transform(), zorder=0,
                         **panels.GAP)  # fmt: skip


def _time_axis(axes: Axes, span: tuple[float, float], last: bool) -> None:
    """Tick every panel alike; the last one has the numbers."""
    seconds = span[1] - span[0]
    if seconds < _CLOCK_FROM:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        unit = "s"
    else:
        hours = 3600 * math.ceil(seconds / 28800)
        step = next((s for s in _CLOCK_STEPS if seconds / s <= 8), hours)
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: _clock(t)))
        unit = "min:s" if span[1] < 3600 else "h:min:s"
    if last:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(f"time ({unit})", fontsize=8)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours}:{minutes_left:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _words(figure: Figure, total: float, title: str, subtitle: str, footer: str) -> None:
    left = _LEFT / WIDTH
    title = literal(panels.shortened(title, 62))
    figure.text(left, 1 - 0.18 / total, title, fontsize=10, weight="bold", va="center",
                color=panels.INK)  # fmt: skip
    figure.text(left, 1 - 0.36 / total, literal(subtitle), fontsize=7.5, va="center",
                color=panels.GREY)  # fmt: skip
    figure.text(left, 0.05 / total, literal(footer), fontsize=6, va="bottom",
                color=panels.GREY, linespacing=1.3)  # fmt: skip


def _key(figure: Figure, strip: Axes, cells: Cells) -> None:
    parts = {}
    if (cells.share < 1).any():
        parts["no face"] = Patch(**panels.GAP)
    if (cells.left[1:] - cells.right[:-1] > 1e-6).any():
        parts["no frames"] = Patch(facecolor="white", edgecolor="#b5b5b5", linewidth=0.5)
    if parts:
        strip.legend(list(parts.values()), list(parts), loc="center left",
                     bbox_to_anchor=(1.0, 0.5), **panels.LEGEND)  # fmt: skip
