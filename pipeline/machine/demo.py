"""`feie demo`: both stages on the example clips, from videos to a Pearson table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from feie.features.errors import UsageError
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.extract import job as extract
from feie.pipeline.machine.options import DemoOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result, Table
from feie.pipeline.train import job as train_head
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.result import TrainHeadResult

__all__ = ["DemoOptions", "DemoResult", "run"]


class DemoResult(Result):
    """The three results, and the seconds that all of it took."""

    extract: extract.ExtractResult
    train_head: TrainHeadResult
    evaluate: evaluate.EvaluateResult
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 where a clip failed."""
        return self.extract.exit_code

    def tables(self) -> Sequence[Table]:
        """Give those of the evaluation."""
        return self.evaluate.tables()

    def lines(self) -> list[str]:
        """Say what the three commands say."""
        parts = (self.extract, self.train_head, self.evaluate)
        said = [line for part in parts for line in part.lines()]
        return [*said, f"all of it took {self.seconds:g} s"]


def run(options: DemoOptions, progress: ProgressCallback = silent) -> DemoResult:
    """Extract, train and evaluate on the example clips; the test split is theirs to be seen.

    Raises
    ------
    UsageError
        The example is not there.
    """
    videos, labels = options.data / "videos", options.data / "labels.csv"
    if not videos.is_dir() or not labels.is_file():
        raise UsageError(
            f"no example clips in {options.data}: run this in a checkout of feie, or name its "
            f"data.example with --data"
        )
    store, runs = options.out / "features.zarr", options.out / "runs"
    say = _announcer(progress)
    started = time.monotonic()
    say(f"feie extract --videos {videos} --store {store}")
    extracted = extract.run(extract.ExtractOptions(videos=videos, store=str(store)), progress)
    say(f"feie train-head --store {store} --labels {labels} --runs {runs} --seed {options.seed}")
    trained = train_head.run(
        TrainHeadOptions(store=str(store), labels=labels, runs=runs, seed=options.seed),
        progress,
    )
    say(f"feie evaluate --runs {runs} --split test")
    scores = evaluate.run(
        evaluate.EvaluateOptions(run=Path(trained.run), split="test"),
        progress,
    )
    return DemoResult(
        extract=extracted,
        train_head=trained,
        evaluate=scores,
        seconds=round(time.monotonic() - started, 1),
    )


def _announcer(progress: ProgressCallback) -> Callable[[str], None]:
    steps = iter(range(1, 4))

    def say(command: str) -> None:
        progress(Progress("steps", next(steps), 3, message=f"$ {command}"))

    return say
