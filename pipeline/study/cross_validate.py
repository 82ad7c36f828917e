"""`feie cross-validate`: each video is predicted by heads that have not seen its person."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from feie.features.devices import pick_device
from feie.features.errors import HeadError, LabelError, UsageError
from feie.features.store.reader import Store, open_store
from feie.features.text import counted, suggest
from feie.heads.config import PluginOptions
from feie.heads.data.challenges import submission
from feie.heads.data.joining import Join, join
from feie.heads.data.labels import Labels, load_labels
from feie.heads.measures.metrics import MEASURES, Scores, known, mean_defined, score
from feie.heads.models.plugin import use_heads
from feie.heads.runs.files import disk_errors, write_atomically, write_json
from feie.heads.runs.run import load_run
from feie.heads.runs.stores import predict_videos
from feie.pipeline.grid.grid import (
    Trained,
    grid_folder,
    place_of,
    read_training,
    shared_out,
    spread,
    train_grid,
)
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, failures, interval
from feie.pipeline.study.folds import Fold, fold_file, make_folds, persons_of
from feie.pipeline.study.options import CrossValidateOptions
from feie.pipeline.train.options import TrainHeadOptions, option_names

PLAN, RESULT, PREDICTIONS, FOLDS = (
    "plan.json", "cross-validation.json", "predictions.csv", "folds.csv",
)  # fmt: skip
FORMAT = "feie-cross-validation/1"
_FREE = {"labels", "store", "missing_label", "checkpoint_seconds", "unmatched"}
"""Options of all runs that change no result, or that are compared by content."""
_NOT_CHOSEN = {*_FREE, "targets", "seed", "name", "runs", "device", "resume", "tensorboard"}

Array = NDArray[np.float64]


class FoldScores(BaseModel):
    """One fold.

    Attributes
    ----------
    name : str
    videos, persons : int
        That were left out.
    chosen : dict
        Options that were chosen by its validation part.
    pearson, ccc, mae : dict of str to (float or None)
        On the videos that were left out.
    mean_pearson : float or None
    """

    name: str
    videos: int
    persons: int
    chosen: dict[str, Any]
    pearson: dict[str, float | None]
    ccc: dict[str, float | None]
    mae: dict[str, float | None]
    mean_pearson: float | None


class CrossValidateResult(Result):
    """What the out-of-fold predictions are worth; None where a figure is undefined.

    Attributes
    ----------
    videos, persons : int
        That were predicted.
    by_person : bool
        Whether the label file names persons; each video counts as one of its own if not.
    pearson, ccc, mae : dict of str to (float or None)
        Pooled: of all out-of-fold predictions together, a target each.
    intervals, mean_interval
        Bootstrap 95 % intervals of the pooled Pearson over persons.
    fold_mean, fold_sd : dict of str to (float or None)
        Of Pearson over the folds, a target each, and ``mean`` of the mean over the targets.
    folds : list of FoldScores
    trained, kept : int
        Runs that were trained now; runs that were finished before.
    failed : dict of str to str
        Runs without a head, with the reason.
    predictions, assignment : str
        Files: out-of-fold predictions; person and fold of each video.
    """

    out: str
    videos: int
    persons: int
    by_person: bool
    mean_pearson: float | None
    mean_interval: tuple[float, float] | None
    pearson: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    mean_ccc: float | None
    ccc: dict[str, float | None]
    mean_mae: float
    mae: dict[str, float | None]
    fold_mean: dict[str, float | None]
    fold_sd: dict[str, float | None]
    folds: list[FoldScores]
    trained: int
    kept: int
    failed: dict[str, str]
    predictions: str
    assignment: str
    seconds: float
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """1 where a run has no head."""
        return 1 if self.failed else 0

    def tables(self) -> list[Table]:
        """Give the pooled figures beside those over folds; and each fold."""
        rows: list[tuple[Cell, ...]] = [
            (name, value, interval(self.intervals[name]), self.ccc[name], self.mae[name],
             self._over_folds(name))
            for name, value in self.pearson.items()
        ]  # fmt: skip
        means = (
            "mean", self.mean_pearson, interval(self.mean_interval), self.mean_ccc, self.mean_mae,
            self._over_folds("mean"),
        )  # fmt: skip
        columns = ("target", "Pearson", "95 % interval", "CCC", "MAE", "Pearson over folds")
        drawn = counted(self.persons, "person") if self.by_person else ""
        title = f"{self.out}: {counted(self.videos, 'video')}{f' of {drawn}' if drawn else ''}"
        chosen = any(fold.chosen for fold in self.folds)
        by_fold: list[tuple[Cell, ...]] = [
            (
                f.name,
                f.videos,
                *([f.persons] if self.by_person else []),
                f.mean_pearson,
                *([_words(f.chosen)] if chosen else []),
            )
            for f in self.folds
        ]
        persons = ["persons"] if self.by_person else []
        names = ("fold", "videos", *persons, "mean Pearson", *(["chosen"] if chosen else []))
        return [Table(title, columns, rows, [means]), Table("left out in turn", names, by_fold)]

    def _over_folds(self, name: str) -> str:
        mean, sd = self.fold_mean[name], self.fold_sd[name]
        return "" if mean is None else f"{mean:.3f}" + ("" if sd is None else f" ± {sd:.3f}")

    def lines(self) -> list[str]:
        """Give the notes, what failed, and what was written."""
        return [
            *(f"note: {note}" for note in self.notes),
            *failures(self.failed),
            f"{self.trained} runs trained, {self.kept} were there, {self.seconds:g} s → "
            f"{self.predictions}, {self.assignment}",
        ]


def run(options: CrossValidateOptions, progress: ProgressCallback = silent) -> CrossValidateResult:
    """Leave each fold out in turn, train on the others, and score what is predicted of it.

    Each run is one of `feie train-head`, whose label file says the fold: left-out videos are its
    test split. Epochs, and options that are to be chosen, are chosen by a validation part of the
    other folds. The predictions of several seeds are averaged. A killed cross-validation goes on
    with the same options, to the same predictions.

    Raises
    ------
    FeieError
        Store, labels, folds or options cannot be used, or a fold is left without a head.
    """
    clock, out = time.monotonic(), options.out
    if options.head.config.unit == "frame":
        raise UsageError("heads of frames are not cross-validated yet: leave --head frame-va out")
    if isinstance(options.head, PluginOptions):
        use_heads([options.head.code])
    device = pick_device(options.device)
    store = open_store(options.store)
    joined, notes = _usable(options, store)
    labels, persons = joined.labels, persons_of(joined.labels)
    folds = make_folds(labels, persons, options.folds, options.fold_seed)
    settings = _settings(options)
    files = {fold.name: _csv(fold_file(labels, persons.tolist(), fold)) for fold in folds}
    plan = {
        "format": FORMAT,
        "options": {k: v for k, v in options.shared().items() if k not in _FREE},
        "choose": list(options.choose),
        "folds": {name: hashlib.sha256(text).hexdigest() for name, text in files.items()},
        "store": store.fingerprint,
        "labels": {"path": str(options.labels.absolute()), "sha256": labels.sha256},
    }
    with grid_folder(out, PLAN, plan, "cross-validation", "--out", _without_place(plan)):
        with disk_errors(out):
            (out / "folds").mkdir(exist_ok=True)
        for name, text in files.items():
            write_atomically(_file_of(out, name), text)
        points = {
            (fold.name, number, seed): _run_of(options, labels, fold, setting, number, seed)
            for fold in folds
            for number, setting in enumerate(settings)
            for seed in range(options.seeds)
        }
        done = train_grid(
            list(points.values()),
            lambda runs: shared_out(runs, device, options.jobs, options.stack),
            progress,
        )
        chosen = {fold.name: _best(fold, settings, points, options.seeds) for fold in folds}
        prediction = np.full(labels.values.shape, np.nan)
        for fold in folds:
            heads = [points[fold.name, chosen[fold.name], s] for s in range(options.seeds)]
            rows = fold.rows("test")
            prediction[rows] = _predicted(heads, store, [joined.store_ids[i] for i in rows])
        result = _result(options, labels, persons, folds, prediction, done, notes)
        for scores in result.folds:
            scores.chosen = settings[chosen[scores.name]]
        write_atomically(
            out / PREDICTIONS, submission(labels.ids, labels.targets, prediction, "plain")
        )
        write_atomically(out / FOLDS, _csv(_assignment(labels, persons, folds)))
        result.seconds = round(time.monotonic() - clock, 2)
        write_json(out / RESULT, result.model_dump(mode="json"))
    return result


def _usable(options: CrossValidateOptions, store: Store) -> tuple[Join, list[str]]:
    """Find the videos that have all labels and are in the store, whatever their split."""
    labels = load_labels(options.labels, options.targets, options.missing_label)
    if not options.targets and options.folds in labels.targets:  # a number of a fold is no target
        others = tuple(name for name in labels.targets if name != options.folds)
        if not others:
            raise LabelError(f"{labels.path} has no target beside {options.folds}, the fold")
        labels = load_labels(options.labels, others, options.missing_label)
    kept = (note for note in labels.notes if "split" not in note)  # of which nothing is used
    notes = list(kept)
    whole = np.isfinite(labels.values).all(axis=1)
    if not whole.all():
        lacking = int((~whole).sum())
        notes.append(f"{counted(lacking, 'video')} without all labels left out")
    if not whole.any():
        raise LabelError(f"{labels.path} has no video with all of {', '.join(labels.targets)}")
    labels = replace(labels, notes=()).take(np.flatnonzero(whole))
    joined = join(
        labels, store.ids, options.store, failed=store.failures, tolerance=options.unmatched
    )
    if joined.missing:
        notes.append(
            f"{counted(len(joined.missing), 'label', 'has', 'have')} no usable video in "
            f"{store.path}, left out: {', '.join(joined.missing[:3])}"
        )
    if labels.subjects is None:
        notes.append(
            f"{labels.path} names no persons (a column `subject`): each video counts as one, and "
            "the figures flatter if a person stands in several"
        )
    if not labels.split_made:
        notes.append(f"the split of {labels.path} is not used: all its videos are in folds")
    return joined, notes


def _settings(options: CrossValidateOptions) -> list[dict[str, Any]]:
    """Read what is to be chosen: every combination of the values."""
    known_names, axes = option_names(), dict[str, list[Any]]()
    for text in options.choose:
        key, _, values = text.partition("=")
        name = known_names.get(key.strip().lstrip("-").replace("-", "_"), "")
        if not name or name in _NOT_CHOSEN or name not in _choosable(options):
            raise UsageError(
                f"--choose {text}: no option of train-head that can be chosen"
                f"{suggest(key, sorted(_choosable(options)))}"
            )
        found = [yaml.safe_load(value) for value in values.split(",") if value.strip()]
        if len(found) < 2 or name in axes:
            raise UsageError(f"--choose {text}: give two values or more, as lr=0.001,0.0003")
        axes[name] = found
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def _choosable(options: CrossValidateOptions) -> set[str]:
    return set(options.shared()) - _NOT_CHOSEN


def _file_of(out: Path, fold: str) -> Path:
    return out / "folds" / f"fold-{_slug(fold)}.csv"


def _slug(name: str) -> str:
    """Give a file's name that no other fold has."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name)
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _run_of(
    options: CrossValidateOptions,
    labels: Labels,
    fold: Fold,
    setting: Mapping[str, Any],
    number: int,
    seed: int,
) -> TrainHeadOptions:
    of_setting = f"-c{number}" if options.choose else ""
    given = {
        **options.shared(),
        **setting,
        "store": options.store,
        "labels": _file_of(options.out, fold.name),
        "targets": labels.targets,
        "missing_label": (),
        "unmatched": 0.0,
        "seed": seed,
        "runs": options.out / "runs",
        "name": f"fold-{_slug(fold.name)}{of_setting}-s{seed}",
    }
    try:
        return TrainHeadOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        got = f" (got {first['input']!r})" if first["loc"] else ""
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"--choose {place}: {said}{got}") from None


def _without_place(plan: Mapping[str, Any]) -> Any:
    """Let the label file lie elsewhere when a cross-validation is taken up again."""

    def older(there: dict[str, Any]) -> dict[str, Any]:
        found = there.get("labels")
        if isinstance(found, dict) and found.get("sha256") == plan["labels"]["sha256"]:
            return {**there, "labels": plan["labels"]}
        return there

    return older


def _best(
    fold: Fold,
    settings: Sequence[Mapping[str, Any]],
    points: Mapping[tuple[str, int, int], TrainHeadOptions],
    seeds: int,
) -> int:
    """Give the number of the setting with the best mean over the seeds on validation."""
    means = []
    for number in range(len(settings)):
        noted = [read_training(points[fold.name, number, seed]) for seed in range(seeds)]
        figures = [n["val_pearson"] for n in noted if n is not None]
        mean = spread(figures)[0] if figures else None
        means.append(-np.inf if mean is None else mean)
    best = int(np.argmax(means))
    if not any(read_training(points[fold.name, best, seed]) for seed in range(seeds)):
        raise HeadError(
            f"fold {fold.name} is left without a head: none of its runs could be trained; "
            f"feie train-head --labels with its file of folds/ says why"
        )
    return best


def _predicted(heads: Sequence[TrainHeadOptions], store: Store, videos: Sequence[str]) -> Array:
    """Give the mean over the seeds that have a head."""
    found = []
    for head in heads:
        if read_training(head) is not None:
            scored = load_run(place_of(head))
            found.append(predict_videos(scored, [store], [videos]).fused)
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def _result(
    options: CrossValidateOptions,
    labels: Labels,
    persons: NDArray[np.str_],
    folds: Sequence[Fold],
    prediction: Array,
    done: Trained,
    notes: list[str],
) -> CrossValidateResult:
    groups = np.unique(persons, return_inverse=True)[1]
    pooled = score(prediction, labels.values, groups=groups)
    by_fold = [_fold_scores(labels, persons, fold, prediction) for fold in folds]
    over = {name: spread([f.pearson[name] for f in by_fold]) for name in labels.targets}
    over["mean"] = spread([f.mean_pearson for f in by_fold])
    return CrossValidateResult(
        out=str(options.out),
        videos=len(labels),
        persons=int(groups.max()) + 1,
        by_person=labels.subjects is not None,
        mean_pearson=known(pooled.mean),
        mean_interval=_pair(pooled.mean_interval),
        pearson=_named(labels, pooled.pearson),
        intervals={n: _pair(row) for n, row in zip(labels.targets, pooled.interval, strict=True)},
        mean_ccc=known(mean_defined(pooled.ccc)),
        ccc=_named(labels, pooled.ccc),
        mean_mae=float(pooled.mae.mean()),
        mae=_named(labels, pooled.mae),
        fold_mean={name: mean for name, (mean, _) in over.items()},
        fold_sd={name: sd for name, (_, sd) in over.items()},
        folds=by_fold,
        trained=done.trained,
        kept=done.kept,
        failed=done.failed,
        predictions=str(options.out / PREDICTIONS),
        assignment=str(options.out / FOLDS),
        seconds=0.0,
        notes=[*notes, *_doubts(pooled, folds)],
    )


def _doubts(pooled: Scores, folds: Sequence[Fold]) -> list[str]:
    if min(len(fold.rows("test")) for fold in folds) < 3:
        return ["folds of fewer than three videos have no Pearson worth a mean: read the pooled"]
    return ["often undefined: no interval"] if np.isnan(pooled.mean_interval).any() else []


def _fold_scores(
    labels: Labels, persons: NDArray[np.str_], fold: Fold, prediction: Array
) -> FoldScores:
    rows = fold.rows("test")
    p, y = prediction[rows], labels.values[rows]
    found = {name: measure(p, y) for name, measure in MEASURES.items()}
    if len(rows) < 3:  # two points always lie on a line
        found = {name: np.full(len(labels.targets), np.nan) for name in found}
    return FoldScores(
        name=fold.name,
        videos=len(rows),
        persons=len(set(persons[rows].tolist())),
        chosen={},
        pearson=_named(labels, found["pearson"]),
        ccc=_named(labels, found["ccc"]),
        mae=_named(labels, np.abs(p - y).mean(0)),
        mean_pearson=known(mean_defined(found["pearson"])),
    )


def _assignment(
    labels: Labels, persons: NDArray[np.str_], folds: Sequence[Fold]
) -> list[list[str]]:
    fold_of = {int(row): fold.name for fold in folds for row in fold.rows("test")}
    rows = zip(labels.ids, persons.tolist(), strict=True)
    return [["id", "person", "fold"], *([v, p, fold_of[i]] for i, (v, p) in enumerate(rows))]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _words(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in chosen.items())


def _named(labels: Labels, values: Array) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(labels.targets, values, strict=True)}


def _pair(found: Array) -> tuple[float, float] | None:
    return None if np.isnan(found).any() else (float(found[0]), float(found[1]))
