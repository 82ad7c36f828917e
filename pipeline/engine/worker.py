"""What a worker of a cluster runs: a parcel of videos through an isolated engine of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from feie.features.video.sources import Source
from feie.pipeline.engine.isolated import IsolatedEngine
from feie.pipeline.engine.options import ExtractOptions, cores
from feie.pipeline.engine.protocol import Finished, Provenance

_IDLE_SECONDS = 60.0  # an engine that nobody asks for any more gives its memory back

_lock = threading.Lock()
_engines: dict[str, list[tuple[IsolatedEngine, threading.Timer]]] = {}


@dataclass
class Parcel:
    """What became of some videos, and what made the numbers."""

    provenance: Provenance
    detector: dict[str, Any] | None
    frames: int
    finished: list[Finished]


def extract_parcel(
    options: ExtractOptions, sources: Sequence[Source], gpus: tuple[int, ...] = ()
) -> Parcel:
    """Extract some videos on this worker of a cluster.

    Parameters
    ----------
    options : ExtractOptions
        Without ``threads``, the worker's task slots share its cores.
    sources : sequence of Source
        Their paths as this machine sees them; none to learn what the engine makes.
    gpus : tuple of int
        With a local cluster: worker ``i`` uses GPU ``gpus[i]``.
    """
    with _borrowed(_for_this_worker(options, gpus)) as engine:
        before = engine.frames
        finished = [item for item in engine.records(sources) if item is not None]
        return Parcel(engine.provenance, engine.detector, engine.frames - before, finished)


def dask_setup(_: object) -> None:
    """Leave Ctrl-C, and SLURM's notice, to the coordinator: dask calls this at a worker's start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def close_idle() -> None:
    """End the engines that wait on this worker for more to do."""
    with _lock:
        waiting = [pair for pairs in _engines.values() for pair in pairs]
        _engines.clear()
    for engine, timer in waiting:
        timer.cancel()
        engine.close()


def _for_this_worker(options: ExtractOptions, gpus: tuple[int, ...]) -> ExtractOptions:
    from distributed import get_worker

    worker = get_worker()
    changes: dict[str, Any] = {"workers": None, "gpus": None, "scheduler": None}
    if options.threads is None:
        changes["threads"] = max(1, cores() // max(1, worker.state.nthreads))
    if gpus:
        changes["device"] = f"cuda:{gpus[int(worker.name)]}"
    return options.model_copy(update=changes)


@contextmanager
def _borrowed(options: ExtractOptions) -> Iterator[IsolatedEngine]:
    """Take an engine that waits for work, or start one; it waits again afterwards."""
    key = options.model_dump_json()
    with _lock:
        pairs = _engines.get(key, [])
        engine, timer = pairs.pop() if pairs else (None, None)
    if timer is not None:
        timer.cancel()
    engine = engine or IsolatedEngine(options)
    try:
        yield engine
    except BaseException:
        engine.close()
        raise
    timer = threading.Timer(_IDLE_SECONDS, _drop, (key, engine))
    timer.daemon = True
    with _lock:
        _engines.setdefault(key, []).append((engine, timer))
    timer.start()


def _drop(key: str, engine: IsolatedEngine) -> None:
    with _lock:
        pairs = _engines.get(key, [])
        kept = [pair for pair in pairs if pair[0] is not engine]
        dropped = len(kept) < len(pairs)
        _engines[key] = kept
    if dropped:
        engine.close()
