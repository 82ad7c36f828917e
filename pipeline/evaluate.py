"""`feie evaluate`: how well a head's intensities agree with the labels of a split."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feie.features.errors import HeadError, StoreError
from feie.features.store.reader import Store, open_store
from feie.heads.challenges import SubmissionForm, submission
from feie.heads.checkpoint import find_again, latest_run, load_head
from feie.heads.files import disk_errors, write_atomically, write_json
from feie.heads.head import Head
from feie.heads.inputs import Prepared, find_columns, prepare
from feie.heads.joining import Join, join
from feie.heads.labels import Labels, SplitName, load_labels
from feie.heads.metrics import compare, known, mean_defined, pearson, score
from feie.pipeline.head_run import VIDEOS
from feie.pipeline.progress import Progress, ProgressCallback, silent

TEST_LOG = "test-evaluations.log"


class EvaluateOptions(BaseModel):
    """What `feie evaluate` is asked to do; see ``feie evaluate --help`` for each.

    Without ``run`` it is the run that ended last under ``runs``; without ``store`` or ``labels``
    they are the ones that it was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run: Path | None = None
    runs: Path = Path("runs")
    store: str | None = None
    labels: Path | None = None
    split: SplitName = "val"
    unmatched: float = Field(default=0.05, ge=0, le=1)
    against: Path | None = None
    submission: Path | None = None
    form: SubmissionForm = "labels"
    report: Path | None = None


class AgainstResult(BaseModel):
    """How much better a run is than another one on the same videos (paired bootstrap).

    Attributes
    ----------
    run : str
        The other run.
    mean_pearson : float or None
        Of the other run.
    difference, interval, p_value : dict of str
        Of Pearson's rho, a target each and ``mean``: ours less the other's.
    """

    run: str
    mean_pearson: float | None
    difference: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    p_value: dict[str, float | None]


class LengthScores(BaseModel):
    """Pearson's rho of a ridge regression on the number of usable frames alone."""

    mean_pearson: float | None
    pearson: dict[str, float | None]


class EvaluateResult(BaseModel):
    """Agreement with the labels of a split; None where a constant column leaves it undefined.

    Attributes
    ----------
    n : int
        Videos scored.
    pearson, ccc, mae : dict of str to float
        A figure a target.
    mean_pearson, mean_ccc, mean_mae : float
        Mean over the targets.
    intervals, mean_interval
        Bootstrap 95 % intervals of Pearson's rho over videos, or over subjects.
    subjects : int or None
        How many the bootstrap drew from, where the label file names them.
    length_baseline : LengthScores
    missing : int
        Labels without a usable video.
    faceless : int
        Videos without a face; predicted as the mean label of the training videos.
    test_evaluations : int or None
        How often this run has been scored on the test split, this time included.
    predictions : str
        The file of predictions.
    against : AgainstResult or None
    submission, report : str or None
        Files that were asked for.
    """

    run: str
    store: str
    labels: str
    split: SplitName
    n: int
    subjects: int | None
    mean_pearson: float | None
    mean_interval: tuple[float, float] | None
    pearson: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    mean_ccc: float | None
    ccc: dict[str, float | None]
    mean_mae: float
    mae: dict[str, float]
    length_baseline: LengthScores
    missing: int
    faceless: int
    test_evaluations: int | None
    predictions: str
    against: AgainstResult | None
    submission: str | None
    report: str | None
    notes: list[str]


def run(options: EvaluateOptions, progress: ProgressCallback = silent) -> EvaluateResult:
    """Score a head on one split.

    Writes ``predictions-<split>.csv`` and ``evaluation-<split>.json`` into the run folder, and
    the submission and the report where they are asked for; a look at the test split is also
    noted in ``test-evaluations.log``.

    Raises
    ------
    FeieError
        Run, store or labels cannot be used together.
    """
    folder = options.run or latest_run(options.runs)
    head = load_head(folder)
    store_path = options.store or find_again(head.notes["store"], folder)
    labels_path = options.labels or Path(find_again(head.notes["labels"], folder))
    labels = load_labels(labels_path, head.targets)
    store = open_store(store_path)
    find_columns(store.schema, head.inputs, store_path)
    if not store.ids:
        raise StoreError(f"{store_path} holds no video that was extracted without failure")
    joined = join(
        labels.of_split(options.split),
        store.ids,
        store_path,
        failed=store.failed,
        tolerance=options.unmatched,
    )
    truth = joined.labels.values
    if (np.ptp(truth, axis=0) == 0).all():
        joined.labels.check_varied()
    notes = [*labels.notes, *_differences(head, store, labels)]
    notes += _leaks(folder, head, store, labels, joined, options.split)

    prepared, prediction = predict_videos(head, folder, store, joined.store_ids)
    subjects = joined.labels.subjects
    groups = None if subjects is None else np.unique(subjects, return_inverse=True)[1]
    scores = score(prediction, truth, groups=groups)
    by_length = pearson(head.baseline.predict(prepared.frames.lengths), truth)
    notes += [
        f"Pearson of {name} is undefined: its "
        f"{'labels are' if np.ptp(column) == 0 else 'predictions are'} constant on this split"
        for name, rho, column in zip(head.targets, scores.pearson, truth.T, strict=True)
        if np.isnan(rho)
    ]
    if joined.missing:
        first = ", ".join(joined.missing[:3])
        notes.append(
            f"{len(joined.missing)} labels have no usable video and are not scored: {first}"
        )
    if prepared.faceless:
        notes.append(
            f"{prepared.faceless} videos show no face: predicted as the training videos' mean label"
        )

    against = None
    if options.against is not None:
        other = load_head(options.against)
        if other.targets != head.targets:
            raise HeadError(
                f"{options.against} predicts {', '.join(other.targets)}, {folder} predicts "
                f"{', '.join(head.targets)}; two runs are compared on the same targets"
            )
        notes += [
            f"{options.against}: {note}"
            for note in _leaks(options.against, other, store, labels, joined, options.split)
        ]
        _, theirs = predict_videos(other, options.against, store, joined.store_ids)
        against = _against(options.against, head.targets, prediction, theirs, truth, groups)
    predictions = folder / f"predictions-{options.split}.csv"
    ids, targets = joined.labels.ids, head.targets
    write_atomically(predictions, submission(ids, targets, prediction, "plain"))
    if options.submission is not None:
        written = labels.id_column, joined.labels.written
        content = submission(ids, targets, prediction, options.form, written)
        write_atomically(options.submission, content)
        if joined.missing:
            notes.append(f"{options.submission} lacks {len(joined.missing)} videos of the split")
    looks = None
    if options.split == "test":
        looks = _log_test(folder, store, labels, len(truth), scores.mean_pearson)
        if looks > 1:
            notes.append(
                f"this run was scored on the test split {looks} times; choose on val, test once"
            )
    result = EvaluateResult(
        run=str(folder),
        store=store_path,
        labels=str(labels.path),
        split=options.split,
        n=len(truth),
        subjects=None if groups is None else int(groups.max()) + 1,
        mean_pearson=known(scores.mean_pearson),
        mean_interval=_pair(scores.mean_pearson_interval),
        pearson=_named(head.targets, scores.pearson),
        intervals={
            name: _pair(row)
            for name, row in zip(head.targets, scores.pearson_interval, strict=True)
        },
        mean_ccc=known(mean_defined(scores.ccc)),
        ccc=_named(head.targets, scores.ccc),
        mean_mae=float(scores.mae.mean()),
        mae={name: float(v) for name, v in zip(head.targets, scores.mae, strict=True)},
        length_baseline=LengthScores(
            mean_pearson=known(mean_defined(by_length)),
            pearson=_named(head.targets, by_length),
        ),
        missing=len(joined.missing),
        faceless=prepared.faceless,
        test_evaluations=looks,
        predictions=str(predictions),
        against=against,
        submission=None if options.submission is None else str(options.submission),
        report=None if options.report is None else str(options.report),
        notes=notes,
    )
    write_json(folder / f"evaluation-{options.split}.json", result.model_dump(mode="json"))
    if options.report is not None:
        from feie.pipeline.report import write_report  # matplotlib loads slowly

        write_report(options.report, folder, head, result, joined, prepared.frames, prediction)
    progress(Progress("videos", len(truth), len(truth)))
    return result


def predict_videos(
    head: Head, folder: Path, store: Store, videos: Sequence[str]
) -> tuple[Prepared, NDArray[np.float64]]:
    """Read videos as the head of a run does, and predict them, shape (videos, targets).

    Raises
    ------
    HeadError
        The store has other columns, or what is predicted is not finite.
    """
    columns = find_columns(store.schema, head.inputs, store.path)
    prepared = prepare(store.read(videos, columns), head.inputs)
    prediction = head.predict(prepared.frames)
    if not np.isfinite(prediction).all():
        raise HeadError(
            f"{folder} predicts what is not finite for {store.path}: its weights are damaged, or "
            f"the store's columns lie far outside those of its training"
        )
    return prepared, prediction


def _against(
    run: Path,
    targets: tuple[str, ...],
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    truth: NDArray[np.float64],
    groups: NDArray[np.int64] | None,
) -> AgainstResult:
    found, names = compare(ours, theirs, truth, groups=groups), (*targets, "mean")
    return AgainstResult(
        run=str(run),
        mean_pearson=known(mean_defined(pearson(theirs, truth))),
        difference=_named(names, found.difference),
        interval={n: _pair(row) for n, row in zip(names, found.interval, strict=True)},
        p_value=_named(names, found.p_value),
    )


def _differences(head: Head, store: Store, labels: Labels) -> list[str]:
    """Say what is not as it was in training."""
    notes, trained = [], head.notes["store"]
    now = dict(store.provenance).get("extractor") or {}
    before = trained.get("extractor") or {}
    if now.get("sha256") != before.get("sha256"):
        notes.append(
            f"{store.path} was made by extractor {now.get('name')}, the head was trained on "
            f"{before.get('name')} (other weights): its figures may mean little"
        )
    elif store.fingerprint != trained["fingerprint"]:
        notes.append(f"{store.path} is not, or no longer, the store that the head was trained on")
    if labels.sha256 != head.notes["labels"]["sha256"]:
        notes.append(f"{labels.path} is not, or no longer, the file that the head was trained on")
    return notes


def _leaks(
    folder: Path, head: Head, store: Store, labels: Labels, joined: Join, split: SplitName
) -> list[str]:
    """Find videos of this split that the head was trained on, or its epoch chosen on.

    Raises
    ------
    HeadError
        There are some, in the same store or by the same labels, and the split should have none.
    """
    if split == "train":
        return ["these are the videos that the head was trained on: the figures flatter"]
    try:
        with (folder / VIDEOS).open(encoding="utf-8", newline="") as file:
            split_of = {row["video"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise HeadError(f"{folder / VIDEOS} cannot be read: {error}") from None
    same = (
        labels.sha256 == head.notes["labels"]["sha256"]
        or store.fingerprint == head.notes["store"]["fingerprint"]
    )
    notes = []
    for past, use in (("train", "the head was trained"), ("val", "the head's epoch was chosen")):
        seen = [video for video in joined.store_ids if split_of.get(video) == past]
        if not seen:
            continue
        text = f"{len(seen)} of {len(joined.store_ids)} videos of split {split!r}, e.g. {seen[0]!r}"
        if split == past:
            notes.append(f"{use} on these videos ({len(seen)}): the figures flatter a little")
        elif same:
            raise HeadError(
                f"{text}, were in the {'training' if past == 'train' else 'validation'} split of "
                f"{folder}; score it with the split of its training"
            )
        else:
            notes.append(
                f"{text}, have the ids of videos of {folder} that {use} on: if they are the same, "
                f"it flatters"
            )
    return notes


def _log_test(folder: Path, store: Store, labels: Labels, n: int, mean: float) -> int:
    """Note a look at the test split; gives the number of looks so far."""
    path = folder / TEST_LOG
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    with disk_errors(path):
        with path.open("a", encoding="utf-8") as file:
            file.write(
                f"{stamp} n={n} mean_pearson={mean:.4f} store={store.fingerprint} "
                f"labels=sha256:{labels.sha256}\n"
            )
        return len(path.read_bytes().splitlines())


def _pair(interval: NDArray[np.float64]) -> tuple[float, float] | None:
    return None if np.isnan(interval).any() else (float(interval[0]), float(interval[1]))


def _named(targets: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(targets, values, strict=True)}
