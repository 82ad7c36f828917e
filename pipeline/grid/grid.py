"""A grid of trainings: a folder of runs, trained side by side or stacked, resumable and exact.

Every point of a grid is a run of `feie train-head` in a folder of its own. Finished runs are kept,
others go on at their last saved epoch, so that a grid that was killed ends with the same heads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from feie.features.errors import HeadError, UsageError
from feie.heads.config import MrnnOptions
from feie.heads.measures.metrics import known, mean_defined
from feie.heads.runs.checkpoint import HEAD_JSON
from feie.heads.runs.files import disk_errors, read_json, write_json
from feie.heads.training.stacked import pays
from feie.pipeline.grid.options import Stack
from feie.pipeline.grid.processes import RunGroup, train_all
from feie.pipeline.progress import Progress, ProgressCallback
from feie.pipeline.train.options import TrainHeadOptions

_STACK_ON_CPU = 8
"""Runs a stack on a CPU: more of them only lengthen the way to the first finished head."""


@dataclass(frozen=True)
class Trained:
    """What became of a grid.

    Attributes
    ----------
    trained, kept : int
        Runs that were trained now; runs that were finished before.
    failed : dict of str to str
        Runs without a head, with the reason.
    """

    trained: int
    kept: int
    failed: dict[str, str]


@contextmanager
def grid_folder(
    folder: Path,
    file: str,
    plan: Mapping[str, Any],
    kind: str,
    cure: str,
    older: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Iterator[None]:
    """Hold a folder for this process alone, for one plan.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    file : str
        Where in the folder the plan is kept.
    plan : mapping
        Everything that a result depends on: ``options`` by name, and other entries.
    kind : str
        What stands in messages, e.g. ``sweep``.
    cure : str
        The option that chooses another folder.
    older : callable
        Brings a plan of an earlier version to the form of this one.

    Raises
    ------
    HeadError
        Another process works in it.
    UsageError
        Another plan was begun in it.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(folder / ".lock").acquire(timeout=0)
        except Timeout:
            raise HeadError(f"another {kind} works in {folder}; wait, or choose {cure}") from None
    with held:
        _check_plan(folder / file, plan, kind, cure, older)
        yield


def _check_plan(
    path: Path,
    plan: Mapping[str, Any],
    kind: str,
    cure: str,
    older: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    if not path.exists():
        write_json(path, dict(plan))
        return
    there = older(read_json(path))
    if there == plan:
        return
    old, new = there.get("options", {}), plan["options"]
    changed = [f"--{k}".replace("_", "-") for k in {**old, **new} if old.get(k) != new.get(k)]
    changed += [f"the {k}" for k in plan if k != "options" and there.get(k) != plan[k]]
    raise UsageError(
        f"{path.parent} holds another {kind}, which differs in {', '.join(changed)}; repeat that "
        f"one to go on with it, or choose another {cure}"
    )


def place_of(run: TrainHeadOptions) -> Path:
    """Give the folder of a run."""
    return run.runs / str(run.name)


def read_training(run: TrainHeadOptions) -> dict[str, Any] | None:
    """Give what a finished run notes of its training; None while it has no head."""
    path = place_of(run) / HEAD_JSON
    if not path.exists():
        return None
    found: dict[str, Any] = read_json(path)["training"]
    return found


def spread(figures: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Give mean and standard deviation (n - 1) of the figures that are defined.

    Returns
    -------
    mean, sd : float or None
        None without a figure; the sd needs two.
    """
    values = np.array(figures, dtype=np.float64)
    defined = values[~np.isnan(values)]
    sd = float(defined.std(ddof=1)) if len(defined) > 1 else None
    return known(mean_defined(values)), sd


def train_grid(
    runs: Sequence[TrainHeadOptions],
    share: Callable[[Sequence[TrainHeadOptions]], tuple[list[RunGroup], int]],
    progress: ProgressCallback,
) -> Trained:
    """Train what is not yet trained of a grid.

    Parameters
    ----------
    runs : sequence of TrainHeadOptions
        Its points, each with a name of its own.
    share : callable
        Cuts the runs that are left into groups, and says how many processes are to do them.
    progress : callable

    Raises
    ------
    FeieError
        Store, labels or folders cannot be used, or a process died; what was done is kept.
    """
    left = {str(run.name): run for run in runs if read_training(run) is None}
    kept, failed = len(runs) - len(left), dict[str, str]()
    most = {name: run.training().epochs for name, run in left.items()}
    done, ended = dict.fromkeys(left, 0), kept

    def report(message: str = "") -> None:
        info = {"runs": f"{ended}/{len(runs)}"}
        total = sum(most.values())
        progress(Progress("epochs", sum(done.values()), total, info=info, message=message))

    def on_epoch(name: str, epoch: int) -> None:
        done[name] = epoch
        report()

    if kept:
        report(f"{kept} runs were finished before")
    groups, jobs = share(list(left.values()))
    if groups:
        with closing(train_all(groups, jobs, on_epoch)) as endings:
            for name, failure in endings:
                done[name] = most[name]
                if failure:
                    failed[name] = failure
                    report(f"{name} failed: {failure}")
                else:
                    ended += 1
                    report(_found(left[name]))
    return Trained(len(left) - len(failed), kept, failed)


def _found(run: TrainHeadOptions) -> str:
    noted = read_training(run) or {}
    figure = noted["val_pearson"]
    return (
        f"{run.name}: validation Pearson {float('nan') if figure is None else figure:.3f} "
        f"(epoch {noted['best_epoch']} of {noted['epochs_trained']})"
    )


def cores() -> int:
    """Count the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_out(
    runs: Sequence[TrainHeadOptions],
    device: torch.device,
    jobs: int | None = None,
    stack: Stack = "auto",
) -> tuple[list[RunGroup], int]:
    """Cut runs into groups: alone, or in stacks of those that differ in seed and columns only.

    Parameters
    ----------
    runs : sequence of TrainHeadOptions
    device : torch.device
        ``cuda`` without a number stands for all GPUs.
    jobs : int, optional
        Processes; one a core or GPU by default.
    stack : {"auto", "on", "off"}
        ``auto``: where it is faster.

    Raises
    ------
    UsageError
        Single runs on a GPU.
    """
    on_cpu = device.type == "cpu"
    if stack == "off" and not on_cpu:
        raise UsageError("--stack off trains on the CPU only; give --device cpu")
    devices = [str(device)]
    if str(device) == "cuda":
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    jobs = jobs or (cores() if on_cpu else len(devices))
    stacks: dict[str, list[TrainHeadOptions]] = {}
    groups = []
    for run in sorted(runs, key=_cost, reverse=True):  # none of the long ones at the end, alone
        if stack == "on" or (stack == "auto" and pays(device, run.training().batch)):
            alike = run.model_dump_json(exclude={"seed", "subset", "name"})
            stacks.setdefault(alike, []).append(run)
        else:
            groups.append(RunGroup((run,), False, "cpu"))
    for alike_runs in stacks.values():
        # Side by side rather than all in one, as far as there are processes or devices.
        size = -(-len(alike_runs) // (jobs if on_cpu else len(devices)))
        size = min(_STACK_ON_CPU, size) if on_cpu else size
        for i in range(0, len(alike_runs), size):
            on = devices[i // size % len(devices)]
            groups.append(RunGroup(tuple(alike_runs[i : i + size]), True, on))
    return groups, jobs


def _cost(run: TrainHeadOptions) -> int:
    """Compare how long runs take, roughly."""
    head = run.head
    if not isinstance(head, MrnnOptions):
        return 0
    gates = 4 if head.cell == "lstm" else 3
    return gates * head.layers * head.width**2 * (1 if head.mask else 2)
