"""Training the runs of an ablation: one by one or stacked, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from feie.features.errors import FeieError, HeadError
from feie.heads.training.stacked import stack_key, train_stacked
from feie.heads.training.threads import one_thread
from feie.heads.training.trainer import Epoch
from feie.pipeline.train.data import TrainingData, read_training_data
from feie.pipeline.train.log import Logbook
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.run import OPTIONS, HeadRun, begin, finish

Notice = Callable[[str, int, str], None]
"""Called with a run's name, its epochs so far, and what failed (or nothing)."""

READ = {"store", "labels", "subset", "targets", "t", "frame_stride", "missing", "long", "space",
        "unmatched", "missing_label"}  # fmt: skip
"""Options that say what is read: runs that agree in them share it."""
_FAREWELL = 10.0  # seconds given to workers to end by themselves


@dataclass(frozen=True)
class Task:
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


class TaskTrainer:
    """Trains tasks one after the other, and keeps what was read for the next one."""

    def __init__(self, notice: Notice) -> None:
        self._notice = notice
        self._read: dict[str, TrainingData] = {}

    def train(self, task: Task) -> None:
        """Train all runs of a task to the end.

        A run that diverges, or never has a defined validation Pearson, is noted as failed.

        Raises
        ------
        FeieError
            Store, labels or folders cannot be used.
        """
        self._read = {self._key(o): self._data(o) for o in task.runs}
        runs = [_begin(o, self._read[self._key(o)]) for o in task.runs]
        with one_thread():
            if not task.stacked:
                self._train_one(runs[0])
                return
            groups: dict[object, list[HeadRun]] = {}
            for run in runs:
                groups.setdefault(stack_key(run.trainer), []).append(run)
            for group in groups.values():
                self._train_group(group, torch.device(task.device))

    def _train_one(self, run: HeadRun) -> None:
        clock, book = time.monotonic(), Logbook(run)
        try:
            for epoch in run.trainer.epochs():
                self._note(run, book, epoch)
        except HeadError as error:
            self._fail(run, error)
            return
        self._finish(run, clock)

    def _train_group(self, runs: Sequence[HeadRun], device: torch.device) -> None:
        clock, books = time.monotonic(), [Logbook(run) for run in runs]
        for run in runs:
            if run.trainer.finished:  # killed between its last epoch and its head
                self._finish(run, clock)
        for number, ended in train_stacked([run.trainer for run in runs], device):
            run = runs[number]
            if isinstance(ended, HeadError):
                self._fail(run, ended)
                continue
            self._note(run, books[number], ended)
            if run.trainer.finished:
                self._finish(run, clock)

    def _note(self, run: HeadRun, book: Logbook, epoch: Epoch) -> None:
        book.note(epoch)
        self._notice(str(run.options.name), epoch.epoch, "")

    def _fail(self, run: HeadRun, error: HeadError) -> None:
        self._notice(str(run.options.name), run.trainer.config.epochs, str(error))

    def _finish(self, run: HeadRun, clock: float) -> None:
        try:
            finish(run, time.monotonic() - clock)
        except HeadError as error:
            self._fail(run, error)
        else:
            self._notice(str(run.options.name), run.trainer.config.epochs, "")

    def _data(self, options: TrainHeadOptions) -> TrainingData:
        return self._read.get(self._key(options)) or read_training_data(options)

    @staticmethod
    def _key(options: TrainHeadOptions) -> str:
        """Say what a run reads."""
        return f"{options.head.config.unit} {options.model_dump_json(include=READ)}"


def _begin(options: TrainHeadOptions, data: TrainingData) -> HeadRun:
    """Begin a run, or take it up where a killed ablation left it."""
    folder = options.runs / str(options.name)
    if (folder / OPTIONS).exists():
        return begin(options, data, folder)
    shutil.rmtree(folder, ignore_errors=True)  # killed before it had put down its options
    return begin(options, data)


def train_all(tasks: Sequence[Task], jobs: int, notice: Notice) -> None:
    """Train all tasks, in so many processes.

    Raises
    ------
    FeieError
        Of a task; or a process died.
    """
    if jobs == 1 or len(tasks) == 1:
        trainer = TaskTrainer(notice)
        for task in tasks:
            trainer.train(task)
        return
    context = multiprocessing.get_context("spawn")
    waiting, events = context.Queue(), context.Queue()
    for task in tasks:
        waiting.put(task)
    count = min(jobs, len(tasks))
    for _ in range(count):
        waiting.put(None)
    workers = [
        context.Process(target=_work, args=(waiting, events), daemon=True) for _ in range(count)
    ]
    try:
        for worker in workers:
            worker.start()
        for event in _events(events, workers):
            if isinstance(event, FeieError):
                raise event
            notice(*event)
        for worker in workers:  # killed while they leave, they would leave semaphores behind
            worker.join(_FAREWELL)
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
                worker.join()
        waiting.cancel_join_thread()  # tasks that nobody takes any more would hold up the exit


def _events(events: Any, workers: Sequence[Any]) -> Iterator[Any]:
    """Give what the workers report, until each has said that it is done."""
    left = len(workers)
    while left:
        try:
            event = events.get(timeout=1)
        except queue.Empty:
            if dead := [w.exitcode for w in workers if w.exitcode not in (None, 0)]:
                raise HeadError(
                    f"a training process died (exit code {dead[0]}), perhaps for want of memory; "
                    f"the same command goes on, --jobs 1 needs less"
                ) from None
            continue
        if event is None:
            left -= 1
        else:
            yield event


def _work(waiting: Any, events: Any) -> None:
    """Train tasks until there are none: the life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    trainer = TaskTrainer(lambda *event: events.put(event))
    try:
        while (task := waiting.get()) is not None:
            trainer.train(task)
    except FeieError as error:
        events.put(error)
    events.put(None)


def _die_with_parent() -> None:
    """Leave no orphan that would go on to write into folders that a resumed ablation uses."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
