"""`feie ablate`: the tables of [K], every row over several seeds, from one store."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from scipy.stats import spearmanr

from feie.features.devices import pick_device
from feie.features.store.reader import open_store
from feie.heads.data.inputs import pick_columns
from feie.heads.data.labels import load_labels
from feie.heads.runs.files import disk_errors, write_atomically
from feie.pipeline.grid.grid import (
    Trained,
    grid_folder,
    read_training,
    shared_out,
    spread,
    train_grid,
)
from feie.pipeline.grid.options import AblateOptions
from feie.pipeline.grid.picture import draw_table
from feie.pipeline.grid.tables import PUBLISHED_NOTE, TABLES, Row, TableName, read_published
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, failures

PLAN, TABLE, RUNS, PICTURE = "ablation.json", "table.csv", "runs.csv", "table.png"
_FREE = {"seeds", "out", "store", "labels", "stack", "jobs", "device", "published"}
"""Options that may differ when an ablation is taken up again; of the files the content counts."""


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
    with grid_folder(folder, PLAN, plan, "ablation", "--out"):
        wanted = [options.run_of(row, seed) for row in rows for seed in range(options.seeds)]
        done = train_grid(
            wanted, lambda runs: shared_out(runs, device, options.jobs, options.stack), progress
        )
        return _report(options, rows, published, done, clock)


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


def _report(
    options: AblateOptions,
    rows: Sequence[Row],
    published: dict[str, float],
    done: Trained,
    clock: float,
) -> AblateResult:
    folder = options.folder
    lines, run_lines, targets = [], [], list[str]()
    for row in rows:
        runs: dict[int, dict[str, Any]] = {}
        for seed in range(options.seeds):
            if (noted := read_training(options.run_of(row, seed))) is not None:
                runs[seed] = noted
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
        trained=done.trained,
        kept=done.kept,
        failed=done.failed,
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
    figures = [r["val_pearson"] for r in runs.values()]
    mean, sd = spread(figures)
    return AblationRow(
        name=row.name,
        published=published,
        mean=mean,
        sd=sd,
        seeds={str(seed): figure for seed, figure in zip(runs, figures, strict=True)},
        by_target={
            name: spread([r["val_pearson_by_target"][name] for r in runs.values()])[0]
            for name in targets
        },
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
