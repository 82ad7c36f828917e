"""A training's log: CSV, TensorBoard where it is asked for, and the state that is put down."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from feie.features.errors import UsageError
from feie.heads.runs.checkpoint import STATE
from feie.heads.runs.files import save_tensors, write_atomically
from feie.heads.training.trainer import Epoch
from feie.pipeline.train.run import HeadRun

LOG = "training.csv"


class Logbook:
    """Writes every epoch of a run to its log, and puts its state down now and then."""

    def __init__(self, run: HeadRun) -> None:
        self._run, self._every = run, run.options.checkpoint_seconds
        self._lines = _read_log(run.folder / LOG)[: len(run.trainer.history)]
        self._saved = self._clock = time.monotonic()
        done = len(run.trainer.history)
        self._board = _tensorboard(run.folder, done) if run.options.tensorboard else None

    def note(self, epoch: Epoch) -> None:
        """Take note of the epoch that has just ended."""
        folder, trainer, now = self._run.folder, self._run.trainer, time.monotonic()
        seconds, self._clock = now - self._clock, now
        rate = trainer.optimiser.param_groups[0]["lr"]
        self._lines.append(
            f"{epoch.epoch},{epoch.train_loss!r},{epoch.val_score!r},{rate!r},{seconds:.3f}"
        )
        measure = trainer.measure
        header = f"epoch,train_loss,val_{measure},lr,seconds"
        write_atomically(folder / LOG, ("\n".join([header, *self._lines]) + "\n").encode())
        if self._board is not None:
            self._board.add_scalar("loss/train", epoch.train_loss, epoch.epoch)
            self._board.add_scalar(f"{measure}/val", epoch.val_score, epoch.epoch)
            self._board.add_scalar("lr", rate, epoch.epoch)
            self._board.flush()
        if now - self._saved >= self._every and not trainer.finished:
            save_tensors(folder / STATE, *trainer.state())
            self._saved = time.monotonic()


def _tensorboard(folder: Path, done: int) -> Any:
    """Open TensorBoard's log; what a killed run wrote past its last state is dropped there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs TensorBoard: pip install 'feie[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)


def _read_log(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except FileNotFoundError:
        return []
