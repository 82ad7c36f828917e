"""`feie train-head --sweep`: every point of a small grid, side by side, taken up after a kill."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ValidationError

from feie.features.devices import pick_device
from feie.features.errors import UsageError
from feie.features.plugins import names_file
from feie.features.store.reader import open_store
from feie.heads.data.labels import load_labels
from feie.heads.runs.files import write_atomically
from feie.pipeline.grid.grid import grid_folder, place_of, read_training, spread, train_grid
from feie.pipeline.grid.options import SweepOptions
from feie.pipeline.grid.processes import RunGroup
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, failures
from feie.pipeline.train.options import TrainHeadOptions, option_names

PLAN, TABLE, MOST = "sweep.json", "sweep.csv", 1000
_FREE = {"store", "labels", "runs", "name", "device", "checkpoint_seconds", "tensorboard", "resume"}
"""Options that change no result, or that are compared by content."""
_FIXED = _FREE | {"targets", "unmatched"}
"""Options that a grid may not hold."""


class SweepRow(BaseModel):
    """One setting of the grid; seeds are taken together.

    Attributes
    ----------
    setting : dict
        Values of the grid's options, but for the seed.
    mean, sd : float or None
        Of the mean Pearson on the validation split over the seeds; sd (n - 1) needs two.
    runs : list of str
        Folders of the heads.
    """

    setting: dict[str, Any]
    mean: float | None
    sd: float | None
    seeds: int
    runs: list[str]


class SweepResult(Result):
    """What a sweep did; the best setting first."""

    out: str
    rows: list[SweepRow]
    trained: int
    kept: int
    failed: dict[str, str]
    csv: str
    seconds: float
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """1 where a run has no head."""
        return 1 if self.failed else 0

    def tables(self) -> list[Table]:
        """Give the settings, best first."""
        names = list(self.rows[0].setting)
        rows: list[tuple[Cell, ...]] = []
        for row in self.rows:
            values = (row.setting[name] for name in names)
            cells = (",".join(v) if isinstance(v, list | tuple) else str(v) for v in values)
            rows.append((*cells, row.mean, "" if row.sd is None else row.sd, row.seeds))
        title = f"{self.out}: {self.trained} runs trained, {self.kept} kept"
        return [Table(title, (*names, "mean Pearson (val)", "sd", "seeds"), rows)]

    def lines(self) -> list[str]:
        """Name what failed, and the table."""
        notes = (f"note: {note}" for note in self.notes)
        return [*failures(self.failed), *notes, f"table → {self.csv}, {self.seconds:g} s"]


def run(options: SweepOptions, progress: ProgressCallback = silent) -> SweepResult:
    """Train what is not yet trained of a grid, and write the table.

    Each run is one of `feie train-head`. A killed sweep goes on with the same command: finished
    runs are kept, others resume at their last saved epoch. Values may be added to the grid.

    Raises
    ------
    FeieError
        Grid, store, labels or options cannot be used, or the folder holds another sweep.
    """
    clock, folder = time.monotonic(), options.folder
    points = read_grid(options.grid)
    wanted = [_options_of(options, point) for point in points]
    if any(o.head.config.unit == "frame" for o in wanted):
        raise UsageError("a sweep compares heads of videos: train heads of frames one by one")
    names = [str(o.name) for o in wanted]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{options.grid} names {min(twice)} more than once")
    store = open_store(options.base.store)
    labels = load_labels(options.base.labels, missing=options.base.missing_label)
    plan = {
        "format": "feie-sweep/1",
        "options": _compared(options.base, points[0]),
        "grid": sorted(points[0]),
        "store": store.fingerprint,
        "labels": labels.sha256,
    }
    for name in {o.device for o in wanted}:
        pick_device(name)
    with grid_folder(folder, PLAN, plan, "sweep", "--name", _in_todays_form):
        done = train_grid(wanted, lambda runs: _share(options, runs), progress)
        rows = _rows(points, wanted)
        write_atomically(folder / TABLE, _csv(rows, [n for n in points[0] if n != "seed"]))
    return SweepResult(
        out=str(folder),
        rows=rows,
        trained=done.trained,
        kept=done.kept,
        failed=done.failed,
        csv=str(folder / TABLE),
        seconds=round(time.monotonic() - clock, 2),
        notes=["chosen on the validation split: score the best one on test once"],
    )


def _share(options: SweepOptions, runs: Sequence[TrainHeadOptions]) -> tuple[list[RunGroup], int]:
    """Let each run have a process or, in turn, a GPU."""
    if options.gpus:
        on = [f"cuda:{options.gpus[i % len(options.gpus)]}" for i in range(len(runs))]
        runs = [o.model_copy(update={"device": d}) for o, d in zip(runs, on, strict=True)]
    return [RunGroup((o,), False, o.device) for o in runs], len(options.gpus) or options.jobs


def read_grid(path: Path) -> list[dict[str, Any]]:
    """Read a grid; gives the values of every point.

    Raises
    ------
    UsageError
        It is not there, no such YAML, or too large.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UsageError(f"{path} cannot be read as YAML: {why}") from None
    if not isinstance(content, dict) or not content:
        raise UsageError(f"{path} holds no grid: write one option a line, e.g. lr: [0.001, 0.003]")
    axes: dict[str, list[Any]] = {}
    for key, values in content.items():
        name = str(key).replace("-", "_")
        name = option_names().get(name, "")
        if not name or name in _FIXED:
            raise UsageError(f"{path}: {key} is no option of train-head that a grid may hold")
        listed = values if isinstance(values, list) else [values]
        if not listed:
            raise UsageError(f"{path}: {key} has no values")
        if name == "head" and any(names_file(str(value)) for value in listed):
            raise UsageError(
                f"{path}: code of others is named on the command line: --head FILE:NAME"
            )
        axes[name] = [
            tuple(p.strip() for p in v.split(",")) if name == "subset" and isinstance(v, str) else v
            for v in listed
        ]
    if (count := int(np.prod([len(v) for v in axes.values()]))) > MOST:
        raise UsageError(f"{path} has {count} points; at most {MOST} are trained")
    return [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]


def _options_of(options: SweepOptions, point: dict[str, Any]) -> TrainHeadOptions:
    parts = [f"{name}-{_slug(value)}" for name, value in point.items()]
    given = {**options.base.model_dump(), **point, "runs": options.folder, "name": "_".join(parts)}
    try:
        return TrainHeadOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{options.grid}: {name}: {first['msg']} (got {first['input']!r})"
        ) from None


def _slug(value: Any) -> str:
    text = "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^\w.+-]", "-", text)


def _compared(base: TrainHeadOptions, point: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that every run of the sweep shares and that change a result."""
    # Folders that were begun before there was such an option go on.
    free = _FREE if base.missing_label else {*_FREE, "missing_label"}
    return {k: v for k, v in base.flat().items() if k not in free and k not in point}


def _in_todays_form(plan: dict[str, Any]) -> dict[str, Any]:
    """Leave out what feie 0.1.0 noted besides: the options of all heads."""
    with suppress(ValidationError, TypeError, KeyError):
        base = TrainHeadOptions.model_validate(plan["options"])
        return {**plan, "options": _compared(base, dict.fromkeys(plan["grid"]))}
    return plan


def _rows(points: list[dict[str, Any]], wanted: list[TrainHeadOptions]) -> list[SweepRow]:
    groups: dict[str, tuple[dict[str, Any], list[float | None], list[str]]] = {}
    for point, run_ in zip(points, wanted, strict=True):
        setting = {name: value for name, value in point.items() if name != "seed"}
        _, figures, runs = groups.setdefault(repr(setting), (setting, [], []))
        if (noted := read_training(run_)) is not None:
            figures.append(noted["val_pearson"])
            runs.append(str(place_of(run_)))
    rows = []
    for setting, figures, runs in groups.values():
        mean, sd = spread(figures)
        rows.append(SweepRow(setting=setting, mean=mean, sd=sd, seeds=len(figures), runs=runs))
    return sorted(rows, key=lambda row: -np.inf if row.mean is None else row.mean, reverse=True)


def _csv(rows: list[SweepRow], names: list[str]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*names, "mean", "sd", "seeds"])
    for row in rows:
        figures = ["" if v is None else f"{v:.6f}" for v in (row.mean, row.sd)]
        table.writerow([*(_slug(row.setting[name]) for name in names), *figures, row.seeds])
    return text.getvalue().encode()
