"""The process that holds an isolated engine: whatever a video does to it, the run goes on."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

from feie.features.errors import EngineError, FeieError
from feie.features.video.chatter import CHATTER
from feie.features.video.sources import Source
from feie.pipeline.engine.local import LocalEngine
from feie.pipeline.engine.messages import At, Beat, Broke, Done, Message, Over, Ready
from feie.pipeline.engine.options import ExtractOptions


class Child:
    """Takes sources from a connection and gives back what `messages` lists.

    Parameters
    ----------
    link : Connection
        Its other end sends the options first, then sources, and None after the last of a
        session. When it closes, this process ends at once.
    """

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[Source | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Work until the other end closes."""
        options: ExtractOptions = self._link.recv()
        threading.Thread(target=self._receive, daemon=True).start()
        try:
            engine = LocalEngine(options, self._announce)
            self._send(Ready(engine.provenance))
            threading.Thread(target=self._beat, args=(engine, options.timeout), daemon=True).start()
            while True:
                for finished in engine.records(self._sources()):
                    if finished is not None:
                        self._send(Done(finished, engine.detector))
                self._send(Over())
        except Exception as error:  # it is for the coordinator to say it, and how
            self._send(Broke(_portable(error)))

    def _receive(self) -> None:
        try:
            while True:
                self._inbox.put(self._link.recv())
        except (EOFError, OSError):
            os._exit(0)  # the coordinator is gone, or wants no more

    def _sources(self) -> Iterator[Source]:
        while (source := self._inbox.get()) is not None:
            yield source

    def _send(self, message: Message) -> None:
        try:
            with self._sending:
                self._link.send(message)
        except OSError:
            os._exit(0)

    def _announce(self, number: int, working: bool) -> None:
        self._send(At(number, working))

    def _beat(self, engine: LocalEngine, timeout: float) -> None:
        """Tell now and then which sources have stood still, and for how long.

        Time is counted in rounds of this loop, not by a clock: a machine that was asleep, or a
        job that was stopped for a while, blames nobody.
        """
        period = min(1.0, timeout / 10)
        idle: dict[int, float] = {}
        counts: dict[int, int] = {}
        while True:
            time.sleep(period)
            liveness = dict(engine.stage.liveness)
            now = {n: alive.count for n, alive in liveness.items()}
            idle = {
                n: 0.0 if liveness[n].waiting or now[n] != counts.get(n) else idle[n] + period
                for n in liveness
            }
            counts = now
            hashes = {n: alive.fingerprint for n, alive in liveness.items()}
            self._send(Beat(idle, hashes, engine.frames))
            CHATTER.pass_on()


def _portable(error: Exception) -> Exception:
    """Give the error itself where the coordinator knows what to do with it."""
    if isinstance(error, FeieError | MemoryError):
        return error
    return EngineError(f"the engine broke down ({type(error).__name__}: {error})")


def main() -> None:
    """Run the child at the connection whose descriptor is the first argument."""
    # To end is the coordinator's to ask for: Ctrl-C, and what SLURM sends to all of a job.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    CHATTER.catch()
    Child(Connection(int(sys.argv[1]))).run()
