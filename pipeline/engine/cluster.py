"""Stage one on dask.distributed: parcels of videos go out, records come back in order."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from os.path import expanduser
from pathlib import Path
from typing import Any

import dask
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, wait
from distributed.security import Security

from feie.features.errors import EngineError, FeieError, UsageError, VideoError, one_line
from feie.features.faces.detectors import absolute_detector
from feie.features.video.sources import Source
from feie.pipeline.engine import worker as remote
from feie.pipeline.engine.options import ExtractOptions, absolute_extractor, cores
from feie.pipeline.engine.protocol import Finished, Provenance, failure
from feie.pipeline.guard import refuse_unguarded
from feie.pipeline.progress import Progress, ProgressCallback, silent

_TICK = 1.0  # seconds after which a waiting caller gets a word
_PARCEL_VIDEOS = 16  # a thread: enough to fill batches and to hide a parcel's ends
_PARCEL_BYTES = 512 << 20  # of video files: what one lost worker costs
_AHEAD = 3  # parcels a task slot that are out or wait for an earlier one
_CONNECT_SECONDS = 30
_NO_WORKER_SECONDS = 120  # after which workers of this machine do not come back
_UNPROTECTED = (
    "the connection to this scheduler is plain tcp://: whoever reaches its ports can read what is "
    "sent and run code as you on its workers; tls:// prevents that (docs/extract-at-scale.md)"
)


@dataclass
class _Out:
    """Videos that are out, or that wait to be tried alone (no future yet)."""

    sources: list[Source]
    future: Future | None = None
    alone: bool = False


class ClusterEngine:
    """Engines on the workers of a cluster; see `results.Engine`.

    Each worker isolates its videos as `isolated.IsolatedEngine` does. dask does a parcel again
    when it loses the worker. If it gives up, having lost one worker too many with that parcel on
    its list, each video of it is tried alone: one that loses its workers then is recorded as
    failed. Results come back in the order of the sources, and only so many parcels are out
    at a time that neither this process nor the workers hold more than a few.

    Parameters
    ----------
    options : ExtractOptions
        With ``scheduler``, that cluster is used, and paths must mean the same on its workers;
        else ``workers`` processes are started here, one a GPU of ``gpus`` if that is given.
    progress : callable
        Told when there is no worker yet.

    Raises
    ------
    FeieError
        The cluster is not there, or its workers lack weights.
    """

    def __init__(self, options: ExtractOptions, progress: ProgressCallback = silent) -> None:
        self._gpus = options.gpus or ()
        self._cluster: LocalCluster | None = None
        self._out: deque[_Out] = deque()
        self._worker_seen = time.monotonic()
        self.detector: dict[str, Any] | None = None
        self.frames = 0
        if options.scheduler:
            self._options = options.model_copy(update=_absolute(options))
            self._client = _connect(options.scheduler)
            if self._client.scheduler.address.startswith("tcp://"):
                progress(Progress("workers", 0, None, {}, _UNPROTECTED))
        else:
            refuse_unguarded("--gpus" if self._gpus else "--workers")
            workers = options.workers or len(self._gpus)
            threads = options.threads or max(1, cores() // workers)
            self._options = options.model_copy(update={"threads": threads})
            self._cluster = _start_cluster(workers, options.dashboard)
            if options.dashboard:
                told = f"dashboard, for every user of this machine: {self._cluster.dashboard_link}"
                progress(Progress("workers", 0, None, {}, told))
            self._client = Client(self._cluster, set_as_default=False)
        try:
            self.provenance: Provenance = self._ask(progress)
        except BaseException:
            self.close()
            raise

    def _ask(self, progress: ProgressCallback) -> Provenance:
        """Let a worker load its engine, to learn what it makes."""
        future = self._submit([])
        told = False
        while not self._is_over(future):
            if not told and not self._client.nthreads():
                progress(Progress("workers", 0, None, {}, "the cluster has no worker yet; waiting"))
                told = True
        parcel = _result(future)
        if parcel is None:
            raise EngineError("workers die while they load the network: is their memory enough?")
        return parcel.provenance

    def close(self) -> None:
        """Take back what is out; end the cluster if it was started here."""
        with suppress(Exception):  # what is gone already is fine
            self._client.cancel([out.future for out in self._out if out.future is not None])
            if self._cluster is None:
                self._client.run(remote.close_idle)
        with suppress(Exception):
            self._client.close(timeout=_TICK)
        if self._cluster is not None:
            with suppress(Exception):
                self._cluster.close(timeout=10 * _TICK)

    def records(self, sources: Iterable[Source]) -> Iterator[Finished | None]:
        """Work through the sources.

        Yields
        ------
        Finished or None
            One a source, in their order. None where a second has passed without one.

        Raises
        ------
        FeieError
            Something that no other video would survive either.
        """
        listed = [replace(source, path=source.path.absolute()) for source in sources]
        parcels = _parcels(listed, self._parcel_videos(len(listed)))
        while True:
            if not self._suspects():
                for parcel in itertools.islice(parcels, max(0, self._room() - len(self._out))):
                    self._out.append(_Out(parcel, self._submit(parcel)))
            if not self._out:
                return
            head = self._out[0]
            if head.future is None:
                # Alone on the cluster, so that no other can be what loses its worker.
                if not all(self._is_over(o.future) for o in self._out if o.future is not None):
                    yield None
                    continue
                head.future, head.alone = self._submit(head.sources), True
            if not self._is_over(head.future):
                yield None
                continue
            self._out.popleft()
            result = _result(head.future)
            if result is not None:
                self._take_over(result)
                yield from result.finished
            elif head.alone:
                [source] = head.sources
                told = f"{source.relative} was lost with its worker, again and again"
                yield failure(source, VideoError("worker-lost", told))
            else:
                self._out.extendleft(_Out([source]) for source in reversed(head.sources))

    def _suspects(self) -> bool:
        return any(out.future is None for out in self._out)

    def _slots(self) -> int:
        """Tasks that the cluster runs at a time; workers may come and go."""
        slots: int = sum(self._client.nthreads().values())
        return max(1, slots)

    def _room(self) -> int:
        return _AHEAD * self._slots()

    def _parcel_videos(self, videos: int) -> int:
        most = _PARCEL_VIDEOS * (self._options.threads or 1)
        return max(1, min(most, math.ceil(videos / (4 * self._slots()))))

    def _submit(self, sources: list[Source]) -> Future:
        return self._client.submit(
            remote.extract_parcel,
            self._options,
            sources,
            self._gpus,
            pure=False,
        )

    def _is_over(self, future: Future) -> bool:
        """Wait a tick for the end of a task, good or bad."""
        with self._client.as_current(), suppress(CancelledError):  # `_result` says so
            try:
                wait(future, timeout=_TICK)
            except TimeoutError:
                self._refuse_empty()
                return False
        return True

    def _refuse_empty(self) -> None:
        """Stop where all workers of this machine are gone; those of elsewhere may come later.

        dask starts lost workers anew, and gives that up on a machine that is too busy.
        """
        if self._cluster is None or self._client.nthreads():
            self._worker_seen = time.monotonic()
        elif time.monotonic() - self._worker_seen > _NO_WORKER_SECONDS:
            raise EngineError(
                "no worker process has been running for "
                f"{_NO_WORKER_SECONDS} s, and none comes back: is the machine overloaded, or "
                "out of memory? What was committed is safe, the same command goes on"
            )

    def _take_over(self, parcel: remote.Parcel) -> None:
        """Note what a worker says of its numbers; all workers must make the same."""
        for what, ours, theirs in (
            ("extractor", self.provenance.extractor, parcel.provenance.extractor),
            ("detector", self.detector or parcel.detector, parcel.detector or self.detector),
            ("device", _kind(self.provenance.device), _kind(parcel.provenance.device)),
            ("versions", self.provenance.versions, parcel.provenance.versions),
        ):
            if ours != theirs:
                raise UsageError(
                    f"workers differ in {what}: {_difference(ours, theirs)}; give all the same"
                )
        self.detector = parcel.detector or self.detector
        self.frames += parcel.frames


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _difference(ours: object, theirs: object) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        key = min(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
        return f"{key} is {ours.get(key)} and {theirs.get(key)}"
    return f"{ours} and {theirs}"


def _parcels(sources: list[Source], videos: int) -> Iterator[list[Source]]:
    """Cut the sources into runs of at most so many videos and, past the first, so many bytes."""
    parcel: list[Source] = []
    size = 0
    for source in sources:
        if parcel and (len(parcel) >= videos or size + source.size > _PARCEL_BYTES):
            yield parcel
            parcel, size = [], 0
        parcel.append(source)
        size += source.size
    if parcel:
        yield parcel


def _result(future: Future) -> remote.Parcel | None:
    """Give what a task gave; None where its worker was lost again and again."""
    try:
        parcel: remote.Parcel = future.result()
        return parcel
    except (FeieError, MemoryError):
        raise
    except KilledWorker:
        return None
    except CancelledError as error:
        raise EngineError(
            "the cluster's scheduler is gone; what was committed is safe, the same command goes on"
        ) from error
    except Exception as error:  # such as a worker without feie
        text = f"{type(error).__name__}: {error}"
        raise EngineError(f"a worker of the cluster cannot extract ({text})") from error


def _start_cluster(workers: int, dashboard: bool = False) -> LocalCluster:
    """Start worker processes that nobody but this run can talk to.

    Scheduler, workers and their nannies speak TLS with a certificate that is made here, lives in
    memory only and that both sides must show: without it, every user of the machine could run
    code in them. Their HTTP servers answer nothing, but for the dashboard where it is asked for.
    """
    if dashboard and find_spec("bokeh") is None:
        raise UsageError("--dashboard needs bokeh: pip install bokeh")
    settings: dict[str, Any] = {
        # A video that kills two workers has had its chances.
        "distributed.scheduler.allowed-failures": 1,
        "distributed.worker.http.routes": [],
    }
    if not dashboard:
        settings["distributed.scheduler.http.routes"] = []
    with dask.config.set(settings):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # it is the user's to share out
            security=Security.temporary(),
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": dashboard},
            silence_logs=logging.CRITICAL,
            preload=[remote.__name__],
        )


def _connect(scheduler: str) -> Client:
    """Connect to ``tcp://…``, ``tls://…``, or what a scheduler wrote to its ``--scheduler-file``.

    Certificates and keys for ``tls://`` are those of dask's own settings.
    """
    security = Security()
    try:
        file = Path(scheduler)
        address = json.loads(file.read_text())["address"] if file.is_file() else scheduler
        if not address.startswith("tls://") or security.tls_ca_file is not None:
            return Client(
                address, security=security, timeout=_CONNECT_SECONDS, set_as_default=False
            )
    except (OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
        raise UsageError(f"no dask scheduler answers at {scheduler} ({one_line(error)})") from error
    raise UsageError(
        f"the scheduler at {address} wants TLS: set dask's distributed.comm.tls.ca-file, "
        "client.cert and client.key (docs/extract-at-scale.md)"
    )


def _absolute(options: ExtractOptions) -> dict[str, Any]:
    """Paths of weights as other machines find them: workers start in folders of their own."""
    changes: dict[str, Any] = {"extractor": absolute_extractor(options.extractor)}
    if options.weights is not None:
        changes["weights"] = Path(expanduser(options.weights)).absolute()
    if options.detector is not None:
        changes["detector"] = absolute_detector(options.detector)
    return changes
