"""One writer a store where there are no file locks: a lease that its holder keeps alive."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from feie.features.errors import StoreLockedError

_NO_EXCLUSIVE = (NotImplementedError, TypeError, ValueError)


class Lease:
    """Exclusive right to write a store on an object store, for this process, until released.

    The object ``<store>.lock.json`` names the holder and counts the signs of life that it gives. A
    killed holder gives no more, and after `patience` seconds of silence the lease is free. Nobody
    compares clocks: whoever waits watches whether the count changes. A holder that was taken for
    dead (a machine that slept, a network that was away) finds another's name and writes no more.

    Parameters
    ----------
    files : fsspec.AbstractFileSystem
        Where the store lies.
    path : str
        Of the store, as that file system spells it.
    beat : float
        Seconds between two signs of life.
    patience : float
        Seconds of silence after which a holder counts as dead.
    waiting : callable, optional
        Told, in a sentence, when a lease that may be dead is being watched.
    """

    def __init__(
        self,
        files: Any,
        path: str,
        *,
        beat: float = 5.0,
        patience: float = 20.0,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self._files = files
        self._path = f"{path}.lock.json"
        self._beat = beat
        self._patience = patience
        self._waiting = waiting
        self._token = uuid.uuid4().hex
        self._count = 0
        self._since = ""
        self._done = threading.Event()
        self._keeper: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lease: at once where it is free, else as soon as its holder proves dead.

        Raises
        ------
        StoreLockedError
            The holder is alive; the message names it.
        """
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        found = self._read()
        if found is not None:
            self._watch(found)
            self._write()
        elif not self._create():
            raise self._refusal(self._read() or {})
        # Two may have taken it at the same moment: the last one to write has it.
        time.sleep(min(1.0, self._beat))
        self.confirm()
        self._done.clear()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def confirm(self) -> None:
        """Make sure that the lease is still this writer's, before anything is written.

        Raises
        ------
        StoreLockedError
            Somebody else has taken it.
        """
        found = self._read()
        if found is None or found.get("token") != self._token:
            raise StoreLockedError(
                f"another process has taken over this store ({_named(found or {})}), since this "
                f"one gave no sign of life for {self._patience:g} s; what was committed is safe, "
                "and the same command goes on once the other has ended"
            )

    def release(self) -> None:
        """Give the lease back; harmless when it is not held."""
        if self._keeper is None:
            return
        self._done.set()
        self._keeper.join()
        self._keeper = None
        # Whoever takes over waits a little longer if the network fails here.
        with suppress(Exception):
            if (self._read() or {}).get("token") == self._token:
                self._files.rm_file(self._path)

    def _watch(self, found: dict[str, Any]) -> None:
        """Wait until a holder has been silent for long enough."""
        if self._waiting is not None:
            self._waiting(
                f"{_named(found)} holds this store; watching for {self._patience:g} s whether it "
                "is alive"
            )
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            time.sleep(min(1.0, self._patience / 4))
            now = self._read()
            if now is None:
                return
            if now != found:
                raise self._refusal(now)

    def _keep(self) -> None:
        while not self._done.wait(self._beat):
            # What fails here is met again, and told, by the next commit.
            with suppress(Exception):
                if (self._read() or {}).get("token") != self._token:
                    return
                self._count += 1
                self._write()

    def _read(self) -> dict[str, Any] | None:
        """Give what the object says; nothing where there is none, or none of ours."""
        try:
            content = self._files.cat_file(self._path)
        except FileNotFoundError:
            return None
        try:
            found = json.loads(content)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _content(self) -> bytes:
        said = {
            "token": self._token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "signs": self._count,
        }
        return json.dumps(said).encode()

    def _write(self) -> None:
        self._files.pipe_file(self._path, self._content())

    def _create(self) -> bool:
        """Write the object if there is none, at one go where the file system can; say if so."""
        try:
            self._files.pipe_file(self._path, self._content(), mode="create")
        except FileExistsError:
            return False
        except _NO_EXCLUSIVE:
            self._write()
        return True

    def _refusal(self, holder: dict[str, Any]) -> StoreLockedError:
        return StoreLockedError(
            f"another process writes this store ({_named(holder)}); wait for it or stop it, "
            f"or write to another store with --store"
        )


def _named(holder: dict[str, Any]) -> str:
    try:
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except KeyError:
        return "its name could not be read"
