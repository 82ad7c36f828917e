"""Starting, hearing and ending the child process that holds an isolated engine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe

from feie.pipeline.engine.messages import Message
from feie.pipeline.engine.options import ExtractOptions

_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from feie.pipeline.engine.child import main; main()"
)
# Pictures that one thread allocates and another frees leave the heap of each thread as large as it
# ever was; from two heaps for all, glibc gives back what a long video no longer needs.
_SURROUNDINGS = {"MALLOC_ARENA_MAX": "2"}
_EXIT_SECONDS = 5.0  # seconds given to a child that has hung up


class ChildExitError(Exception):
    """The child is gone; `silent` where it had to be helped."""

    def __init__(self, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent


def _fill_standard() -> None:
    """Open what a daemon was started without, before a pipe of ours gets its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


class ChildProcess:
    """One child and the line to it."""

    def __init__(self, options: ExtractOptions) -> None:
        _fill_standard()
        self._link, theirs = Pipe()
        # Not by multiprocessing: it would run the caller's main script again. In a group of its
        # own, so that Ctrl-C at a terminal reaches the coordinator only.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(theirs.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what libraries print must not mix with --json
            pass_fds=(theirs.fileno(),),
            process_group=0,
            env=_SURROUNDINGS | os.environ,
        )
        theirs.close()
        self._room = select.poll()
        self._room.register(self._link.fileno(), select.POLLOUT)
        self.send(options)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send; a child that is gone is noticed when it is listened to."""
        with suppress(OSError):
            self._link.send(message)

    @property
    def takes(self) -> bool:
        """Whether sending will not block: a child that was stopped reads nothing."""
        return bool(self._room.poll(0))

    def receive(self, seconds: float) -> Message | None:
        """Give the next message, or None when there was none for so long."""
        try:
            message: Message | None = self._link.recv() if self._link.poll(seconds) else None
        except (EOFError, OSError):
            raise ChildExitError from None
        return message

    def exit_reason(self) -> str:
        """Wait for the end of a child that has hung up, and tell how it came."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        self._link.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Kill it and hang up."""
        self.kill()
        self._link.close()

    def kill(self) -> None:
        """Kill it, whatever it is doing: it has nothing to lose."""
        self._process.kill()
        # Not for ever: one that waits for a dead file server cannot even be killed.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
