"""`feie train-head`: a head from a store and a label file, in minutes."""

from __future__ import annotations

import time

from feie.heads.config import MEASURE_NAMES
from feie.heads.models.plugin import use_heads
from feie.heads.runs.checkpoint import find_run
from feie.heads.training.threads import one_thread
from feie.heads.training.trainer import Epoch, Trainer
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.train.data import read_training_data
from feie.pipeline.train.log import Logbook
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.result import TrainHeadResult
from feie.pipeline.train.run import HeadRun, begin, finish, stored_options


def run(options: TrainHeadOptions, progress: ProgressCallback = silent) -> TrainHeadResult:
    """Train a head on the training split, choose its epoch on the validation split.

    The test split is not read. The run folder gets the head (`head.safetensors`, `head.json`),
    `training.csv` and `videos.csv`; until it ends, a state from which ``resume`` goes on to the
    same result as an undisturbed run.

    Raises
    ------
    FeieError
        Store, labels or options cannot be used, or the run folder cannot be written.
    """
    clock = time.monotonic()
    use_heads([options.head.name])
    if options.resume is not None:
        folder = find_run(options.resume, options.runs)
        options = stored_options(folder)
    else:
        folder = None
    data = read_training_data(options)
    for note in data.notes:
        progress(Progress("epochs", 0, message=note))
    resumed = folder is not None
    head_run = begin(options, data, folder)
    if not resumed and options.name not in (None, head_run.folder.name):
        said = f"{options.runs / str(options.name)} was there already: this run is "
        progress(Progress("epochs", 0, message=f"{said}{head_run.folder}, for --run to name"))
    with one_thread():
        _train(head_run, progress)
        return finish(head_run, time.monotonic() - clock)


def _train(run: HeadRun, progress: ProgressCallback) -> None:
    """Train to the end."""
    trainer, total, book = run.trainer, run.trainer.config.epochs, Logbook(run)
    for epoch in trainer.epochs():
        book.note(epoch)
        progress(_report(epoch, trainer, total))
    if len(trainer.history) < total:
        progress(
            Progress(
                "epochs", total, total,
                message=f"stopped after epoch {len(trainer.history)}: no better validation "
                f"{MEASURE_NAMES[trainer.measure]} since epoch {trainer.best_epoch}",
            )
        )  # fmt: skip


def _report(epoch: Epoch, trainer: Trainer, total: int) -> Progress:
    return Progress(
        "epochs",
        epoch.epoch,
        total,
        info={
            "loss": round(epoch.train_loss, 4),
            "val ρ" if trainer.measure == "pearson" else "val CCC": round(epoch.val_score, 4),
            "best": round(trainer.best_score, 4),
        },
    )
