"""`feie train-head --store a --store b`: one head a store, fused by weights from validation."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from feie.features.errors import HeadError, UsageError
from feie.features.store.reader import open_store
from feie.features.text import counted
from feie.heads.config import PluginOptions, SplitName
from feie.heads.data.inputs import pick_columns
from feie.heads.data.joining import JoinAll, join_all
from feie.heads.data.labels import Labels, load_labels
from feie.heads.measures.metrics import known, mean_defined, pearson
from feie.heads.models.plugin import check_named, use_heads
from feie.heads.runs.checkpoint import (
    HEAD_JSON,
    HEAD_WEIGHTS,
    find_again,
    find_run,
    load_head,
    new_run,
    place,
)
from feie.heads.runs.files import disk_errors, read_json, write_atomically, write_json
from feie.heads.runs.fusion import MOST_HEADS, Weighting, choose_weights, weight_range
from feie.heads.runs.run import MEMBERS, Member, Run, load_run, save_fusion
from feie.heads.runs.stores import faceless_notes, predict_videos, stores_of
from feie.pipeline.options import Options
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.provenance import library_versions
from feie.pipeline.result import Cell, Result, Table
from feie.pipeline.train import job as train_head
from feie.pipeline.train.log import LOG
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.run import OPTIONS, VIDEOS, git_describe

PLAN = "fusion.json"
_OF_FUSION = {"store", "subset", "runs", "name", "resume", "unmatched"}
"""Options that are the fusion's own; with finished runs no other means anything."""


class TrainFusionOptions(Options):
    """What a late fusion is asked to do.

    Attributes
    ----------
    base : TrainHeadOptions
        Of every head, but for store and subset. The fusion goes to ``<runs>/<name>``.
    stores : tuple of str
        One head is trained on each; the same store may be given twice.
    subsets : tuple of tuple of str
        One a store, or none for all groups of each.
    fuse : tuple of Path
        Finished runs, each trained with options of its own, in place of `stores`.
    weighting : {"common", "target"}
        See `feie.heads.runs.fusion.choose_weights`.
    resume : Path or None
        A fusion that was begun; everything else is its own.
    """

    base: TrainHeadOptions = TrainHeadOptions()
    stores: tuple[str, ...] = ()
    subsets: tuple[tuple[str, ...], ...] = ()
    fuse: tuple[Path, ...] = ()
    weighting: Weighting = "common"
    resume: Path | None = None


class FusedHead(BaseModel):
    """One head of the fusion.

    Attributes
    ----------
    run, store : str
    subset : list of str
    weights : dict of str to float
        A target each.
    n_train : int
    mean_pearson : float or None
        Alone, on the videos that the weights were chosen on.
    pearson : dict of str to (float or None)
    """

    run: str
    store: str
    subset: list[str]
    weights: dict[str, float]
    n_train: int
    mean_pearson: float | None
    pearson: dict[str, float | None]


class TrainFusionResult(Result):
    """What a late fusion did.

    Attributes
    ----------
    run : str
        Folder of the fusion; `evaluate` and `predict` take it like that of a head.
    heads : list of FusedHead
    n_val : int
        Validation videos in every store: the weights were chosen on them.
    missing : int
        Validation labels that lack a video in one of the stores or more.
    mean_pearson, pearson
        Of the fusion on those videos.
    """

    run: str
    heads: list[FusedHead]
    weighting: Weighting
    n_val: int
    missing: int
    mean_pearson: float | None
    pearson: dict[str, float | None]
    seconds: float
    notes: list[str]

    def tables(self) -> list[Table]:
        """Give each head alone, and the fusion."""
        rows: list[tuple[Cell, ...]] = [
            (
                f"{Path(head.run).name}: {head.store}",
                ",".join(head.subset),
                weight_range(head.weights),
                head.mean_pearson,
            )
            for head in self.heads
        ]
        title = f"{self.run}: {self.n_val} validation videos"
        columns = ("head", "subset", "weight", "mean Pearson (val)")
        return [Table(title, columns, rows, [("fused", "", "", self.mean_pearson)])]

    def lines(self) -> list[str]:
        """Name the weights of each target where they differ, and the run."""
        said = []
        for head in self.heads if self.weighting == "target" else ():
            weights = ", ".join(f"{name} {w:.2f}" for name, w in head.weights.items())
            said.append(f"weights of {Path(head.run).name}: {weights}")
        said += [f"note: {note}" for note in self.notes]
        return [*said, f"{len(self.heads)} heads in {self.seconds:g} s → {self.run}"]


def run(options: TrainFusionOptions, progress: ProgressCallback = silent) -> TrainFusionResult:
    """Train one head a store, or take finished ones, and choose the weights of their mean.

    The weights are chosen on the validation videos that every store has; no label of the test
    split is looked at. Each head lies below ``members`` and is a run of its own.

    Raises
    ------
    FeieError
        Stores, labels, runs or options cannot be used together.
    """
    clock = time.monotonic()
    use_heads([options.base.head.name])
    if options.resume is not None:
        folder = find_run(options.resume, options.base.runs)
        options = _stored_options(folder)
    else:
        _check(options)
        folder = _start(options)
    names = _names(options)
    for number, name in enumerate(names):
        progress(Progress("epochs", 0, message=f"head {number + 1} of {len(names)}: {name}"))
        if options.fuse:
            _copy(options.fuse[number], folder / MEMBERS / name)
        else:
            _train(options, number, folder / MEMBERS / name, progress)
    return _finish(options, folder, names, time.monotonic() - clock)


def _check(options: TrainFusionOptions) -> None:
    """Refuse what cannot be fused before anything is trained."""
    count = len(options.fuse) or len(options.stores)
    if not 2 <= count <= MOST_HEADS:
        raise UsageError(f"2 to {MOST_HEADS} heads can be fused, not {count} (--store, --fuse)")
    if options.base.head.config.unit == "frame":
        raise UsageError(
            f"heads of videos are fused; --head {options.base.head.name} predicts frames of one "
            f"store"
        )
    if options.fuse:
        if options.stores:
            raise UsageError("--fuse takes finished runs, --store trains them: give one of the two")
        base, fresh = options.base.flat(), TrainHeadOptions().flat()
        given = [n for n in base if n not in _OF_FUSION and base[n] != fresh.get(n)]
        if given or options.subsets:
            names = ", ".join(f"--{n.replace('_', '-')}" for n in (given or ["subset"]))
            raise UsageError(f"--fuse trains nothing, so {names} would do nothing: leave it out")
        _check_runs([load_run(path) for path in options.fuse])
    elif options.subsets and len(options.subsets) != count:
        raise UsageError(
            f"{counted(len(options.subsets), 'subset')} for {count} stores: give --subset once a "
            f"store, in their order, or not at all for all groups of each"
        )
    else:
        _check_stores(options)


def _check_stores(options: TrainFusionOptions) -> None:
    """Find out before the first head is trained whether the last one's store will do."""
    base, stores = options.base, [open_store(path) for path in options.stores]
    for store, subset in zip(stores, options.subsets or [()] * len(stores), strict=True):
        pick_columns(store.schema, subset)
    labels = load_labels(base.labels, base.targets, base.missing_label)
    splits: tuple[SplitName, ...] = ("train", "val")
    for split in splits:
        join_all(labels.of_split(split), stores, tolerance=base.unmatched)


def _check_runs(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs:
        if other.fused:
            raise HeadError(f"{other.folder} is a fusion: fuse the heads below its {MEMBERS}")
        if other.unit == "frame":
            raise HeadError(f"{other.folder} is a frame-level head: heads of videos are fused")
        if other.targets != first.targets:
            raise HeadError(
                f"{other.folder} predicts {', '.join(other.targets)}, {first.folder} predicts "
                f"{', '.join(first.targets)}: heads are fused on the same targets"
            )
        if other.notes["labels"]["sha256"] != first.notes["labels"]["sha256"]:
            raise HeadError(
                f"{other.folder} and {first.folder} were trained on different label files: a "
                f"validation video of one may be a training video of the other"
            )


def _names(options: TrainFusionOptions) -> list[str]:
    """Name the folders of the heads: a number, and what they stand for."""
    sources = [path.resolve().name for path in options.fuse] or [
        Path(store.rstrip("/")).stem for store in options.stores
    ]
    slugs = [re.sub(r"[^\w.+-]", "-", source) for source in sources]
    return [f"{number}-{slug}" for number, slug in enumerate(slugs, 1)]


def _start(options: TrainFusionOptions) -> Path:
    """Make the folder, and put down first what a resumption needs."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = options.base
    folder = new_run(base.runs, base.name or f"{stamp}-fusion-s{base.seed}")
    write_json(
        folder / PLAN,
        {
            "options": options.model_dump(mode="json"),
            "stores": [place(store, folder) for store in options.stores],
            "fuse": [place(str(path), folder) for path in options.fuse],
            "labels": place(str(base.labels), folder),
        },
    )
    return folder


def _stored_options(folder: Path) -> TrainFusionOptions:
    if (folder / HEAD_JSON).exists():
        raise HeadError(f"{folder} is finished, there is nothing to resume")
    stored = read_json(folder / PLAN)
    try:
        given = stored["options"]
        given["stores"] = [find_again(noted, folder) for noted in stored["stores"]]
        given["fuse"] = [find_again(noted, folder) for noted in stored["fuse"]]
        given["base"]["labels"] = find_again(stored["labels"], folder)
        options = TrainFusionOptions.model_validate(given)
    except (AttributeError, KeyError, TypeError, ValidationError):
        raise HeadError(f"{folder / PLAN} is damaged or of another version of feie") from None
    if isinstance(options.base.head, PluginOptions):
        check_named(options.base.head.code)
    return options


def _train(
    options: TrainFusionOptions, number: int, folder: Path, progress: ProgressCallback
) -> None:
    """Train one head, take it up where it was put down, or leave it where it is done."""
    if (folder / HEAD_JSON).exists():
        return
    if (folder / OPTIONS).exists():
        train_head.run(TrainHeadOptions(resume=folder), progress)
        return
    shutil.rmtree(folder, ignore_errors=True)  # killed before it had put down its options
    change: dict[str, Any] = {
        "store": options.stores[number],
        "subset": options.subsets[number] if options.subsets else None,
        "runs": folder.parent,
        "name": folder.name,
    }
    train_head.run(options.base.model_copy(update=change), progress)


def _copy(source: Path, target: Path) -> None:
    """Take a finished run into the fusion, so that it does not change with the run."""
    with disk_errors(target):
        target.mkdir(parents=True, exist_ok=True)
    notes = read_json(source / HEAD_JSON)
    # Places are noted as seen from the run's folder, which is another one here.
    for what in ("store", "labels"):
        notes[what] |= place(find_again(notes[what], source), target)
    for name in (HEAD_WEIGHTS, VIDEOS, LOG):
        if (source / name).exists():
            write_atomically(target / name, (source / name).read_bytes())
    write_json(target / HEAD_JSON, notes)


def _finish(
    options: TrainFusionOptions, folder: Path, names: list[str], seconds: float
) -> TrainFusionResult:
    """Choose the weights, and write what makes the heads a fusion."""
    heads = [load_head(folder / MEMBERS / name) for name in names]
    targets, whole = heads[0].targets, np.ones(len(heads[0].targets))
    members = tuple(
        Member(folder / MEMBERS / name, head, whole)
        for name, head in zip(names, heads, strict=True)
    )
    unweighted = Run(folder, members, {})
    stores = stores_of(unweighted, ())
    for member, store in zip(members, stores, strict=True):
        if store.fingerprint != member.head.notes["store"]["fingerprint"]:
            raise HeadError(f"{store.path} has changed since its head was trained; train again")
    labels_path = Path(find_again(heads[0].notes["labels"], members[0].folder))
    labels = load_labels(labels_path, targets, heads[0].notes["labels"].get("missing_label", ()))
    if labels.sha256 != heads[0].notes["labels"]["sha256"]:
        raise HeadError(f"{labels_path} has changed since the heads were trained; train again")
    joined = join_all(labels.of_split("val"), stores, tolerance=options.base.unmatched)
    found = predict_videos(unweighted, stores, joined.store_ids)
    truth = joined.labels.values
    weights = choose_weights(found.parts, truth, options.weighting)
    fused = Run(
        folder,
        tuple(Member(m.folder, m.head, row) for m, row in zip(members, weights, strict=True)),
        {},
    )
    rho = pearson(fused.fuse(list(found.parts)), truth)
    by_target = _named(targets, rho)
    notes = [
        *_notes(labels, joined),
        *faceless_notes(unweighted, stores, found),
        f"the weights were chosen on {counted(len(truth), 'validation video')}",
    ]
    save_fusion(
        folder,
        names,
        weights,
        options.weighting,
        {
            "labels": {**heads[0].notes["labels"], **place(str(labels_path), folder)},
            "training": {"val_pearson": known(mean_defined(rho)),
                         "val_pearson_by_target": by_target},
            "videos": {"val": len(truth), "missing": list(joined.missing)},
            "versions": library_versions(),
            "git": git_describe(),
            "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
    )  # fmt: skip
    rows = []
    for member, store, prediction in zip(fused.members, stores, found.parts, strict=True):
        alone = pearson(prediction, truth)
        rows.append(
            FusedHead(
                run=str(member.folder),
                store=store.path,
                subset=member.head.notes["subset"],
                weights=dict(zip(targets, member.weights.tolist(), strict=True)),
                n_train=member.head.notes["videos"]["train"],
                mean_pearson=known(mean_defined(alone)),
                pearson=_named(targets, alone),
            )
        )
    return TrainFusionResult(
        run=str(folder),
        heads=rows,
        weighting=options.weighting,
        n_val=len(truth),
        missing=len(joined.missing),
        mean_pearson=known(mean_defined(rho)),
        pearson=by_target,
        seconds=round(seconds, 2),
        notes=notes,
    )


def _notes(labels: Labels, joined: JoinAll) -> list[str]:
    notes = list(labels.notes)
    if missing := joined.missing:
        notes.append(
            f"{counted(len(missing), 'validation label', 'has', 'have')} no usable video in every "
            f"store, left out: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    return notes


def _named(targets: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: known(value) for name, value in zip(targets, values, strict=True)}
