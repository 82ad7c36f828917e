"""`feie evaluate` of a frame-level head: concordance over all labelled frames of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from feie.features.errors import UsageError
from feie.features.store.reader import Store, open_store
from feie.features.text import counted
from feie.heads.data.frame_labels import TARGETS, FrameLabels, load_frame_labels
from feie.heads.data.inputs import InputConfig, find_columns
from feie.heads.data.labels import SplitName
from feie.heads.measures.frame_scores import compare_frames, score_frames
from feie.heads.measures.metrics import ccc, known, mean_defined
from feie.heads.models.frame_va import box_filter, fill_gaps
from feie.heads.runs.checkpoint import find_again, find_run
from feie.heads.runs.files import write_atomically, write_json
from feie.heads.runs.frame_checkpoint import FrameHead, load_frame_head
from feie.pipeline.evaluate.checks import head_leaks, log_test
from feie.pipeline.evaluate.job import EvaluateOptions, difference_table
from feie.pipeline.predict.frame_va import frame_lines
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, interval
from feie.pipeline.train.frame_data import FrameSplit, read_frame_split, read_frames

Array = NDArray[np.float64]


class FrameAgainstResult(BaseModel):
    """How much better a head's CCC is than another's on the same frames (paired bootstrap)."""

    run: str
    mean_ccc: float | None
    difference: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    p_value: dict[str, float | None]


class FrameEvaluateResult(Result):
    """Agreement with the labels of a split's frames; None where it is undefined.

    Attributes
    ----------
    n, videos : int
        Labelled frames that were scored, and the videos they are of.
    ccc, pearson, mae : dict of str to float
        Of valence and arousal, over all frames.
    mean_ccc : float
    intervals, mean_interval
        Bootstrap 95 % intervals of the CCC over videos.
    stored_ccc : dict of str to (float or None)
        Of the store's own valence and arousal with the same filter; empty where it has none.
    faceless : int
        Videos without a face; predicted as the mean label of the training frames.
    """

    run: str
    store: str
    labels: str
    split: SplitName
    n: int
    videos: int
    mean_ccc: float | None
    mean_interval: tuple[float, float] | None
    ccc: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    pearson: dict[str, float | None]
    mae: dict[str, float]
    stored_ccc: dict[str, float | None]
    faceless: int
    test_evaluations: int | None
    predictions: str
    against: FrameAgainstResult | None
    report: str | None
    notes: list[str]

    def tables(self) -> list[Table]:
        """Give the scores, and the differences from another run."""
        rows: list[tuple[Cell, ...]] = [
            (
                name,
                value,
                interval(self.intervals[name]),
                self.pearson[name],
                self.mae[name],
                self.stored_ccc[name] if self.stored_ccc else "",
            )
            for name, value in self.ccc.items()
        ]
        title = f"{self.run} on split {self.split}, {self.n} frames of {self.videos} videos"
        columns = ("target", "CCC", "95 % interval", "Pearson", "MAE", "stored columns")
        mean = ("mean", self.mean_ccc, interval(self.mean_interval), "", "", "")
        found = [Table(title, columns, rows, [mean])]
        return found if self.against is None else [*found, difference_table(self.against)]

    def lines(self) -> list[str]:
        """Give the notes, and name the files."""
        files = ("predictions", "report")
        return [
            *(f"note: {note}" for note in self.notes),
            *(f"{what} → {getattr(self, what)}" for what in files if getattr(self, what)),
        ]


def run(
    options: EvaluateOptions, folder: Path, progress: ProgressCallback = silent
) -> FrameEvaluateResult:
    """Score a frame-level head on one split; files and locks as for the heads of videos.

    Raises
    ------
    FeieError
        Run, store or labels cannot be used together.
    """
    if options.submission is not None or len(options.store) > 1:
        raise UsageError(
            f"{folder} is a frame-level head: it reads one store, and its predictions are written "
            f"as id,frame,time,valence,arousal (no --submission)"
        )
    head, split = load_frame_head(folder), options.split
    store = open_store(next(iter(options.store), find_again(head.notes["store"], folder)))
    labels_path = options.labels or Path(find_again(head.notes["labels"], folder))
    labels = load_frame_labels(labels_path)
    data = _read(head, store, labels, split, options.unmatched)
    notes = [*labels.notes, *data.notes, *_differences(head, store, labels)]
    notes += head_leaks(folder, head.notes, store, labels.sha256, data.store_ids, split)
    prediction, at = head.predict(data.frames), data.labelled
    truth, video = data.labels[at], data.video[at]
    scores = score_frames(prediction[at], truth, video)
    faceless = int((~_seen(data)).sum())
    if faceless:
        notes.append(
            f"{counted(faceless, 'video', 'shows', 'show')} no face: predicted as the training "
            f"frames' mean label"
        )
    against = None
    if options.against is not None:
        against, more = _against(
            find_run(options.against, options.runs), prediction[at], data, store, labels, options
        )
        notes += more
    predictions = folder / f"predictions-{split}.csv"
    write_atomically(
        predictions, frame_lines(store, data.ids, data.store_ids, data.frames.offsets, prediction)
    )
    looks = None
    if split == "test":
        looks = log_test(folder, [store], labels.sha256, len(truth), scores.mean_ccc, "mean_ccc")
        if looks > 1:
            notes.append(
                f"this run was scored on the test split {looks} times; choose on val, test once"
            )
    result = FrameEvaluateResult(
        run=str(folder),
        store=store.path,
        labels=str(labels.path),
        split=split,
        n=len(truth),
        videos=len(np.unique(video)),
        mean_ccc=known(scores.mean_ccc),
        mean_interval=_pair(scores.mean_interval),
        ccc=_named(scores.ccc),
        intervals={k: _pair(v) for k, v in zip(TARGETS, scores.interval, strict=True)},
        pearson=_named(scores.pearson),
        mae={k: float(v) for k, v in zip(TARGETS, scores.mae, strict=True)},
        stored_ccc=_stored(head, store, data),
        faceless=faceless,
        test_evaluations=looks,
        predictions=str(predictions),
        against=against,
        report=None if options.report is None else str(options.report),
        notes=list(dict.fromkeys(notes)),
    )
    write_json(folder / f"evaluation-{split}.json", result.model_dump(mode="json"))
    if options.report is not None:
        from feie.pipeline.evaluate.frame_va_report import write_report  # matplotlib loads slowly

        write_report(options.report, folder, head, result, data, prediction)
    progress(Progress("videos", len(data.ids), len(data.ids)))
    return result


def _read(
    head: FrameHead, store: Store, labels: FrameLabels, split: SplitName, tolerance: float
) -> FrameSplit:
    columns = find_columns(store.schema, head.inputs, store.path)
    return read_frame_split(store, columns, head.inputs, labels, split, tolerance)


def _seen(data: FrameSplit) -> NDArray[np.bool_]:
    """Say which videos show a face in some frame."""
    whole = ~np.isnan(data.frames.values).any(axis=1)
    seen: NDArray[np.bool_] = np.bincount(data.video[whole], minlength=len(data.ids)) > 0
    return seen


def _stored(head: FrameHead, store: Store, data: FrameSplit) -> dict[str, float | None]:
    """CCC of the extractor's own valence and arousal, filtered as the head's are."""
    if not set(TARGETS) <= set(store.schema.columns):
        return {}
    columns = [store.schema.columns.index(name) for name in TARGETS]
    raw = InputConfig(columns=TARGETS, groups={}, space="prob")
    frames = fill_gaps(read_frames(store, columns, raw, data.store_ids))
    own = frames.values.astype(np.float64)
    for i in range(len(frames)):
        rows = slice(frames.offsets[i], frames.offsets[i + 1])
        own[rows] = box_filter(own[rows], head.model.half)
    own = np.where(np.isnan(own), 0.0, own)
    at = data.labelled
    return _named(ccc(own[at], data.labels[at]))


def _against(
    path: Path,
    ours: Array,
    data: FrameSplit,
    store: Store,
    labels: FrameLabels,
    options: EvaluateOptions,
) -> tuple[FrameAgainstResult, list[str]]:
    """Compare with another frame-level head on the same frames; gives notes too."""
    other = load_frame_head(path)
    theirs_of = _read(other, store, labels, options.split, options.unmatched)
    at = data.labelled
    theirs, truth = other.predict(theirs_of.frames)[at], data.labels[at]
    found, names = compare_frames(ours, theirs, truth, data.video[at]), (*TARGETS, "mean")
    leaks = head_leaks(path, other.notes, store, labels.sha256, data.store_ids, options.split)
    result = FrameAgainstResult(
        run=str(path),
        mean_ccc=known(mean_defined(ccc(theirs, truth))),
        difference={k: known(v) for k, v in zip(names, found.difference, strict=True)},
        interval={k: _pair(v) for k, v in zip(names, found.interval, strict=True)},
        p_value={k: known(v) for k, v in zip(names, found.p_value, strict=True)},
    )
    return result, [f"{path}: {leak}" for leak in leaks]


def _differences(head: FrameHead, store: Store, labels: FrameLabels) -> list[str]:
    """Say what is not as it was in training."""
    notes = []
    if store.fingerprint != head.notes["store"].get("fingerprint"):
        notes.append(f"{store.path} is not, or no longer, the store that the head was trained on")
    if labels.sha256 != head.notes["labels"].get("sha256"):
        notes.append(f"{labels.path} is not, or no longer, what the head was trained on")
    return notes


def _pair(interval: Array) -> tuple[float, float] | None:
    return None if np.isnan(interval).any() else (float(interval[0]), float(interval[1]))


def _named(values: Array) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(TARGETS, values, strict=True)}
