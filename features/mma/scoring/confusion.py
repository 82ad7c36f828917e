"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feie.features.pictures import literal

# isort: split
import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from feie.features.errors import UsageError
from feie.features.files import write_whole

# Without the date that some kinds carry: the same counts, the same bytes.
_DATES: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def check_picture(path: Path) -> None:
    """Refuse a file that no picture can become, before anything is computed for it.

    Raises
    ------
    UsageError
        No folder for it, or a suffix that names no kind of picture.
    """
    if _kind(path) not in _DATES:
        raise UsageError(f"{path}: a picture's name ends in .png, .svg or .pdf")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: give a file in a folder that exists")


def draw_confusion(counts: Mapping[str, Mapping[str, int]], title: str, path: Path) -> None:
    """Draw shares of each true expression by colour, with the counts in the cells.

    Parameters
    ----------
    counts : dict of str to dict of str to int
        True to predicted expression to count; rows of expressions that do not occur stay empty.
    title : str
    path : Path
        The file to write, see `check_picture`.
    """
    names = list(counts)
    figure = Figure(figsize=(1.8 + 0.75 * len(names), 1.6 + 0.7 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = [[counts[true][said] for said in names] for true in names]
    shares = [[n / sum(row) if sum(row) else 0.0 for n in row] for row in rows]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(rows):
        for x, count in enumerate(row):
            colour = "white" if shares[y][x] > 0.6 else "black"
            text = f"{count}\n{shares[y][x]:.2f}" if sum(row) else "–"
            axes.text(x, y, text, ha="center", va="center", color=colour, fontsize="small")
    axes.set_xticks(range(len(names)), [literal(n) for n in names], rotation=45, ha="right")
    axes.set_yticks(
        range(len(names)),
        [f"{literal(n)} ({sum(row)})" for n, row in zip(names, rows, strict=True)],
    )
    axes.set(xlabel="predicted", ylabel="label (images)", title=literal(title))
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the label's images")
    with mpl.rc_context({"svg.hashsalt": "feie"}):
        data = io.BytesIO()
        figure.savefig(data, format=_kind(path), dpi=120, metadata=_DATES[_kind(path)])
    write_whole(path, data.getvalue())


def _kind(path: Path) -> str:
    return path.suffix.removeprefix(".").lower()
