"""The report of an evaluation: one HTML file with its pictures inside, which asks no network."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feie.features.text import counted
from feie.heads.data.labels import Labels
from feie.heads.measures.metrics import bootstrap_pearson, pearson
from feie.heads.runs.files import write_atomically
from feie.heads.runs.fusion import weight_range
from feie.heads.runs.run import Run
from feie.heads.runs.stores import Predicted
from feie.pipeline.evaluate import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from feie.pipeline.evaluate.job import EvaluateResult

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

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:62rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d5dae0}
table{border-collapse:collapse;margin:.6rem 0}th,td{padding:.2rem .8rem;text-align:right}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #69727d}
tr.mean td{font-weight:600;border-top:1px solid #69727d}img{max-width:100%}
.note{color:#59636e;font-size:.93em}.figure{font-size:1.9rem;font-weight:600}
pre{background:#f4f6f8;padding:.7rem;overflow:auto;font-size:.85em}
"""


def write_report(
    path: Path, run: Run, result: EvaluateResult, labels: Labels, found: Predicted
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    run : Run
        The training logs of its heads are drawn, where there are any.
    result : EvaluateResult
    labels : Labels
        Of the videos that were scored.
    found : Predicted
        What the run says of them, with the frames that each head read.

    Raises
    ------
    HeadError
        It cannot be written.
    """
    truth, targets, prediction = labels.values, run.targets, found.fused
    mean = "undefined" if result.mean_pearson is None else f"{result.mean_pearson:.3f}"
    unit = "subjects" if result.subjects else "videos"
    sections = [
        f"<p class=figure>mean Pearson {mean}{range_text(result.mean_interval)}</p>",
        f"<p>{escape(result.run)} on split <b>{result.split}</b>: {counted(result.n, 'video')}; "
        f"intervals are bootstrap 95 % over {unit}"
        + (f" ({result.subjects})" if result.subjects else "")
        + ".</p>",
        note_list(result.notes),
        "<h2>Agreement with the labels</h2>",
        _scores(result),
        _fused(result),
        _against(result),
        picture(figures.bars(targets, result), "Pearson of each target with its 95 % interval"),
        "<h2>Predicted against given</h2>",
        "<p class=note>Each dot is a video. The line is the mean label of five equal shares of the "
        "videos by prediction: on the diagonal the head is calibrated.</p>",
        picture(figures.scatter(targets, prediction, truth), "prediction against label"),
        "<h2>By length of the video</h2>",
        _by_length(found.prepared[0].frames.lengths, prediction, truth),
        _training(run),
    ]
    sections += ["<h2>Best and worst videos</h2>", _extremes(run, labels, found)]
    sections += ["<h2>Published figures</h2>", _published(result)]
    sections += ["<h2>Where this comes from</h2>", _provenance(run, result)]
    name = run.folder.name
    write_atomically(path, page(f"{name}, {result.split}", name, sections))


def page(title: str, heading: str, sections: Sequence[str]) -> bytes:
    """Give a whole page; title and heading are text, sections HTML."""
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<link rel=icon href="data:,">'
        f"<title>feie: {escape(title)}</title><style>{_STYLE}</style>"
        f"</head><body><h1>{escape(heading)}</h1>{''.join(sections)}</body></html>\n"
    ).encode()


def range_text(pair: tuple[float, float] | None) -> str:
    """Give an interval in brackets, behind a blank; nothing for none."""
    return "" if pair is None else f" ({pair[0]:.3f} to {pair[1]:.3f})"


def number_cell(value: float | None) -> str:
    """Give a figure as a table shows it."""
    return "undefined" if value is None else f"{value:.3f}"


def note_list(notes: Sequence[str]) -> str:
    """Give notes as a list; nothing for none."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul class=note>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], last_is_mean: bool = False) -> str:
    """Give a table; cells are text, not HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for i, row in enumerate(rows):
        kind = " class=mean" if last_is_mean and i == len(rows) - 1 else ""
        body += f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _scores(result: EvaluateResult) -> str:
    base = result.length_baseline
    rows = [
        [name, number_cell(rho), range_text(result.intervals[name]).strip(" ()"),
         number_cell(result.ccc[name]), f"{result.mae[name]:.3f}", number_cell(base.pearson[name])]
        for name, rho in result.pearson.items()
    ]  # fmt: skip
    rows.append(
        ["mean", number_cell(result.mean_pearson), range_text(result.mean_interval).strip(" ()"),
         number_cell(result.mean_ccc), f"{result.mean_mae:.3f}", number_cell(base.mean_pearson)]
    )  # fmt: skip
    header = ["target", "Pearson", "95 % interval", "CCC", "MAE", "length alone"]
    return table(header, rows, last_is_mean=True) + (
        "<p class=note>Length alone: Pearson of a ridge regression on the number of usable frames. "
        "The masked concatenation tells the head how long a video is, so a result is worth what it "
        "adds to this.</p>"
    )


def _fused(result: EvaluateResult) -> str:
    """Each head of a fusion alone, and the fusion."""
    if not result.heads:
        return ""
    names = [Path(head.run).name for head in result.heads]
    rows = [["weight", *(weight_range(head.weights) for head in result.heads), ""]]
    own = any(len(set(head.weights.values())) > 1 for head in result.heads)
    rows += [
        [
            target,
            *(
                number_cell(head.pearson[target])
                + (f" ({head.weights[target]:.2f})" if own else "")
                for head in result.heads
            ),
            number_cell(rho),
        ]
        for target, rho in result.pearson.items()
    ]
    means = [number_cell(head.mean_pearson) for head in result.heads]
    rows.append(["mean", *means, number_cell(result.mean_pearson)])
    stores = note_list([f"{n}: {h.store}" for n, h in zip(names, result.heads, strict=True)])
    return (
        "<h2>Each store alone, and fused</h2><p class=note>The fusion is the weighted mean of the "
        "heads' intensities; the weights were chosen on the validation videos. Pearson"
        + (" (and the head's weight for this target)" if own else "")
        + ":</p>"
        + table(["target", *names, "fused"], rows, last_is_mean=True)
        + stores
    )


def _training(run: Run) -> str:
    """Learning curves of every head that has a log."""
    drawn = []
    for part in run.parts:
        if epochs := _epochs(part.folder):
            best = int(part.head.notes.get("training", {}).get("best_epoch", 0))
            title = f"<h3>{escape(part.folder.name)}</h3>" if run.fused else ""
            drawn.append(title + picture(figures.curves(epochs, best), "training curves"))
    return "<h2>Training</h2>" + "".join(drawn) if drawn else ""


def _against(result: EvaluateResult) -> str:
    other = result.against
    if other is None:
        return ""
    rows = [
        [name, number_cell(value), range_text(other.interval[name]).strip(" ()"),
         number_cell(other.p_value[name])]
        for name, value in other.difference.items()
    ]  # fmt: skip
    return (
        f"<h2>Against {escape(other.run)}</h2><p>Its mean Pearson is "
        f"{number_cell(other.mean_pearson)}. Differences are this run less that one, by a paired "
        f"bootstrap.</p>"
        + table(["target", "difference", "95 % interval", "p"], rows, last_is_mean=True)
    )


def _by_length(lengths: NDArray[np.int64], prediction: Array, truth: Array) -> str:
    """Mean Pearson of four equal shares of the videos, from the shortest to the longest."""
    order, rows = np.argsort(lengths, kind="stable"), []
    for part in np.array_split(order, min(4, max(1, len(order) // 8))):
        rho = pearson(prediction[part], truth[part])
        defined = ~np.isnan(rho)
        drawn = bootstrap_pearson(prediction[part], truth[part], 500)[:, defined]
        whole = drawn[~np.isnan(drawn).any(axis=1)].mean(axis=1) if defined.any() else []
        mean = float(rho[defined].mean()) if defined.any() else None
        low_high = _ends(np.asarray(whole))
        rows.append(
            [f"{lengths[part].min()} to {lengths[part].max()}", str(len(part)), number_cell(mean),
             low_high]
        )  # fmt: skip
    header = ["usable frames", "videos", "mean Pearson", "95 % interval"]
    return table(header, rows)


def _ends(samples: Array) -> str:
    if len(samples) < 50:
        return ""
    low, high = np.percentile(samples, [2.5, 97.5])
    return f"{low:.3f} to {high:.3f}"


def _epochs(run: Path) -> list[dict[str, float]]:
    try:
        with (run / "training.csv").open(encoding="utf-8", newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (OSError, TypeError, ValueError):
        return []


def _extremes(run: Run, labels: Labels, found: Predicted) -> str:
    """Timelines of the videos that were predicted best and worst."""
    truth, prediction = labels.values, found.fused
    sd = np.where(truth.std(0) > 0, truth.std(0), 1.0)
    error = np.sqrt((((prediction - truth) / sd) ** 2).mean(1))
    error[found.faceless()] = np.nan
    order = [int(i) for i in np.argsort(error) if not np.isnan(error[i])]
    count = min(2, len(order) // 2)
    parts = [
        "<p class=note>By the root mean square error over the targets, each in units of its "
        "labels' standard deviation.</p>"
    ]
    for title, chosen in (("Best", order[:count]), ("Worst", order[::-1][:count])):
        for video in chosen:
            name = labels.ids[video]
            said = ", ".join(
                f"{target} {p:.2f} ({t:.2f})"
                for target, p, t in zip(run.targets, prediction[video], truth[video], strict=True)
            )
            parts.append(
                f"<h3>{title}: {escape(name)}</h3><p class=note>error {error[video]:.2f}; "
                f"predicted (given): {escape(said)}</p>"
            )
            for part, ready in zip(run.parts, found.prepared, strict=True):
                drawn = figures.timeline(ready.frames[video], part.head.inputs)
                parts.append(picture(drawn, f"timeline of {name}"))
    return "".join(parts)


def _published(result: EvaluateResult) -> str:
    rows = [[name, what, f"{value:.3f}"] for name, what, value in PUBLISHED]
    rows.append(
        [
            f"this run, {counted(result.n, 'video')} of its own labels",
            "",
            number_cell(result.mean_pearson),
        ]
    )
    return (
        "<p class=note>As published, on Hume-Reaction's validation split, and not measured here. "
        "They may be compared with this run only if that is what it was scored on. The two "
        "versions of [K] differ by 0.050 in every row, so their order counts more than their "
        "level.</p>" + table(["as published", "input", "mean Pearson"], rows, last_is_mean=True)
    )


def _provenance(run: Run, result: EvaluateResult) -> str:
    heads: list[dict[str, Any]] = [
        {
            "model": part.head.model.config.model_dump(mode="json"),
            "inputs": part.head.inputs.model_dump(mode="json"),
            **part.head.notes,
        }
        for part in run.parts
    ]
    what = {
        "scored": {"store": result.store, "labels": result.labels, "split": result.split},
        **({**run.notes, "heads": heads} if run.fused else heads[0]),
    }
    text = json.dumps(what, indent=1, ensure_ascii=False, default=str)
    title = "run, store, labels, weights, versions"
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>"


def picture(figure: Figure, description: str) -> str:
    """Give a picture as part of the page itself."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    coded = base64.b64encode(data.getvalue()).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/png;base64,{coded}"></p>'
