"""`feie compare`: whether one is better than another, or may be by chance."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from feie.features.errors import UsageError
from feie.features.text import counted
from feie.heads.data.labels import Labels, load_labels
from feie.heads.measures.metrics import compare, holm, known, mean_defined, pearson
from feie.heads.runs.files import disk_errors, write_atomically
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, interval
from feie.pipeline.study.candidates import Candidate, other_options, read_candidate
from feie.pipeline.study.options import CompareOptions

SAMPLES = 10_000
LEVEL = 0.05
TABLE, PICTURE = "comparison.csv", "comparison.png"


class Difference(BaseModel):
    """How much higher a Pearson is than the first's; None where it is undefined.

    Attributes
    ----------
    difference : float or None
    interval : (float, float) or None
        Paired bootstrap 95 % interval.
    p_value, corrected : float or None
        Two-sided; and corrected for the number of comparisons (Holm).
    """

    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    corrected: float | None

    @property
    def told_apart(self) -> bool:
        """Whether chance alone would seldom give such a difference."""
        return self.corrected is not None and self.corrected < LEVEL


class Compared(BaseModel):
    """One of those that are compared with the first.

    Attributes
    ----------
    name : str
    mean_pearson : float or None
        Its own.
    by_target : dict of str to Difference
        A target each; corrected over all targets and all that are compared.
    mean : Difference
        Of the mean over the targets; corrected over all that are compared.
    options : list of str
        In which it differs from the first.
    """

    name: str
    mean_pearson: float | None
    by_target: dict[str, Difference]
    mean: Difference
    options: list[str]


class CompareResult(Result):
    """What can be told apart.

    Attributes
    ----------
    first : str
        With which the others are compared.
    first_pearson : float or None
        Its mean Pearson.
    videos : int
    persons : int or None
        That the bootstrap draws, where the label file names them; videos otherwise.
    others : list of Compared
    csv, picture : str or None
    """

    first: str
    first_pearson: float | None
    labels: str
    videos: int
    persons: int | None
    others: list[Compared]
    csv: str | None
    picture: str | None
    notes: list[str]

    def tables(self) -> list[Table]:
        """Give the differences, a table for each that is compared."""
        return [
            Table(
                f"{other.name} - {self.first}",
                ("target", "difference", "95 % interval", "p", "p (Holm)"),
                [(name, *_cells(found)) for name, found in other.by_target.items()],
                [("mean", *_cells(other.mean))],
            )
            for other in self.others
        ]

    def lines(self) -> list[str]:
        """Say what it comes to, in which options they differ, and what was written."""
        drawn = counted(self.persons, "person") if self.persons else counted(self.videos, "video")
        said = [f"Pearson on {counted(self.videos, 'video')}; bootstrap over {drawn}"]
        for other in self.others:
            found = other.mean
            verdict = "cannot be told from"
            if found.told_apart and found.difference is not None:
                verdict = "is better than" if found.difference > 0 else "is worse than"
            said.append(f"{other.name} {verdict} {self.first}")
            if other.options:
                said.append(f"its options: {'; '.join(other.options)}")
        said += [f"note: {note}" for note in self.notes]
        return [*said, *(f"→ {path}" for path in (self.csv, self.picture) if path)]


def run(options: CompareOptions, progress: ProgressCallback = silent) -> CompareResult:
    """Compare each with the first, by a paired bootstrap on the same videos and labels.

    Drawn are persons where the label file names them, otherwise videos. P-values are corrected for
    the number of comparisons by Holm's method, those of the mean and those of the targets apart.

    Raises
    ------
    FeieError
        One cannot be read, or they were trained on other labels or predict other videos.
    """
    if len({path.absolute() for path in options.runs}) < len(options.runs):
        raise UsageError("a run that is named twice is no better than itself: name each once")
    found = []
    for place, path in enumerate(options.runs):
        found.append(read_candidate(path, options))
        progress(Progress("runs", place + 1, len(options.runs)))
    first = found[0]
    labels = _labels(options, found)
    unknown = [name for name in first.targets if name not in labels.targets]
    targets = [name for name in labels.targets if name in first.targets]
    if not targets or (unknown and first.options is not None):
        raise UsageError(f"{labels.path} has no column {', '.join(unknown)} to compare with")
    ids = sorted(first.ids)
    for other in found[1:]:
        if set(other.ids) != set(ids):
            first.of(other.ids, ())
            other.of(ids, ())
    truth, groups = _truth(labels, ids, targets, first.name)
    values = [candidate.of(ids, targets) for candidate in found]
    compared = [
        compare(theirs, values[0], truth, samples=SAMPLES, groups=groups) for theirs in values[1:]
    ]
    p_values = np.stack([one.p_value for one in compared])
    corrected = np.column_stack([holm(p_values[:, :-1]), holm(p_values[:, -1])])
    others = []
    for candidate, theirs, one, right in zip(
        found[1:], values[1:], compared, corrected, strict=True
    ):
        rows = [
            Difference(
                difference=known(one.difference[i]),
                interval=_pair(one.interval[i]),
                p_value=known(one.p_value[i]),
                corrected=known(right[i]),
            )
            for i in range(len(targets) + 1)
        ]
        others.append(
            Compared(
                name=candidate.name,
                mean_pearson=known(mean_defined(pearson(theirs, truth))),
                by_target=dict(zip(targets, rows, strict=False)),
                mean=rows[-1],
                options=other_options(first, candidate),
            )
        )
    result = CompareResult(
        first=first.name,
        first_pearson=known(mean_defined(pearson(values[0], truth))),
        labels=str(labels.path),
        videos=len(ids),
        persons=None if groups is None else int(groups.max()) + 1,
        others=others,
        csv=None,
        picture=None,
        notes=list(dict.fromkeys(note for candidate in found for note in candidate.notes)),
    )
    if options.out is not None:
        _write(result, options.out)
    return result


def _labels(options: CompareOptions, found: Sequence[Candidate]) -> Labels:
    """Read the true values, which all must have been trained on or that were named."""
    known_files = {c.labels_sha256: c for c in found if c.labels_sha256}
    if options.labels is None and len(known_files) > 1:
        names = " and ".join(f"{c.name} ({c.labels})" for c in list(known_files.values())[:2])
        raise UsageError(f"other labels: {names}; only what has the same labels can be compared")
    path = options.labels or next((c.labels for c in found if c.labels is not None), None)
    if path is None:
        raise UsageError("files of predictions do not say what is true: give --labels")
    codes = options.missing_label or next((c.missing_label for c in found if c.missing_label), ())
    labels = load_labels(path, _wanted(path, found[0]), codes)
    if options.labels is None and labels.sha256 not in known_files:
        raise UsageError(f"{path} has changed since {found[0].name} was trained: give --labels")
    return labels


def _wanted(path: Path, first: Candidate) -> tuple[str, ...]:
    """Give the targets of the first that are columns of the labels; all of a run's have to be."""
    if first.options is not None:
        return first.targets
    return tuple(name for name in load_labels(path).targets if name in first.targets)


def _truth(
    labels: Labels, ids: Sequence[str], targets: Sequence[str], name: str
) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Give the true values of the videos, and the number of each one's person."""
    place = {video: row for row, video in enumerate(labels.ids)}
    if strangers := [video for video in ids if video not in place]:
        raise UsageError(
            f"{labels.path} has no row for {counted(len(strangers), 'video')} of {name}, the first "
            f"is {strangers[0]!r}"
        )
    rows = np.array([place[video] for video in ids], dtype=np.int64)
    part = labels.take(rows)
    truth = part.values[:, [labels.targets.index(target) for target in targets]]
    bad = ~np.isfinite(truth)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UsageError(f"{labels.path} has no {targets[column]} of {ids[row]!r}")
    if part.subjects is None:
        return truth, None
    return truth, np.unique(part.subjects, return_inverse=True)[1]


def _cells(found: Difference) -> tuple[Cell, ...]:
    mark = "" if found.corrected is None else f"{found.corrected:.4f}"
    p = "" if found.p_value is None else f"{found.p_value:.4f}"
    return found.difference, interval(found.interval), p, mark + (" *" if found.told_apart else "")


def _pair(found: NDArray[np.float64]) -> tuple[float, float] | None:
    return None if np.isnan(found).any() else (float(found[0]), float(found[1]))


def _write(result: CompareResult, out: Path) -> None:
    from feie.pipeline.study.picture import draw_differences  # matplotlib loads slowly

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["compared", "with", "target", "difference", "low", "high", "p", "p_holm"])
    for other in result.others:
        for name, found in [*other.by_target.items(), ("mean", other.mean)]:
            low, high = found.interval or (None, None)
            figures = (found.difference, low, high, found.p_value, found.corrected)
            written = ("" if value is None else f"{value:.6f}" for value in figures)
            table.writerow([other.name, result.first, name, *written])
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / TABLE, text.getvalue().encode())
        draw_differences(
            [
                (
                    f"{other.name}: {name}" if len(result.others) > 1 else name,
                    found.difference,
                    found.interval,
                    found.told_apart,
                )
                for other in result.others
                for name, found in [*other.by_target.items(), ("mean", other.mean)]
            ],
            f"Pearson minus that of {result.first}, 95 % interval",
            out / PICTURE,
        )
    result.csv, result.picture = str(out / TABLE), str(out / PICTURE)
