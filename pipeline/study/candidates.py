"""What can be compared: a run, a cross-validation, or a file of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from feie.features.errors import HeadError, LabelError, UsageError
from feie.features.text import counted
from feie.heads.data.labels import ID_NAMES, find_column, normalise_id
from feie.heads.data.tables import read_table
from feie.heads.runs.checkpoint import HEAD_JSON, find_again
from feie.heads.runs.files import read_json
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.options import EvaluateOptions
from feie.pipeline.study import cross_validate
from feie.pipeline.study.options import CompareOptions
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.run import OPTIONS

_APART = {"seed", "name", "runs", "store", "labels", "device", "resume", "checkpoint_seconds"}
"""Options in which runs may differ without being other heads."""


@dataclass(frozen=True)
class Candidate:
    """Predictions with what is known of where they are from.

    Attributes
    ----------
    name : str
    ids : tuple of str
        Of the videos, as the label file has them.
    targets : tuple of str
    values : ndarray of float64, shape (videos, targets)
    labels : Path or None
        The label file, where it is known.
    labels_sha256 : str
        Empty where it is not known.
    missing_label : tuple of float
    options : mapping
        That the heads were trained with; empty where they are not known.
    notes : tuple of str
    """

    name: str
    ids: tuple[str, ...]
    targets: tuple[str, ...]
    values: NDArray[np.float64]
    labels: Path | None = None
    labels_sha256: str = ""
    missing_label: tuple[float, ...] = ()
    options: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def of(self, ids: Sequence[str], targets: Sequence[str]) -> NDArray[np.float64]:
        """Give the predictions of some videos and targets, in this order.

        Raises
        ------
        UsageError
            Some are missing.
        """
        place = {video: row for row, video in enumerate(self.ids)}
        if lacking := [video for video in ids if video not in place]:
            raise UsageError(
                f"{self.name} predicts other videos: it lacks {counted(len(lacking), 'video')} "
                f"that {'is' if len(lacking) == 1 else 'are'} compared, the first is "
                f"{lacking[0]!r}"
            )
        if absent := [name for name in targets if name not in self.targets]:
            raise UsageError(f"{self.name} does not predict {', '.join(absent)}")
        columns = [self.targets.index(name) for name in targets]
        return self.values[[place[video] for video in ids]][:, columns]


def read_candidate(path: Path, options: CompareOptions) -> Candidate:
    """Read what is to be compared.

    Raises
    ------
    FeieError
        It is none of the three, or cannot be read.
    """
    if path.is_dir() and (path / cross_validate.PLAN).is_file():
        return _of_cross_validation(path)
    if path.is_dir() and (path / HEAD_JSON).is_file():
        return _of_run(path, options)
    if path.is_dir():
        raise UsageError(
            f"{path} is neither a run of feie train-head nor a finished feie cross-validate"
        )
    if not path.exists():
        raise UsageError(f"{path} does not exist: give runs, cross-validations or CSV files")
    return read_predictions(path)


def read_predictions(path: Path) -> Candidate:
    """Read a table of predictions: a column of ids, and numeric columns.

    Raises
    ------
    LabelError
        It cannot be read, or holds no such thing.
    """
    table = read_table(path)
    column = find_column(table.cells, ID_NAMES)
    if column is None:
        raise LabelError(f"{path} has no id column: call it id, File_ID or Filename")
    ids = tuple(normalise_id(str(cell)) for cell in table.cells[column])
    if len(set(ids)) < len(ids):
        twice = next(video for i, video in enumerate(ids) if video in ids[:i])
        raise LabelError(f"{path}: id {twice!r} stands in more than one row")
    found = {}
    for name in table.cells.columns:
        if name == column:
            continue
        numbers, _ = table.numbers(name)
        if np.isfinite(numbers).all():
            found[str(name)] = numbers
    if not found:
        raise LabelError(f"{path} has no column of numbers beside its ids")
    values = np.stack(list(found.values()), axis=1)
    return Candidate(str(path), ids, tuple(found), values)


def _of_cross_validation(folder: Path) -> Candidate:
    plan, path = read_json(folder / cross_validate.PLAN), folder / cross_validate.PREDICTIONS
    if plan.get("format") != cross_validate.FORMAT:
        raise UsageError(f"{folder / cross_validate.PLAN} is of another version of feie")
    if not path.exists():
        raise UsageError(f"{folder} is not finished: run the same feie cross-validate again")
    found = read_predictions(path)
    return Candidate(
        name=str(folder),
        ids=found.ids,
        targets=found.targets,
        values=found.values,
        labels=Path(plan["labels"]["path"]),
        labels_sha256=plan["labels"]["sha256"],
        options=plan["options"],
    )


def _of_run(folder: Path, options: CompareOptions) -> Candidate:
    """Evaluate a run, which writes its predictions, and read these."""
    scored = evaluate.run(
        EvaluateOptions(
            run=folder,
            split=options.split,
            unmatched=options.unmatched,
            missing_label=options.missing_label,
            head=options.head,
            labels=options.labels,
        )
    )
    if scored.unit == "frame":
        raise UsageError(
            f"{folder} is a frame-level head: feie evaluate --against compares two of these"
        )
    noted, found = read_json(folder / HEAD_JSON), read_predictions(Path(scored.predictions))
    return Candidate(
        name=str(folder),
        ids=found.ids,
        targets=found.targets,
        values=found.values,
        labels=options.labels or Path(find_again(noted["labels"], folder)),
        labels_sha256="" if options.labels else noted["labels"]["sha256"],
        missing_label=tuple(noted["labels"].get("missing_label", ())),
        options=_options_of(folder),
        notes=tuple(f"{folder}: {note}" for note in scored.notes if "flatter" in note),
    )


def _options_of(folder: Path) -> dict[str, Any] | None:
    try:
        noted = read_json(folder / OPTIONS)["options"]
        return TrainHeadOptions.model_validate(noted).flat()
    except (HeadError, KeyError, TypeError, ValidationError):  # a fusion, or of another version
        return None


def other_options(one: Candidate, other: Candidate) -> list[str]:
    """Name the options in which two differ, as ``width 16 (not 8)``; that of `other` first."""
    if one.options is None or other.options is None:
        return []
    names = sorted((one.options.keys() | other.options.keys()) - _APART)
    pairs = ((name, one.options.get(name), other.options.get(name)) for name in names)
    return [
        f"{name.replace('_', '-')} {_word(now)} (not {_word(before)})"
        for name, before, now in pairs
        if before != now
    ]


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
