"""One writer a store: an advisory lock that names who holds it and dies with its process."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from feie.features.errors import StoreLockedError
from feie.features.files import read_json, refuse_link, write_whole


class WriterLock:
    """Exclusive right to write the store at `path`, for this process, until released.

    The lock is the operating system's (flock or its Windows equal), so a killed process leaves
    nothing to clean up. Beside the lock file ``<store>.lock`` lies ``<store>.lock.json`` with the
    holder's pid, host and start, which is what a second writer is told.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._owner = path.with_name(path.name + ".lock.json")
        self._lock = FileLock(self._path)

    def acquire(self) -> None:
        """Take the lock at once.

        Raises
        ------
        StoreLockedError
            Somebody else holds it; the message names them.
        LinkError
            A file of the lock is a link.
        OSError
            The folder cannot be written.
        """
        for path in (self._path, self._owner):
            refuse_link(path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreLockedError(
                f"another process writes this store ({self._holder()}); wait for it or stop it, "
                f"or write to another store with --store"
            ) from None
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            write_whole(self._owner, json.dumps(owner).encode(), sync=False)
        except OSError:
            self._lock.release()
            raise

    def _holder(self) -> str:
        try:
            owner = read_json(self._owner)
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "its name could not be read"

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._owner.unlink()
            self._lock.release()

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
