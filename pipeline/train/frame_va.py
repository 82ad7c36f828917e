"""`feie.train_frame_va`, as feie 0.1.0 called `feie.train_head` with ``head="frame-va"``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from feie.heads.config import HALF_WINDOW, Space
from feie.pipeline.options import Options, split_commas
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.train import job
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.result import TrainHeadResult


class TrainFrameVaOptions(Options):
    """Options of `feie.pipeline.train.options.TrainHeadOptions` that 0.1.0 had for this head."""

    store: str = "features.zarr"
    labels: Path = Path("labels.csv")
    subset: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None, BeforeValidator(split_commas)
    ] = None
    runs: Path = Path("runs")
    name: str | None = None
    seed: int = 0
    lr: float | None = None
    batch: int | None = None
    epochs: int | None = None
    box: int = HALF_WINDOW
    space: Space = "logit"
    unmatched: float = 0.05


def run(options: TrainFrameVaOptions, progress: ProgressCallback = silent) -> TrainHeadResult:
    """Train a head of frames; see `feie.train_head`.

    Raises
    ------
    FeieError
        Store and labels cannot be used together, or the folder cannot be written.
    """
    return job.run(
        TrainHeadOptions.model_validate({"head": "frame-va", **options.model_dump()}), progress
    )
