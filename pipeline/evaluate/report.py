"""The report of an evaluation: one HTML file with its pictures inside, which asks no network."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from feie.features.text import counted
from feie.heads.config import MEASURE_NAMES
from feie.heads.measures.metrics import bootstrap_pearson, ccc, interval, mean_defined, pearson
from feie.heads.runs.files import write_atomically
from feie.heads.runs.run import Run
from feie.heads.runs.stores import Predicted
from feie.pipeline.evaluate import figures
from feie.pipeline.evaluate.result import EvaluateResult
from feie.pipeline.evaluate.truth import Truth
from feie.pipeline.result import Cell, Table, figure
from feie.pipeline.train.log import LOG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

PUBLISHED: tuple[tuple[str, str, float], ...] = (
    ("VGGFace2 features, baseline", "video", 0.249),
    ("FAU features, baseline", "video", 0.284),
    ("ViPER", "video", 0.303),
    ("22-column affect vector + LSTM", "video", 0.325),
    ("best video-only entry", "video", 0.350),
    ("best audio-visual entry", "audio + video", 0.455),
    ("FaceRNET [K]", "video", 0.494),
    ("MMA-MRNNet [K]", "video", 0.544),
)
"""Mean Pearson on Hume-Reaction's validation split, as its authors published it."""


@dataclass(frozen=True)
class Picture:
    """A picture as part of the page itself.

    Attributes
    ----------
    says : str
        What it shows, in words.
    data : str
        PNG in base64.
    title, note : str
        Above it.
    """

    says: str
    data: str
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a remark, tables, pictures."""

    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default=())


def write_report(
    path: Path, run: Run, result: EvaluateResult, truth: Truth, found: Predicted
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    run : Run
        The training logs of its heads are drawn, where there are any.
    result : EvaluateResult
        Its tables are those of the page.
    truth : Truth
        Of the videos that were scored.
    found : Predicted
        What the run says of them, with the frames that each head read.

    Raises
    ------
    HeadError
        It cannot be written.
    """
    sections = [_scores(result), *_fused(result), *_against(result)]
    if result.unit == "video":
        sections += [_scatter(run, truth, found), _by_length(truth, found)]
    sections += [*_training(run), _extremes(run, truth, found)]
    if result.unit == "video":
        sections.append(_published(result))
    name, spread = run.folder.name, result.mean_interval
    span = f" ({spread[0]:.3f} to {spread[1]:.3f})" if spread else ""
    of = f" of {counted(result.videos, 'video')}" if result.unit == "frame" else ""
    unit = "labelled frame" if result.unit == "frame" else "video"
    context = {
        "title": f"{name}, {result.split}",
        "heading": name,
        "headline": f"mean {MEASURE_NAMES[result.headline]} {figure(result.mean)}{span}",
        "about": f"{result.run} on split {result.split}: {counted(result.n, unit)}{of}; intervals "
        f"are bootstrap 95 % over {'subjects' if result.subjects else 'videos'} "
        f"({result.subjects or result.videos}).",
        "notes": result.notes,
        "sections": sections,
        "provenance": _provenance(run, result),
    }
    write_atomically(path, _template().render(context).encode())


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["cell"] = cell_text
    text = files("feie.pipeline.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def cell_text(cell: Cell) -> str:
    """Write a cell of a table: a float with three decimals, None as undefined."""
    return figure(cell) if cell is None or isinstance(cell, float) else str(cell)


def _picture(drawn: Figure, says: str, title: str = "", note: str = "") -> Picture:
    data = io.BytesIO()
    drawn.savefig(data, format="png", dpi=110)
    return Picture(says, base64.b64encode(data.getvalue()).decode(), title, note)


def _scores(result: EvaluateResult) -> Section:
    title = "Agreement with the labels"
    says = (
        "Length only: Pearson of a ridge regression on the number of usable frames. The masked "
        "concatenation tells the head how long a video is, so a result is worth what it adds to "
        "this."
    )
    if result.unit == "frame":
        title += ", frame by frame"
        says = (
            "Stored columns: CCC of the extractor's own valence and arousal under the same filter, "
            "without training. What the head adds is the difference."
        )
    table = result.scores()
    base, name = result.stored_ccc, "stored columns"
    if result.length_baseline is not None:
        base, name = result.length_baseline.pearson, "length only"
    drawn = figures.bars(result.figures(), result.intervals, base, result.headline, name)
    measure = MEASURE_NAMES[result.headline]
    picture = _picture(drawn, f"{measure} of each target with its 95 % interval")
    return Section(title, says, [table], [picture])


def _fused(result: EvaluateResult) -> list[Section]:
    """Give each head of a fusion alone, and target by target."""
    whole = result.fused()
    if whole is None:
        return []
    names = [Path(head.run).name for head in result.heads]
    own = any(len(set(head.weights.values())) > 1 for head in result.heads)
    rows: list[tuple[Cell, ...]] = [
        (
            target,
            *(
                f"{figure(head.pearson[target])} ({head.weights[target]:.2f})"
                if own
                else head.pearson[target]
                for head in result.heads
            ),
            rho,
        )
        for target, rho in result.pearson.items()
    ]
    means = ("mean", *(head.mean_pearson for head in result.heads), result.mean_pearson)
    title = "Pearson of each target" + (", and the head's weight for it" if own else "")
    says = (
        "The fusion is the weighted mean of the heads' intensities; the weights were chosen on the "
        "validation videos."
    )
    table = Table(title, ("target", *names, "fused"), rows, [means])
    return [Section("Each store alone, and fused", says, [whole, table])]


def _against(result: EvaluateResult) -> list[Section]:
    other = result.against
    if other is None:
        return []
    mean = other.mean_pearson if result.headline == "pearson" else other.mean_ccc
    says = (
        f"Its mean {MEASURE_NAMES[result.headline]} is {figure(mean)}. Differences are this run "
        f"less that one, by a paired bootstrap."
    )
    return [Section(f"Against {other.run}", says, [other.table()])]


def _scatter(run: Run, truth: Truth, found: Predicted) -> Section:
    says = (
        "Each dot is a video. The line is the mean label of five equal shares of the videos by "
        "prediction: on the diagonal the head is calibrated."
    )
    drawn = figures.scatter(run.targets, found.fused, truth.values)
    return Section(
        "Predicted against given", says, (), [_picture(drawn, "prediction against label")]
    )


def _by_length(truth: Truth, found: Predicted) -> Section:
    """Mean Pearson of four equal shares of the videos, from the shortest to the longest."""
    lengths, prediction = found.prepared[0].frames.lengths, found.fused
    order, rows = np.argsort(lengths, kind="stable"), list[tuple[Cell, ...]]()
    for part in np.array_split(order, min(4, max(1, len(order) // 8))):
        rho = pearson(prediction[part], truth.values[part])
        defined = ~np.isnan(rho)
        drawn = bootstrap_pearson(prediction[part], truth.values[part], 500)[:, defined]
        whole = drawn[~np.isnan(drawn).any(axis=1)].mean(axis=1) if defined.any() else []
        low, high = interval(np.asarray(whole)) if len(whole) >= 50 else (np.nan, np.nan)
        rows.append(
            (
                f"{lengths[part].min()} to {lengths[part].max()}",
                len(part),
                float(rho[defined].mean()) if defined.any() else None,
                "" if np.isnan(low) else f"{low:.3f} to {high:.3f}",
            )
        )
    columns = ("usable frames", "videos", "mean Pearson", "95 % interval")
    return Section("By length of the video", "", [Table("", columns, rows)])


def _training(run: Run) -> list[Section]:
    """Draw the learning curves of every head that has a log."""
    drawn = []
    for member in run.members:
        if epochs := _epochs(member.folder):
            best = int(member.head.notes.get("training", {}).get("best_epoch", 0))
            title = member.folder.name if run.fused else ""
            drawn.append(_picture(figures.curves(epochs, best), "training curves", title))
    return [Section("Training", "", (), drawn)] if drawn else []


def _epochs(run: Path) -> list[dict[str, float]]:
    try:
        with (run / LOG).open(encoding="utf-8", newline="") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (AttributeError, OSError, TypeError, ValueError, csv.Error):
        return []
    wanted = {"epoch", "train_loss"}
    there = set(rows[0]) if rows else set()
    return rows if wanted <= there and there & {"val_pearson", "val_ccc"} else []


def _extremes(run: Run, truth: Truth, found: Predicted) -> Section:
    """Show the videos that were predicted best and worst."""
    frames = truth.offsets is not None
    sd = np.where(truth.values.std(0) > 0, truth.values.std(0), 1.0)
    square = (((found.fused - truth.values) / (1.0 if frames else sd)) ** 2).mean(1)
    error = np.full(len(truth.ids), np.nan)
    for video in range(len(truth.ids)):
        rows = square[truth.rows(video)]
        if np.isfinite(rows).any() and (frames or not found.faceless()[video]):
            error[video] = np.sqrt(np.nanmean(rows))
    order = [int(i) for i in np.argsort(error) if not np.isnan(error[i])]
    count, pictures = min(2, len(order) // 2), list[Picture]()
    for title, chosen in (("Best", order[:count]), ("Worst", order[::-1][:count])):
        for video in chosen:
            heading = f"{title}: {truth.ids[video]}"
            show = _show_frames if frames else _show_video
            pictures += show(run, truth, found, video, heading, float(error[video]))
    unit = (
        "over their labelled frames"
        if frames
        else ("over the targets, each in units of its labels' standard deviation")
    )
    return Section("Best and worst videos", f"By the root mean square error {unit}.", (), pictures)


def _show_video(
    run: Run, truth: Truth, found: Predicted, video: int, heading: str, error: float
) -> list[Picture]:
    said = ", ".join(
        f"{target} {p:.2f} ({t:.2f})"
        for target, p, t in zip(run.targets, found.fused[video], truth.values[video], strict=True)
    )
    note = f"error {error:.2f}; predicted (given): {said}"
    drawn = [
        figures.timeline(ready.frames[video], member.head.inputs)
        for member, ready in zip(run.members, found.prepared, strict=True)
    ]
    says = f"timeline of {truth.ids[video]}"
    first, *rest = drawn
    return [_picture(first, says, heading, note), *(_picture(d, says) for d in rest)]


def _show_frames(
    run: Run, truth: Truth, found: Predicted, video: int, heading: str, error: float
) -> list[Picture]:
    rows = truth.rows(video)
    prediction, values, at = found.fused[rows], truth.values[rows], truth.labelled[rows]
    within = ccc(prediction[at], values[at])
    said = ", ".join(
        f"{n} {figure(None if np.isnan(v) else v)}"
        for n, v in zip(run.targets, within, strict=True)
    )
    note = f"error {error:.2f}; CCC within the video: {said} (mean {mean_defined(within):.3f})"
    drawn = figures.course(run.targets, prediction, values)
    return [_picture(drawn, f"course of {truth.ids[video]}", heading, note)]


def _published(result: EvaluateResult) -> Section:
    rows: list[tuple[Cell, ...]] = list(PUBLISHED)
    own = (f"this run, {counted(result.n, 'video')} of its own labels", "", result.mean_pearson)
    says = (
        "As published, on Hume-Reaction's validation split, and not measured here. They may be "
        "compared with this run only if that is what it was scored on. The two versions of [K] "
        "differ by 0.050 in every row, so their order counts more than their level."
    )
    table = Table("", ("as published", "input", "mean Pearson"), rows, [own])
    return Section("Published figures", says, [table])


def _provenance(run: Run, result: EvaluateResult) -> str:
    heads: list[dict[str, Any]] = [
        {
            "model": member.head.config.model_dump(mode="json"),
            "inputs": member.head.inputs.model_dump(mode="json"),
            **member.head.notes,
        }
        for member in run.members
    ]
    what = {
        "scored": {"store": result.store, "labels": result.labels, "split": result.split},
        **({**run.notes, "heads": heads} if run.fused else heads[0]),
    }
    return json.dumps(what, indent=1, ensure_ascii=False, default=str)
