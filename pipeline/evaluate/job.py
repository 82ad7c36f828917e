"""`feie evaluate`: how well a head's intensities agree with the labels of a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from feie.features.errors import HeadError
from feie.features.store.reader import Store
from feie.features.text import counted
from feie.heads.data.challenges import SubmissionForm, submission
from feie.heads.data.joining import JoinAll, join_all
from feie.heads.data.labels import Labels, SplitName, load_labels
from feie.heads.measures.metrics import compare, known, mean_defined, pearson, score
from feie.heads.models.plugin import use_heads
from feie.heads.runs.checkpoint import find_again, find_run
from feie.heads.runs.files import write_atomically, write_json
from feie.heads.runs.frame_checkpoint import is_frame_level
from feie.heads.runs.fusion import weight_range
from feie.heads.runs.run import Run, load_run
from feie.heads.runs.stores import (
    Predicted,
    StorePaths,
    faceless_notes,
    predict_videos,
    stores_among,
    stores_of,
)
from feie.pipeline.evaluate.checks import differences, leaks, log_test
from feie.pipeline.options import Flag, Options
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, interval
from feie.pipeline.train.options import MissingLabel

if TYPE_CHECKING:
    from feie.pipeline.evaluate.frame_va import FrameAgainstResult, FrameEvaluateResult


class EvaluateOptions(Options):
    """What `feie evaluate` is asked to do.

    A fusion takes a store a head, or one for all.
    """

    run: Annotated[
        Path | None,
        Field(description="Folder of a run, or its name in --runs."),
        Flag(default="the newest of --runs"),
    ] = None
    runs: Annotated[Path, Field(description="Folder of all runs.")] = Path("runs")
    store: Annotated[
        StorePaths,
        Field(description="Another store; for a fusion one for each head, repeated."),
        Flag(names=("--store",), argument=True, default="the run's own", typed=list[str]),
    ] = ()
    labels: Annotated[
        Path | None, Field(description="Other labels."), Flag(default="the run's own")
    ] = None
    missing_label: MissingLabel = ()
    split: Annotated[
        SplitName,
        Field(description="The test split is used only with `--split test`; each use is logged."),
    ] = "val"
    unmatched: Annotated[
        float, Field(ge=0, le=1, description="Share of labels that may lack a video.")
    ] = 0.05
    against: Annotated[
        Path | None, Field(description="Another run: differences by a paired bootstrap.")
    ] = None
    submission: Annotated[
        Path | None,
        Field(description="Write the predictions as a challenge wants them."),
        Flag(names=("--out", "--submission")),
    ] = None
    form: Annotated[
        SubmissionForm,
        Field(
            description="Of --out: `labels` (ids as in the label file), `eri` (`File_ID`, "
            "[00001]; MuSe too), `emi` (`Filename`, 00001) or `plain`."
        ),
        Flag(names=("--format", "--form")),
    ] = "labels"
    report: Annotated[
        Path | None,
        Field(description="Write a page with tables and pictures too (HTML, one file)."),
    ] = None
    head: Annotated[
        tuple[str, ...],
        Field(
            description="Code of the run's head, `FILE.py:NAME`, where no package offers it; it "
            "is run."
        ),
    ] = ()


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


class HeadScores(BaseModel):
    """What one head of a fusion reaches alone, on the same videos.

    Attributes
    ----------
    run, store : str
    weights : dict of str to float
        Of its intensities in the fusion's, a target each.
    mean_pearson : float or None
    pearson : dict of str to (float or None)
    """

    run: str
    store: str
    weights: dict[str, float]
    mean_pearson: float | None
    pearson: dict[str, float | None]


class EvaluateResult(Result):
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
        Of the (first) head.
    heads : list of HeadScores
        Each head of a fusion; empty for a single one.
    missing : int
        Labels without a usable video, in one of the stores or more.
    faceless : int
        Videos without a face, in one of the stores or more; predicted there as the mean label of
        the training videos.
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
    heads: list[HeadScores]
    missing: int
    faceless: int
    test_evaluations: int | None
    predictions: str
    against: AgainstResult | None
    submission: str | None
    report: str | None
    notes: list[str]

    def tables(self) -> list[Table]:
        """Give the scores; those of each head of a fusion; the differences from another run."""
        columns = ("target", "Pearson", "95 % interval", "CCC", "MAE", "length only")
        base = self.length_baseline
        rows: list[tuple[Cell, ...]] = [
            (
                name,
                rho,
                interval(self.intervals[name]),
                self.ccc[name],
                self.mae[name],
                base.pearson[name],
            )
            for name, rho in self.pearson.items()
        ]
        mean = (
            "mean",
            self.mean_pearson,
            interval(self.mean_interval),
            self.mean_ccc,
            self.mean_mae,
            base.mean_pearson,
        )
        title = f"{self.run} on split {self.split}, {self.n} videos"
        found = [Table(title, columns, rows, [mean])]
        if self.heads:
            alone: list[tuple[Cell, ...]] = [
                (f"{Path(h.run).name}: {h.store}", weight_range(h.weights), h.mean_pearson)
                for h in self.heads
            ]
            fused = [("fused", "", self.mean_pearson)]
            columns = ("head", "weight", "mean Pearson")
            found.append(Table("each store alone, and fused", columns, alone, fused))
        if self.against is not None:
            found.append(difference_table(self.against))
        return found

    def lines(self) -> list[str]:
        """Give the notes, and name the files."""
        files = ("predictions", "submission", "report")
        return [
            *(f"note: {note}" for note in self.notes),
            *(f"{what} → {getattr(self, what)}" for what in files if getattr(self, what)),
        ]


def difference_table(other: AgainstResult | FrameAgainstResult) -> Table:
    """Give how much better a run is than another one, the mean below a line."""
    rows: list[tuple[Cell, ...]] = [
        (name, value, interval(other.interval[name]), other.p_value[name])
        for name, value in other.difference.items()
    ]
    title = f"less {other.run} (paired bootstrap)"
    columns = ("target", "difference", "95 % interval", "p")
    means = [row for row in rows if row[0] == "mean"]
    return Table(title, columns, [row for row in rows if row[0] != "mean"], means)


def run(
    options: EvaluateOptions, progress: ProgressCallback = silent
) -> EvaluateResult | FrameEvaluateResult:
    """Score a run, a head or a fusion of several, or a frame-level head, on one split.

    Writes ``predictions-<split>.csv`` and ``evaluation-<split>.json`` into the run folder, and
    the submission and the report where they are asked for; a look at the test split is also
    noted in ``test-evaluations.log``.

    Raises
    ------
    FeieError
        Run, store or labels cannot be used together.
    """
    use_heads(options.head)
    folder = find_run(options.run, options.runs)
    if is_frame_level(folder):
        from feie.pipeline.evaluate import frame_va as evaluate_frame_va

        return evaluate_frame_va.run(options, folder, progress)
    return _evaluate(options, load_run(folder), progress)


def _evaluate(options: EvaluateOptions, scored: Run, progress: ProgressCallback) -> EvaluateResult:
    """Score a run whose heads give one prediction a video."""
    folder, targets, split = scored.folder, scored.targets, options.split
    noted = scored.notes["labels"]
    labels = load_labels(
        options.labels or Path(find_again(noted, folder)),
        targets,
        options.missing_label or tuple(noted.get("missing_label", ())),
    )
    stores = stores_of(scored, options.store)
    joined = join_all(labels.of_split(split), stores, tolerance=options.unmatched)
    truth = joined.labels.values
    if (np.ptp(truth, axis=0) == 0).all():
        joined.labels.check_varied()
    notes = [*labels.notes, *differences(scored, stores, labels)]
    notes += leaks(scored, stores, labels, joined, split)

    found = predict_videos(scored, stores, joined.store_ids)
    prediction = found.fused
    subjects = joined.labels.subjects
    groups = None if subjects is None else np.unique(subjects, return_inverse=True)[1]
    scores = score(prediction, truth, groups=groups)
    lengths = found.prepared[0].frames.lengths
    by_length = pearson(scored.parts[0].head.baseline.predict(lengths), truth)
    notes += [
        f"Pearson of {name} is undefined: its "
        f"{'labels are' if np.ptp(column) == 0 else 'predictions are'} constant on this split"
        for name, rho, column in zip(targets, scores.pearson, truth.T, strict=True)
        if np.isnan(rho)
    ]
    if joined.missing:
        first = ", ".join(joined.missing[:3])
        notes.append(
            f"{counted(len(joined.missing), 'label', 'has', 'have')} no usable video"
            f"{' in every store' if scored.fused else ''}, not scored: {first}"
        )
    notes += faceless_notes(stores, found)

    against = None
    if options.against is not None:
        against, more = _against(
            find_run(options.against, options.runs), scored, stores, labels, joined, found, options
        )
        notes += more
    predictions = folder / f"predictions-{split}.csv"
    ids = joined.labels.ids
    write_atomically(predictions, submission(ids, targets, prediction, "plain"))
    if options.submission is not None:
        written = labels.id_column, joined.labels.written
        content = submission(ids, targets, prediction, options.form, written)
        write_atomically(options.submission, content)
        if joined.missing:
            notes.append(
                f"{options.submission} lacks {counted(len(joined.missing), 'video')} of the split"
            )
    looks = None
    if split == "test":
        looks = log_test(folder, stores, labels.sha256, len(truth), scores.mean_pearson)
        if looks > 1:
            notes.append(
                f"this run was scored on the test split {looks} times; choose on val, test once"
            )
    result = EvaluateResult(
        run=str(folder),
        store=" + ".join(store.path for store in stores),
        labels=str(labels.path),
        split=split,
        n=len(truth),
        subjects=None if groups is None else int(groups.max()) + 1,
        mean_pearson=known(scores.mean_pearson),
        mean_interval=_pair(scores.mean_pearson_interval),
        pearson=_named(targets, scores.pearson),
        intervals={
            name: _pair(row) for name, row in zip(targets, scores.pearson_interval, strict=True)
        },
        mean_ccc=known(mean_defined(scores.ccc)),
        ccc=_named(targets, scores.ccc),
        mean_mae=float(scores.mae.mean()),
        mae={name: float(v) for name, v in zip(targets, scores.mae, strict=True)},
        length_baseline=LengthScores(
            mean_pearson=known(mean_defined(by_length)),
            pearson=_named(targets, by_length),
        ),
        heads=_heads(scored, stores, found, truth) if scored.fused else [],
        missing=len(joined.missing),
        faceless=int(found.faceless().sum()),
        test_evaluations=looks,
        predictions=str(predictions),
        against=against,
        submission=None if options.submission is None else str(options.submission),
        report=None if options.report is None else str(options.report),
        notes=notes,
    )
    write_json(folder / f"evaluation-{split}.json", result.model_dump(mode="json"))
    if options.report is not None:
        from feie.pipeline.evaluate.report import write_report  # matplotlib loads slowly

        write_report(options.report, scored, result, joined.labels, found)
    progress(Progress("videos", len(truth), len(truth)))
    return result


def _heads(
    scored: Run, stores: Sequence[Store], found: Predicted, truth: NDArray[np.float64]
) -> list[HeadScores]:
    rows = []
    for part, store, prediction in zip(scored.parts, stores, found.parts, strict=True):
        rho = pearson(prediction, truth)
        rows.append(
            HeadScores(
                run=str(part.folder),
                store=store.path,
                weights=dict(zip(scored.targets, part.weights.tolist(), strict=True)),
                mean_pearson=known(mean_defined(rho)),
                pearson=_named(scored.targets, rho),
            )
        )
    return rows


def _against(
    path: Path,
    scored: Run,
    stores: Sequence[Store],
    labels: Labels,
    joined: JoinAll,
    found: Predicted,
    options: EvaluateOptions,
) -> tuple[AgainstResult, list[str]]:
    """Compare with another run on the videos that both have; gives notes too."""
    other = load_run(path)
    if other.targets != scored.targets:
        raise HeadError(
            f"{path} predicts {', '.join(other.targets)}, {scored.folder} predicts "
            f"{', '.join(scored.targets)}; two runs are compared on the same targets"
        )
    theirs_in = stores_among(other, stores)
    both = join_all(joined.labels, theirs_in, tolerance=options.unmatched)
    notes = [f"{path}: {n}" for n in leaks(other, theirs_in, labels, both, options.split)]
    if both.missing:
        notes.append(
            f"{path} lacks {counted(len(both.missing), 'video')}: compared on the "
            f"{len(both.labels)} that both have"
        )
    place = {video: row for row, video in enumerate(joined.labels.ids)}
    rows = np.array([place[video] for video in both.labels.ids])
    ours, truth = found.fused[rows], both.labels.values
    theirs = predict_videos(other, theirs_in, both.store_ids).fused
    subjects = both.labels.subjects
    groups = None if subjects is None else np.unique(subjects, return_inverse=True)[1]
    compared, names = compare(ours, theirs, truth, groups=groups), (*scored.targets, "mean")
    result = AgainstResult(
        run=str(path),
        mean_pearson=known(mean_defined(pearson(theirs, truth))),
        difference=_named(names, compared.difference),
        interval={n: _pair(row) for n, row in zip(names, compared.interval, strict=True)},
        p_value=_named(names, compared.p_value),
    )
    return result, notes


def _pair(interval: NDArray[np.float64]) -> tuple[float, float] | None:
    return None if np.isnan(interval).any() else (float(interval[0]), float(interval[1]))


def _named(targets: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(targets, values, strict=True)}
