"""`feie ablate`: the tables of [K], every row over several seeds, from one store."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field
from scipy.stats import spearmanr

from feie.features.devices import pick_device
from feie.features.errors import HeadError, UsageError
from feie.features.store.reader import open_store
from feie.heads.config import LongPolicy, MissingPolicy, MrnnOptions, PresetName, Space
from feie.heads.data.inputs import pick_columns
from feie.heads.data.labels import load_labels
from feie.heads.measures.metrics import known, mean_defined
from feie.heads.runs.checkpoint import HEAD_JSON
from feie.heads.runs.files import disk_errors, read_json, write_atomically, write_json
from feie.heads.training.stacked import pays
from feie.pipeline.grid.picture import draw_table
from feie.pipeline.grid.processes import Task, train_all
from feie.pipeline.grid.tables import (
    PUBLISHED_NOTE,
    TABLES,
    Row,
    TableName,
    read_published,
)
from feie.pipeline.options import Flag, Names, Options, StoreArgument
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, failures
from feie.pipeline.train.options import MissingLabel, TrainHeadOptions

PLAN, TABLE, RUNS, PICTURE = "ablation.json", "table.csv", "runs.csv", "table.png"
_STACK_ON_CPU = 8
"""Runs a stack on a CPU: more of them only lengthen the way to the first finished head."""
_FREE = {"seeds", "out", "store", "labels", "stack", "jobs", "device", "published"}
"""Options that may differ when an ablation is taken up again; of the files the content counts."""


_STEPS = Flag(panel="Training")
_INPUT = Flag(panel="Frames")
_BY_PRESET = Flag(default="of the preset")


class AblateOptions(Options):
    """What `feie ablate` is asked to do.

    What is not listed here is as in `feie.pipeline.train.options.TrainHeadOptions`.
    """

    table: Annotated[
        TableName,
        Field(description="`subsets` (Kollias et al., Table 3) or `architecture` (their Table 4)."),
    ] = "subsets"
    seeds: Annotated[
        int, Field(ge=1, le=1000, description="Runs per row; can be raised later.")
    ] = 5
    store: StoreArgument = "features.zarr"
    labels: Annotated[
        Path, Field(description="CSV or Parquet: an id column, `split`, numeric targets.")
    ] = Path("labels.csv")
    subset: Annotated[
        Names,
        Field(min_length=1, description="Groups of columns of table architecture."),
    ] = ("va", "expr", "au")
    targets: Annotated[
        Names, Field(description="Label columns, comma-separated."), Flag(default="all")
    ] = ()
    missing_label: MissingLabel = ()
    out: Annotated[
        Path | None,
        Field(description="Folder of runs and table."),
        Flag(default="ablation-TABLE"),
    ] = None
    preset: Annotated[
        PresetName,
        Field(description="`default`, or `paper` (batch 4, learning rate 1e-4)."),
        _STEPS,
    ] = "default"
    lr: Annotated[
        float | None, Field(gt=0, description="Adam's learning rate."), _BY_PRESET, _STEPS
    ] = None
    batch: Annotated[
        int | None, Field(ge=1, description="Videos per batch."), _BY_PRESET, _STEPS
    ] = None
    epochs: Annotated[
        int | None, Field(ge=1, description="At most so many."), _BY_PRESET, _STEPS
    ] = None
    patience: Annotated[
        int | None,
        Field(ge=1, description="Stop after so many without a better validation Pearson."),
        _BY_PRESET,
        _STEPS,
    ] = None
    clip: Annotated[
        float | None, Field(gt=0, description="Largest gradient norm of each run."), _STEPS
    ] = None
    t: Annotated[int, Field(ge=1, le=100_000, description="Most frames of a video."), _INPUT] = 480
    frame_stride: Annotated[
        int, Field(ge=1, le=10_000, description="Read only every so many frames."), _INPUT
    ] = 1
    missing: Annotated[
        MissingPolicy, Field(description="Frames without a face: `drop`, `hold` or `zero`."), _INPUT
    ] = "drop"
    long: Annotated[
        LongPolicy,
        Field(description="Videos longer than t: `uniform` resampling or `head`."),
        _INPUT,
    ] = "uniform"
    space: Annotated[
        Space,
        Field(description="`prob`: probabilities as stored; `logit`: their logits."),
        _INPUT,
    ] = "prob"
    unmatched: Annotated[
        float, Field(ge=0, le=1, description="Share of labels that may lack a video.")
    ] = 0.05
    checkpoint_seconds: Annotated[
        float,
        Field(ge=0, description="Least time between two saved states."),
        Flag(hidden=True),
    ] = 20.0
    stack: Annotated[
        Literal["auto", "on", "off"],
        Field(description="Train runs in one stack: `auto` (where it is faster), `on` or `off`."),
    ] = "auto"
    jobs: Annotated[
        int | None,
        Field(ge=1, description="Processes side by side, one thread each."),
        Flag(default="one per core"),
    ] = None
    device: Annotated[str, Field(description="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto"
    published: Annotated[
        Path | None,
        Field(description="CSV `row,published` that completes the published column."),
    ] = None

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out or Path(f"ablation-{self.table}")

    def run_of(self, row: Row, seed: int) -> TrainHeadOptions:
        """Options of the run of one row and seed."""
        same = set(TrainHeadOptions.model_fields) & set(AblateOptions.model_fields) - {"device"}
        common = {name: getattr(self, name) for name in same}
        name, runs = f"{row.slug}-s{seed}", self.folder / "runs"
        return TrainHeadOptions.model_validate(
            {**common, **row.changes, "seed": seed, "runs": runs, "name": name}
        )


class AblationRow(BaseModel):
    """One line of the table.

    Attributes
    ----------
    name : str
    published : float or None
        Mean Pearson in [K], where it is known.
    mean, sd : float or None
        Of the mean Pearson on the validation split over the seeds; sd (n - 1) needs two.
    seeds : dict of str to (float or None)
        Mean Pearson of each seed that was trained.
    by_target : dict of str to (float or None)
        Mean over the seeds, a target each.
    """

    name: str
    published: float | None
    mean: float | None
    sd: float | None
    seeds: dict[str, float | None]
    by_target: dict[str, float | None]


class AblateResult(Result):
    """What `feie ablate` did.

    Attributes
    ----------
    trained, kept : int
        Runs that were trained now; runs that were finished before.
    failed : dict of str to str
        Runs without a head, with the reason.
    csv, runs_csv, picture : str
        Files: a line a row, a line a run, the table drawn.
    rank_correlation : float or None
        Spearman's, of our means and the published ones, where three or more are known.
    """

    table: TableName
    out: str
    rows: list[AblationRow]
    trained: int
    kept: int
    failed: dict[str, str]
    rank_correlation: float | None
    csv: str
    runs_csv: str
    picture: str
    seconds: float
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """1 where a run has no head."""
        return 1 if self.failed else 0

    def tables(self) -> list[Table]:
        """Give our figures beside the published ones."""
        rows: list[tuple[Cell, ...]] = [
            (
                row.name,
                row.mean,
                "" if row.sd is None else f"± {row.sd:.3f}",
                len(row.seeds),
                "" if row.published is None else row.published,
            )
            for row in self.rows
        ]
        return [Table(self.out, ("row", "Pearson", "sd", "seeds", "as published"), rows)]

    def lines(self) -> list[str]:
        """Say how near the published order is, what failed, and what was written."""
        said = list(self.notes)
        if self.rank_correlation is not None:
            said.append(f"rank correlation with the published rows: {self.rank_correlation:.2f}")
        return [
            *said,
            *failures(self.failed),
            f"{self.trained} runs trained, {self.kept} were there → {self.csv}, {self.runs_csv}, "
            f"{self.picture}",
        ]


def run(options: AblateOptions, progress: ProgressCallback = silent) -> AblateResult:
    """Train what is not yet trained of a table, and write the table.

    Each run is one of `feie train-head`, with a folder that `feie evaluate` takes. A killed
    ablation goes on with the same options in the same folder, to the same result: finished runs
    are kept, others resume at their last saved epoch. ``seeds`` may be raised.

    Raises
    ------
    FeieError
        Store, labels or options cannot be used, the folder holds another ablation, or another
        process works in it.
    """
    clock = time.monotonic()
    rows, folder = TABLES[options.table], options.folder
    published = read_published(options.published, rows)
    device = pick_device(options.device)
    plan = _plan(options, rows)
    with disk_errors(folder):
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise HeadError(
                f"another feie ablate works in {folder}; wait, or choose --out"
            ) from None
    with held:
        _check_plan(folder / PLAN, plan)
        wanted = [options.run_of(row, seed) for row in rows for seed in range(options.seeds)]
        todo = [o for o in wanted if not (o.runs / str(o.name) / HEAD_JSON).exists()]
        tasks, jobs = _share(options, todo, device)
        failed = _train(tasks, jobs, wanted, todo, progress)
        return _report(
            options,
            rows,
            published,
            failed,
            len(todo) - len(failed),
            len(wanted) - len(todo),
            clock,
        )


def _plan(options: AblateOptions, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that a result depends on, after a check that store and labels serve every row."""
    store = open_store(options.store)
    labels = load_labels(options.labels, options.targets, options.missing_label)
    for row in rows:
        pick_columns(store.schema, row.changes.get("subset", options.subset))
    # Folders that were begun before there was such an option go on.
    free = _FREE if options.missing_label else {*_FREE, "missing_label"}
    return {
        "format": "feie-ablation/1",
        "options": options.model_dump(mode="json", exclude=free),
        "store": store.fingerprint,
        "labels": labels.sha256,
    }


def _check_plan(path: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder in which something else was begun."""
    if not path.exists():
        write_json(path, plan)
        return
    there = read_json(path)
    if there == plan:
        return
    before, now = there.get("options", {}), plan["options"]
    changed = [f"--{k}" for k in now if before.get(k) != now[k]]
    changed += [f"the {what}" for what in ("store", "labels") if there.get(what) != plan[what]]
    raise UsageError(
        f"{path.parent} holds an ablation with other options ({', '.join(changed) or 'format'}); "
        f"repeat those to go on with it, or choose another --out"
    )


def _share(
    options: AblateOptions, todo: Sequence[TrainHeadOptions], device: torch.device
) -> tuple[list[Task], int]:
    """Cut the runs into tasks, and say how many processes are to do them."""
    on_cpu = device.type == "cpu"
    if options.stack == "off" and not on_cpu:
        raise UsageError("--stack off trains on the CPU only; give --device cpu")
    devices = [str(device)]
    if str(device) == "cuda":
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = options.jobs or ((cores or 1) if on_cpu else len(devices))
    # None of the long ones at the end, alone.
    todo = sorted(todo, key=_cost, reverse=True)
    groups: dict[str, list[TrainHeadOptions]] = {}
    tasks = []
    for o in todo:
        if options.stack == "on" or (options.stack == "auto" and pays(device, o.training().batch)):
            alike = o.model_dump_json(exclude={"seed", "subset", "name"})
            groups.setdefault(alike, []).append(o)
        else:
            tasks.append(Task((o,), False, "cpu"))
    for group in groups.values():
        # Side by side rather than all in one, as far as there are processes or devices.
        share = -(-len(group) // (jobs if on_cpu else len(devices)))
        size = min(_STACK_ON_CPU, share) if on_cpu else share
        for i in range(0, len(group), size):
            on = devices[i // size % len(devices)]
            tasks.append(Task(tuple(group[i : i + size]), True, on))
    return tasks, jobs


def _cost(o: TrainHeadOptions) -> int:
    """Compare how long runs take, roughly."""
    head = o.head
    assert isinstance(head, MrnnOptions)  # the tables know no other
    gates = 4 if head.cell == "lstm" else 3
    return gates * head.layers * head.width**2 * (1 if head.mask else 2)


def _train(
    tasks: Sequence[Task],
    jobs: int,
    wanted: Sequence[TrainHeadOptions],
    todo: Sequence[TrainHeadOptions],
    progress: ProgressCallback,
) -> dict[str, str]:
    """Train all tasks; gives the runs that failed, with the reason."""
    epochs = {str(o.name): o.training().epochs for o in todo}
    total, done = sum(epochs.values()), dict.fromkeys(epochs, 0)
    folders = {str(o.name): o.runs / str(o.name) for o in todo}
    failed: dict[str, str] = {}
    ended = len(wanted) - len(todo)
    if ended:
        progress(Progress("epochs", 0, total, message=f"{ended} runs were finished before"))

    def notice(name: str, epoch: int, failure: str) -> None:
        nonlocal ended
        done[name] = max(done[name], epoch)
        message = ""
        if failure:
            failed[name] = failure
            message = f"{name} failed: {failure}"
        elif (folders[name] / HEAD_JSON).exists():
            ended += 1
            trained = read_json(folders[name] / HEAD_JSON)["training"]
            message = (
                f"{name}: validation Pearson {trained['val_pearson'] or float('nan'):.3f} "
                f"(epoch {trained['best_epoch']} of {trained['epochs_trained']})"
            )
        info = {"runs": f"{ended}/{len(wanted)}"}
        progress(Progress("epochs", sum(done.values()), total, info=info, message=message))

    train_all(tasks, jobs, notice)
    return failed


def _report(
    options: AblateOptions,
    rows: Sequence[Row],
    published: dict[str, float],
    failed: dict[str, str],
    trained: int,
    kept: int,
    clock: float,
) -> AblateResult:
    folder = options.folder
    lines, run_lines, targets = [], [], list[str]()
    for row in rows:
        runs: dict[int, dict[str, Any]] = {}
        for seed in range(options.seeds):
            path = folder / "runs" / f"{row.slug}-s{seed}" / HEAD_JSON
            if path.exists():
                runs[seed] = read_json(path)["training"]
        for seed, run_ in runs.items():
            targets = targets or list(run_["val_pearson_by_target"])
            run_lines.append([row.name, seed, run_])
        lines.append(_line(row, published.get(row.name), runs, targets))
    table, runs_csv, picture = folder / TABLE, folder / RUNS, folder / PICTURE
    write_atomically(table, _table_csv(lines, targets))
    write_atomically(runs_csv, _runs_csv(run_lines, targets))
    title = f"Table {options.table}: every seed, and mean ± sd over the seeds"
    with disk_errors(picture):
        draw_table(
            [line.name for line in lines],
            [[v for v in line.seeds.values() if v is not None] for line in lines],
            [_caption(line) for line in lines],
            title,
            picture,
        )
    return AblateResult(
        table=options.table,
        out=str(folder),
        rows=lines,
        trained=trained,
        kept=kept,
        failed=failed,
        rank_correlation=_rank_correlation(lines),
        csv=str(table),
        runs_csv=str(runs_csv),
        picture=str(picture),
        seconds=round(time.monotonic() - clock, 2),
        notes=[PUBLISHED_NOTE],
    )


def _rank_correlation(lines: Sequence[AblationRow]) -> float | None:
    both = [
        (line.mean, line.published)
        for line in lines
        if line.mean is not None and line.published is not None
    ]
    ours, theirs = zip(*both, strict=True) if both else ((), ())
    if len(both) < 3 or len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    return float(spearmanr(ours, theirs).statistic)


def _line(
    row: Row, published: float | None, runs: dict[int, dict[str, Any]], targets: Sequence[str]
) -> AblationRow:
    figures = np.array([r["val_pearson"] for r in runs.values()], dtype=np.float64)
    defined = figures[~np.isnan(figures)]
    columns = {
        name: np.array([r["val_pearson_by_target"][name] for r in runs.values()], dtype=np.float64)
        for name in targets
    }
    return AblationRow(
        name=row.name,
        published=published,
        mean=known(mean_defined(figures)),
        sd=float(defined.std(ddof=1)) if len(defined) > 1 else None,
        seeds={str(seed): known(v) for seed, v in zip(runs, figures, strict=True)},
        by_target={name: known(mean_defined(column)) for name, column in columns.items()},
    )


def _caption(line: AblationRow) -> str:
    ours = "no run" if line.mean is None else f"{line.mean:.3f}"
    spread = f" ± {line.sd:.3f}" if line.sd is not None else ""
    theirs = f"   published {line.published:.3f}" if line.published is not None else ""
    return ours + spread + theirs


def _table_csv(lines: Sequence[AblationRow], targets: Sequence[str]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", "published", "mean", "sd", "seeds", *targets])
    for line in lines:
        figures = [line.published, line.mean, line.sd]
        by_target = [line.by_target.get(name) for name in targets]
        table.writerow([line.name, *map(_cell, figures), len(line.seeds), *map(_cell, by_target)])
    return text.getvalue().encode()


def _runs_csv(runs: Sequence[Sequence[Any]], targets: Sequence[str]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", "seed", "mean", "best_epoch", "epochs", *targets])
    for name, seed, run_ in runs:
        by_target = [_cell(run_["val_pearson_by_target"][target]) for target in targets]
        counts = [run_["best_epoch"], run_["epochs_trained"]]
        table.writerow([name, seed, _cell(run_["val_pearson"]), *counts, *by_target])
    return text.getvalue().encode()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
