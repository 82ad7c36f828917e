"""What `feie evaluate` gives back, and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from feie.features.text import counted
from feie.heads.config import MEASURE_NAMES, Measure, SplitName, Unit
from feie.heads.runs.fusion import weight_range
from feie.pipeline.result import Cell, Result, Table, interval

FEW = 20
"""Figures of fewer videos (or subjects) move a lot by chance."""
_Interval = tuple[float, float] | None


class AgainstResult(BaseModel):
    """How much better a run is than another one on the same units (paired bootstrap).

    Attributes
    ----------
    run : str
        The other run.
    mean_pearson, mean_ccc : float or None
        Of the other run.
    difference, interval, p_value : dict of str
        Of the headline, a target each and ``mean``: ours less the other's.
    """

    run: str
    mean_pearson: float | None
    mean_ccc: float | None
    difference: dict[str, float | None]
    interval: dict[str, _Interval]
    p_value: dict[str, float | None]

    def table(self) -> Table:
        """Give the differences, the mean below a line."""
        rows: list[tuple[Cell, ...]] = [
            (name, value, interval(self.interval[name]), self.p_value[name])
            for name, value in self.difference.items()
        ]
        columns = ("target", "difference", "95 % interval", "p")
        means = [row for row in rows if row[0] == "mean"]
        others = [row for row in rows if row[0] != "mean"]
        return Table(f"less {self.run} (paired bootstrap)", columns, others, means)


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
    unit : {"video", "frame"}
        What was scored.
    n, videos : int
        Units that were scored, and the videos that they are of.
    headline : {"pearson", "ccc"}
        What the intervals and differences are of.
    pearson, ccc, mae : dict of str to float
        A figure a target.
    mean_pearson, mean_ccc, mean_mae : float
        Mean over the targets.
    intervals, mean_interval
        Bootstrap 95 % intervals of the headline over videos, or over subjects.
    subjects : int or None
        How many the bootstrap drew from, where the label file names them.
    length_baseline : LengthScores or None
        Of the (first) head; None of a head of frames.
    stored_ccc : dict of str to (float or None)
        Of a head of frames: that of the store's columns of the same names, with the same filter.
    heads : list of HeadScores
        Each head of a fusion; empty for a single one.
    missing : int
        Labels (of frames: videos of the labels) without a usable video, in one of the stores or
        more.
    faceless : int
        Videos without a face, in one of the stores or more; predicted there as the mean label of
        training.
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
    unit: Unit
    n: int
    videos: int
    subjects: int | None
    headline: Measure
    mean_pearson: float | None
    mean_interval: _Interval
    pearson: dict[str, float | None]
    intervals: dict[str, _Interval]
    mean_ccc: float | None
    ccc: dict[str, float | None]
    mean_mae: float
    mae: dict[str, float]
    length_baseline: LengthScores | None
    stored_ccc: dict[str, float | None]
    heads: list[HeadScores]
    missing: int
    faceless: int
    test_evaluations: int | None
    predictions: str
    against: AgainstResult | None
    submission: str | None
    report: str | None
    notes: list[str]

    @property
    def mean(self) -> float | None:
        """Mean of the headline over the targets."""
        return self.mean_pearson if self.headline == "pearson" else self.mean_ccc

    def figures(self) -> dict[str, float | None]:
        """Give the headline of each target."""
        return self.pearson if self.headline == "pearson" else self.ccc

    def interval_cell(self, pair: _Interval) -> str:
        """Write an interval, or why there is none."""
        return interval(pair) or (f"too few: {self.drawn}" if self.few else "often undefined")

    @property
    def few(self) -> bool:
        """Whether chance has a large part in the figures."""
        return (self.subjects or self.videos) < FEW

    @property
    def drawn(self) -> str:
        """Say what the bootstrap draws, and how many there are."""
        what = "subject" if self.subjects else "video"
        return counted(self.subjects or self.videos, what)

    def scores(self) -> Table:
        """Give the figures of each target, their means below a line."""
        other: Measure = "ccc" if self.headline == "pearson" else "pearson"
        second = self.ccc if other == "ccc" else self.pearson
        second_mean = self.mean_ccc if other == "ccc" else self.mean_pearson
        base, base_mean, base_name = self._baseline()
        rows: list[tuple[Cell, ...]] = []
        for name, value in self.figures().items():
            pair = self.interval_cell(self.intervals[name]) if value is not None else ""
            rows.append((name, value, pair, second[name], self.mae[name], base.get(name, "")))
        pair = self.interval_cell(self.mean_interval) if self.mean is not None else ""
        means = ("mean", self.mean, pair, second_mean, self.mean_mae, base_mean)
        names = MEASURE_NAMES[self.headline], MEASURE_NAMES[other]
        columns = ("target", names[0], "95 % interval", names[1], "MAE", base_name)
        return Table(self.title, columns, rows, [means])

    @property
    def title(self) -> str:
        """Say what was scored."""
        of = f" of {counted(self.videos, 'video')}" if self.unit == "frame" else ""
        return f"{self.run} on split {self.split}, {counted(self.n, self.unit)}{of}"

    def _baseline(self) -> tuple[dict[str, Any], Cell, str]:
        if self.length_baseline is not None:
            return self.length_baseline.pearson, self.length_baseline.mean_pearson, "length only"
        known = [value for value in self.stored_ccc.values() if value is not None]
        mean = sum(known) / len(known) if known else ""
        return self.stored_ccc, mean, "stored columns"

    def fused(self) -> Table | None:
        """Give each head of a fusion alone, the fusion below a line."""
        if not self.heads:
            return None
        alone: list[tuple[Cell, ...]] = [
            (f"{Path(h.run).name}: {h.store}", weight_range(h.weights), h.mean_pearson)
            for h in self.heads
        ]
        columns = ("head", "weight", "mean Pearson")
        whole = [("fused", "", self.mean_pearson)]
        return Table("each store alone, and fused", columns, alone, whole)

    def tables(self) -> list[Table]:
        """Give the scores; those of each head of a fusion; the differences from another run."""
        found = [
            self.scores(),
            self.fused(),
            None if self.against is None else self.against.table(),
        ]
        return [table for table in found if table is not None]

    def lines(self) -> list[str]:
        """Give what makes the figures doubtful, the notes, and name the files."""
        files = ("predictions", "submission", "report")
        return [
            *(f"note: {note}" for note in self.notes),
            *(f"{what} → {getattr(self, what)}" for what in files if getattr(self, what)),
        ]
