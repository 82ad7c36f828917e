"""`feie evaluate`: how well a head's intensities agree with the labels of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError, UsageError
from feie.features.store.reader import Store
from feie.features.text import counted
from feie.heads.config import HEADLINE, InputConfig
from feie.heads.data.challenges import submission
from feie.heads.data.frame_joining import frame_lines
from feie.heads.data.inputs import prepare
from feie.heads.data.joining import join_all
from feie.heads.measures.metrics import Scores, ccc, compare, known, mean_defined, pearson, score
from feie.heads.models.plugin import use_heads
from feie.heads.runs.checkpoint import find_again, find_run
from feie.heads.runs.files import write_atomically, write_json
from feie.heads.runs.run import Run, load_run
from feie.heads.runs.stores import (
    Predicted,
    faceless_notes,
    predict_videos,
    stores_among,
    stores_of,
)
from feie.pipeline.evaluate.checks import differences, leaks, log_test
from feie.pipeline.evaluate.options import EvaluateOptions
from feie.pipeline.evaluate.result import (
    FEW,
    AgainstResult,
    EvaluateResult,
    HeadScores,
    LengthScores,
)
from feie.pipeline.evaluate.truth import Truth, read_truth, subjects_of
from feie.pipeline.progress import Progress, ProgressCallback, silent

__all__ = ["EvaluateOptions", "EvaluateResult", "run"]

Array = NDArray[np.float64]


def run(options: EvaluateOptions, progress: ProgressCallback = silent) -> EvaluateResult:
    """Score a run, whichever head or fusion it holds, on one split.

    Writes ``predictions-<split>.csv`` and ``evaluation-<split>.json`` into the run folder, and
    the submission and the report where they are asked for; a look at the test split is also
    noted in ``test-evaluations.log``.

    Raises
    ------
    FeieError
        Run, store or labels cannot be used together.
    """
    use_heads(options.head)
    folder, split = find_run(options.run, options.runs), options.split
    scored = load_run(folder)
    targets, headline = scored.targets, HEADLINE[scored.unit]
    if scored.unit == "frame" and (options.submission is not None or len(options.store) > 1):
        raise UsageError(
            f"{folder} is a frame-level head: it reads one store, and its predictions are written "
            f"as id,frame,time,{','.join(targets)} (no submission)"
        )
    stores = stores_of(scored, options.store)
    labels = options.labels or Path(find_again(scored.notes["labels"], folder))
    missing = options.missing_label or tuple(scored.notes["labels"].get("missing_label", ()))
    truth = read_truth(scored, stores, labels, split, options.unmatched, missing)
    notes = [*truth.notes, *differences(scored, stores, truth)]
    notes += leaks(scored, stores, truth.sha256, truth.store_ids, split)
    found, at = predict_videos(scored, stores, truth.store_ids), truth.labelled
    groups = None if truth.groups is None else truth.groups[at]
    scores = score(found.fused[at], truth.values[at], groups=groups, headline=headline)
    notes += _undefined(targets, found.fused[at], truth.values[at])
    notes += faceless_notes(scored, stores, found)
    videos = len(truth.ids)
    if scored.unit == "frame" and groups is not None:
        videos = len(np.unique(groups))
    notes += _doubts(truth, videos, scores)
    against = None
    if options.against is not None:
        other = find_run(options.against, options.runs)
        against, more = _against(other, scored, stores, truth, found, options)
        notes += more
    predictions = folder / f"predictions-{split}.csv"
    write_atomically(predictions, _lines(scored, stores, truth, found.fused))
    if options.submission is not None and truth.of_videos is not None:
        written = truth.of_videos.id_column, truth.of_videos.written
        content = submission(truth.ids, targets, found.fused, options.form, written)
        write_atomically(options.submission, content)
        if truth.missing:
            notes.append(
                f"{options.submission} lacks {counted(len(truth.missing), 'video')} of the split"
            )
    looks = None
    if split == "test":
        what = f"mean_{headline}"
        looks = log_test(folder, stores, truth.sha256, int(at.sum()), scores.mean, what)
        if looks > 1:
            notes.append(
                f"this run was scored on the test split {looks} times; choose on val, test once"
            )
    result = EvaluateResult(
        run=str(folder),
        store=" + ".join(store.path for store in stores),
        labels=str(truth.path),
        split=split,
        unit=scored.unit,
        n=int(at.sum()),
        videos=videos,
        subjects=truth.subjects,
        headline=headline,
        mean_pearson=known(mean_defined(scores.pearson)),
        mean_interval=_pair(scores.mean_interval),
        pearson=_named(targets, scores.pearson),
        intervals={n: _pair(row) for n, row in zip(targets, scores.interval, strict=True)},
        mean_ccc=known(mean_defined(scores.ccc)),
        ccc=_named(targets, scores.ccc),
        mean_mae=float(scores.mae.mean()),
        mae={name: float(v) for name, v in zip(targets, scores.mae, strict=True)},
        length_baseline=_length_scores(scored, found, truth),
        stored_ccc=_stored_scores(scored, stores[0], truth) if scored.unit == "frame" else {},
        heads=_heads(scored, stores, found, truth.values) if scored.fused else [],
        missing=len(truth.missing),
        faceless=int(found.faceless().sum()),
        test_evaluations=looks,
        predictions=str(predictions),
        against=against,
        submission=None if options.submission is None else str(options.submission),
        report=None if options.report is None else str(options.report),
        notes=list(dict.fromkeys(notes)),
    )
    write_json(folder / f"evaluation-{split}.json", result.model_dump(mode="json"))
    if options.report is not None:
        from feie.pipeline.evaluate.report import write_report  # matplotlib loads slowly

        write_report(options.report, scored, result, truth, found)
    progress(Progress("videos", len(truth.ids), len(truth.ids)))
    return result


def _lines(scored: Run, stores: Sequence[Store], truth: Truth, prediction: Array) -> bytes:
    """Give what is written of the predictions."""
    if truth.offsets is None:
        return submission(truth.ids, scored.targets, prediction, "plain")
    return frame_lines(
        stores[0], truth.ids, truth.store_ids[0], truth.offsets, scored.targets, prediction
    )


def _doubts(truth: Truth, videos: int, scores: Scores) -> list[str]:
    """Say where chance has a large part in the figures."""
    drawn = counted(truth.subjects, "subject") if truth.subjects else counted(videos, "video")
    if (truth.subjects or videos) >= FEW:
        return []
    text = f"{drawn} on this split: with so few the figures move a lot by chance"
    if not np.isnan(scores.mean) and np.isnan(scores.mean_interval).any():
        text += ", and no 95 % interval can be had"
    return [text]


def _undefined(targets: Sequence[str], prediction: Array, truth: Array) -> list[str]:
    return [
        f"Pearson of {name} is undefined: its "
        f"{'labels are' if np.ptp(column) == 0 else 'predictions are'} constant on this split"
        for name, rho, column in zip(targets, pearson(prediction, truth), truth.T, strict=True)
        if np.isnan(rho)
    ]


def _length_scores(scored: Run, found: Predicted, truth: Truth) -> LengthScores | None:
    baseline = scored.members[0].head.baseline
    if baseline is None:
        return None
    rho = pearson(baseline.predict(found.prepared[0].frames.lengths), truth.values)
    return LengthScores(mean_pearson=known(mean_defined(rho)), pearson=_named(scored.targets, rho))


def _stored_scores(scored: Run, store: Store, truth: Truth) -> dict[str, float | None]:
    """CCC of the store's own columns of the targets' names, filtered as the head's are."""
    targets, model = scored.targets, scored.members[0].head.model
    if not set(targets) <= set(store.schema.columns):
        return {}
    columns = [store.schema.columns.index(name) for name in targets]
    raw = InputConfig(columns=targets, groups={}, unit="frame", missing="interpolate")
    frames = prepare(store.read(truth.store_ids[0], columns), raw).frames
    own = model.smooth(np.nan_to_num(frames.values.astype(np.float64)), frames.offsets)
    at = truth.labelled
    return _named(targets, ccc(own[at], truth.values[at]))


def _heads(
    scored: Run, stores: Sequence[Store], found: Predicted, truth: NDArray[np.float64]
) -> list[HeadScores]:
    rows = []
    for member, store, prediction in zip(scored.members, stores, found.parts, strict=True):
        rho = pearson(prediction, truth)
        rows.append(
            HeadScores(
                run=str(member.folder),
                store=store.path,
                weights=dict(zip(scored.targets, member.weights.tolist(), strict=True)),
                mean_pearson=known(mean_defined(rho)),
                pearson=_named(scored.targets, rho),
            )
        )
    return rows


def _against(
    path: Path,
    scored: Run,
    stores: Sequence[Store],
    truth: Truth,
    found: Predicted,
    options: EvaluateOptions,
) -> tuple[AgainstResult, list[str]]:
    """Compare with another run on the videos that both have; gives notes too."""
    other = load_run(path)
    if (other.unit, other.targets) != (scored.unit, scored.targets):
        raise HeadError(
            f"{path} predicts {', '.join(other.targets)} of {other.unit}s, {scored.folder} "
            f"predicts {', '.join(scored.targets)} of {scored.unit}s; two runs are compared on "
            f"the same targets"
        )
    theirs_in = stores_among(other, stores)
    rows, values, groups = np.flatnonzero(truth.labelled), truth.values, truth.groups
    videos, notes = truth.store_ids, list[str]()
    if truth.of_videos is not None:
        both = join_all(truth.of_videos, theirs_in, tolerance=options.unmatched)
        videos, values, groups = both.store_ids, both.labels.values, subjects_of(both.labels)
        place = {video: row for row, video in enumerate(truth.ids)}
        rows = np.array([place[video] for video in both.labels.ids])
        if both.missing:
            notes.append(
                f"{path} lacks {counted(len(both.missing), 'video')}: compared on the "
                f"{len(both.labels)} that both have"
            )
    elif theirs_in[0].fingerprint != stores[0].fingerprint:
        raise HeadError(f"{path} cannot read {stores[0].path}: frames of one store are compared")
    leaked = leaks(other, theirs_in, truth.sha256, videos, options.split)
    theirs = predict_videos(other, theirs_in, videos).fused
    if truth.of_videos is None:
        theirs, values = theirs[rows], values[rows]
        groups = None if groups is None else groups[rows]
    headline = HEADLINE[scored.unit]
    compared = compare(found.fused[rows], theirs, values, groups=groups, headline=headline)
    names = (*scored.targets, "mean")
    result = AgainstResult(
        run=str(path),
        mean_pearson=known(mean_defined(pearson(theirs, values))),
        mean_ccc=known(mean_defined(ccc(theirs, values))),
        difference=_named(names, compared.difference),
        interval={n: _pair(row) for n, row in zip(names, compared.interval, strict=True)},
        p_value=_named(names, compared.p_value),
    )
    return result, [*(f"{path}: {leak}" for leak in leaked), *notes]


def _pair(interval: Array) -> tuple[float, float] | None:
    return None if np.isnan(interval).any() else (float(interval[0]), float(interval[1]))


def _named(targets: Sequence[str], values: Array) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(targets, values, strict=True)}
