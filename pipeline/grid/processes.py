"""Training many runs: one by one or stacked, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from feie.features.errors import HeadError
from feie.heads.training.stacked import stack_key, train_stacked
from feie.heads.training.threads import one_thread
from feie.heads.training.trainer import Epoch
from feie.pipeline.train.data import TrainingData, read_training_data
from feie.pipeline.train.log import Logbook
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.run import OPTIONS, HeadRun, begin, finish

OnEpoch = Callable[[str, int], None]
"""Called with a run's name and its epochs so far."""
Ended = tuple[str, str]
"""A run's name, and why it has no head; empty where it has one."""

READ = {"store", "labels", "subset", "targets", "t", "frame_stride", "missing", "long", "space",
        "unmatched"}  # fmt: skip
"""Options that say what is read: runs that agree in them share it."""
_TICK = 0.2  # seconds between two looks at what workers report


@dataclass(frozen=True)
class RunGroup:
    """Runs that one process trains together.

    Attributes
    ----------
    runs : tuple of TrainHeadOptions
    stacked : bool
        In one stack; otherwise there is a single run.
    device : str
    """

    runs: tuple[TrainHeadOptions, ...]
    stacked: bool
    device: str


class GroupTrainer:
    """Trains groups of runs one after the other, and keeps what was read for the next one."""

    def __init__(self, on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self._read: dict[str, TrainingData] = {}

    def train(self, group: RunGroup) -> Iterator[Ended]:
        """Train all runs of a group to the end, and tell of each how it ended.

        A run that diverges, or never has a defined validation figure, is one without a head.

        Raises
        ------
        FeieError
            Store, labels or folders cannot be used.
        """
        self._read = {self._key(o): self._data(o) for o in group.runs}
        runs = [_begin(o, self._read[self._key(o)]) for o in group.runs]
        with one_thread():
            if not group.stacked:
                yield self._train_one(runs[0])
                return
            alike: dict[object, list[HeadRun]] = {}
            for run in runs:
                alike.setdefault(stack_key(run.trainer), []).append(run)
            for stack in alike.values():
                yield from self._train_stack(stack, torch.device(group.device))

    def _train_one(self, run: HeadRun) -> Ended:
        clock, book = time.monotonic(), Logbook(run)
        try:
            for epoch in run.trainer.epochs():
                self._note(run, book, epoch)
        except HeadError as error:
            return str(run.options.name), str(error)
        return _finish(run, clock)

    def _train_stack(self, runs: Sequence[HeadRun], device: torch.device) -> Iterator[Ended]:
        clock, books = time.monotonic(), [Logbook(run) for run in runs]
        for run in runs:
            if run.trainer.finished:  # killed between its last epoch and its head
                yield _finish(run, clock)
        for number, ended in train_stacked([run.trainer for run in runs], device):
            run = runs[number]
            if isinstance(ended, HeadError):
                yield str(run.options.name), str(ended)
                continue
            self._note(run, books[number], ended)
            if run.trainer.finished:
                yield _finish(run, clock)

    def _note(self, run: HeadRun, book: Logbook, epoch: Epoch) -> None:
        book.note(epoch)
        self._on_epoch(str(run.options.name), epoch.epoch)

    def _data(self, options: TrainHeadOptions) -> TrainingData:
        return self._read.get(self._key(options)) or read_training_data(options)

    @staticmethod
    def _key(options: TrainHeadOptions) -> str:
        """Say what a run reads."""
        return f"{options.head.config.unit} {options.model_dump_json(include=READ)}"


def _begin(options: TrainHeadOptions, data: TrainingData) -> HeadRun:
    """Begin a run, or take it up where a killed grid left it."""
    folder = options.runs / str(options.name)
    if (folder / OPTIONS).exists():
        return begin(options, data, folder)
    shutil.rmtree(folder, ignore_errors=True)  # killed before it had put down its options
    return begin(options, data)


def _finish(run: HeadRun, clock: float) -> Ended:
    try:
        finish(run, time.monotonic() - clock)
    except HeadError as error:
        return str(run.options.name), str(error)
    return str(run.options.name), ""


def train_all(
    groups: Sequence[RunGroup], jobs: int, on_epoch: OnEpoch
) -> Generator[Ended, None, None]:
    """Train all groups in so many processes; gives how each run ended, as it ends.

    Raises
    ------
    FeieError
        Of a group; or a process died.
    """
    if jobs == 1 or len(groups) == 1:
        trainer = GroupTrainer(on_epoch)
        for group in groups:
            yield from trainer.train(group)
        return
    with _workers(min(jobs, len(groups))) as (pool, reports):
        left: set[Future[None]] = {pool.submit(_train, group) for group in groups}
        try:
            while left:
                done, left = wait(left, timeout=_TICK, return_when="FIRST_COMPLETED")
                # What is done has reported: a worker writes to the pipe before it returns.
                yield from _told(reports, on_epoch)
                for future in done:
                    future.result()
            pool.shutdown()
        except BrokenProcessPool:
            raise HeadError(
                "a training process died, perhaps for want of memory; the same command goes on, "
                "--jobs 1 needs less"
            ) from None


@contextmanager
def _workers(count: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Start processes that end with this block, however it ends, and with this process."""
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _begin_work, (reports, watched))
    try:
        yield pool, reports
    finally:
        held.close()  # at once, in the middle of an epoch; all that counts is on the disk
        watched.close()
        pool.shutdown(cancel_futures=True)
        reports.close()


def _told(reports: Any, on_epoch: OnEpoch) -> Iterator[Ended]:
    """Pass on what workers have reported by now."""
    while not reports.empty():
        name, epoch, *ended = reports.get()
        if ended:
            yield name, ended[0]
        else:
            on_epoch(name, epoch)


# In a worker process: what `_begin_work` puts here, `_train` uses.
_trainer: GroupTrainer
_reports: Any


def _begin_work(reports: Any, watched: Any) -> None:
    global _trainer, _reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    # The parent holds the other end and never writes: what comes is the end of it, or of this grid.
    threading.Thread(target=_leave_with, args=(watched,), daemon=True).start()
    _reports, _trainer = reports, GroupTrainer(lambda name, epoch: reports.put((name, epoch)))


def _leave_with(watched: Any) -> None:
    """Leave no orphan that would write into folders that a resumed grid uses."""
    try:
        watched.recv()
    except (EOFError, OSError):
        os._exit(1)


def _train(group: RunGroup) -> None:
    for name, failure in _trainer.train(group):
        _reports.put((name, 0, failure))
