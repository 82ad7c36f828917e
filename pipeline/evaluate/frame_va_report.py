"""The report of a frame-level head: one HTML file with its pictures inside."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from feie.features.pictures import literal

# isort: split
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from feie.features.text import counted
from feie.heads.data.frame_labels import TARGETS
from feie.heads.measures.metrics import ccc, mean_defined
from feie.heads.runs.files import write_atomically
from feie.heads.runs.frame_checkpoint import FrameHead
from feie.pipeline.evaluate.report import note_list, number_cell, page, picture, range_text, table
from feie.pipeline.train.frame_data import FrameSplit

if TYPE_CHECKING:
    from feie.pipeline.evaluate.frame_va import FrameEvaluateResult

Array = NDArray[np.float64]
_GIVEN, _SAID = "#8a949e", "#1f6fb2"


def write_report(
    path: Path,
    run: Path,
    head: FrameHead,
    result: FrameEvaluateResult,
    data: FrameSplit,
    prediction: Array,
) -> None:
    """Write the page.

    Parameters
    ----------
    path, run : Path
    head : FrameHead
    result : FrameEvaluateResult
    data : FrameSplit
    prediction : ndarray of float64, shape (rows, 2)
        Of every row of `data`.

    Raises
    ------
    HeadError
        It cannot be written.
    """
    sections = [
        f"<p class=figure>mean CCC {number_cell(result.mean_ccc)}"
        f"{range_text(result.mean_interval)}</p>",
        f"<p>{escape(result.run)} on split <b>{result.split}</b>: "
        f"{counted(result.n, 'labelled frame')} of {counted(result.videos, 'video')}; intervals "
        f"are bootstrap 95 % over videos.</p>",
        note_list(result.notes),
        "<h2>Agreement with the labels, frame by frame</h2>",
        _scores(result),
        _against(result),
        "<h2>Best and worst videos</h2>",
        _extremes(data, prediction),
        "<h2>Where this comes from</h2>",
        _provenance(head, result),
    ]
    write_atomically(path, page(f"{run.name}, {result.split}", run.name, sections))


def _scores(result: FrameEvaluateResult) -> str:
    own = result.stored_ccc
    rows = [
        [name, number_cell(result.ccc[name]), range_text(result.intervals[name]).strip(" ()"),
         number_cell(result.pearson[name]), f"{result.mae[name]:.3f}",
         number_cell(own[name]) if own else ""]
        for name in TARGETS
    ]  # fmt: skip
    mean = mean_defined(np.array(list(own.values()), dtype=np.float64)) if own else float("nan")
    rows.append(
        ["mean", number_cell(result.mean_ccc), range_text(result.mean_interval).strip(" ()"),
         "", f"{np.mean(list(result.mae.values())):.3f}",
         "" if np.isnan(mean) else f"{mean:.3f}"]
    )  # fmt: skip
    header = ["target", "CCC", "95 % interval", "Pearson", "MAE", "CCC of the stored columns"]
    return table(header, rows, last_is_mean=True) + (
        "<p class=note>Stored columns: the extractor's own valence and arousal under the same box "
        "filter, without training. What the head adds is the difference.</p>"
    )


def _against(result: FrameEvaluateResult) -> str:
    other = result.against
    if other is None:
        return ""
    rows = [
        [name, number_cell(value), range_text(other.interval[name]).strip(" ()"),
         number_cell(other.p_value[name])]
        for name, value in other.difference.items()
    ]  # fmt: skip
    return (
        f"<h2>Against {escape(other.run)}</h2><p>Its mean CCC is {number_cell(other.mean_ccc)}. "
        f"Differences are this run less that one, by a paired bootstrap over videos.</p>"
        + table(["target", "difference", "95 % interval", "p"], rows, last_is_mean=True)
    )


def _extremes(data: FrameSplit, prediction: Array) -> str:
    """Draw given and predicted courses of the videos with the least and the largest error."""
    error = np.full(len(data.ids), np.nan)
    square = ((prediction - data.labels) ** 2).mean(1)
    for i in range(len(data.ids)):
        rows = square[data.frames.offsets[i] : data.frames.offsets[i + 1]]
        known = rows[~np.isnan(rows)]
        if len(known):
            error[i] = np.sqrt(known.mean())
    order = [int(i) for i in np.argsort(error) if not np.isnan(error[i])]
    count = min(2, len(order) // 2)
    parts = ["<p class=note>By the root mean square error over their labelled frames.</p>"]
    for title, chosen in (("Best", order[:count]), ("Worst", order[::-1][:count])):
        for video in chosen:
            rows = slice(data.frames.offsets[video], data.frames.offsets[video + 1])
            figures = ccc(*(a[rows][data.labelled[rows]] for a in (prediction, data.labels)))
            said = ", ".join(f"{n} {number_cell(v)}" for n, v in zip(TARGETS, figures, strict=True))
            drawn = _course(prediction[rows], data.labels[rows])
            parts.append(
                f"<h3>{title}: {escape(data.ids[video])}</h3><p class=note>error "
                f"{error[video]:.2f}; CCC within the video: {said}</p>"
                + picture(drawn, f"course of {data.ids[video]}")
            )
    return "".join(parts)


def _course(prediction: Array, labels: Array) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for place, (axes, name) in enumerate(
        zip(figure.subplots(2, sharex=True), TARGETS, strict=True)
    ):
        axes.plot(labels[:, place], color=_GIVEN, lw=2.2, label="given")
        axes.plot(prediction[:, place], color=_SAID, lw=1.2, label="predicted")
        axes.set_ylim(-1.05, 1.05)
        axes.set_ylabel(literal(name), fontsize=8)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    axes.set_xlabel("frame", fontsize=8)
    axes.legend(loc="lower right", fontsize=7, frameon=False, ncols=2)
    return figure


def _provenance(head: FrameHead, result: FrameEvaluateResult) -> str:
    what = {
        "scored": {"store": result.store, "labels": result.labels, "split": result.split},
        "box": head.model.half,
        **head.notes,
    }
    text = json.dumps(what, indent=1, ensure_ascii=False, default=str)
    title = "run, store, labels, weights, versions"
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"
