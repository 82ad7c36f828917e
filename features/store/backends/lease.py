"""One writer a store where there are no file locks: a lease that its holder keeps alive."""

from __future__ import annotations

import errno
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
from feie.features.files import json_object

_NO_EXCLUSIVE = (NotImplementedError, TypeError, ValueError)


class Lease:
    """Exclusive right to write a store on an object store, for this process, until released.

    The object ``<store>.lock.json`` names the holder and is written once; its signs of life are
    counted in ``<store>.lock.signs.json``, so that a late one can take nothing back. A killed
    holder gives no more, and after `patience` seconds of silence the lease is free. Nobody compares
    clocks: whoever waits watches whether the count changes. A holder that was taken for dead (a
    machine that slept, a network that was away) finds another's name and writes no more.

    Parameters
    ----------
    files : fsspec.AbstractFileSystem
        Where the store lies; without a cache of listings, and with requests that end, one way or
        the other, well within `patience`.
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
        patience: float = 30.0,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self._files = files
        self._holder = f"{path}.lock.json"
        self._signs = f"{path}.lock.signs.json"
        self._beat = beat
        self._patience = patience
        self._waiting = waiting
        self._token = uuid.uuid4().hex
        self._since = ""
        self._confirmed = float("-inf")
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
        try:
            found = self._read(self._holder)
            if found is not None:
                self._watch(found)
                self._claim()
            elif not self._create():
                raise self._refusal(self._read(self._holder) or {})
            self._sign(0)
            # Two may have taken it at the same moment: the last one to write has it.
            time.sleep(min(1.0, self._beat))
            self.confirm()
        except BaseException:
            self._remove()
            raise
        self._done.clear()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def confirm(self) -> None:
        """Make sure that the lease is still this writer's.

        Raises
        ------
        StoreLockedError
            Somebody else has taken it.
        """
        asked = _clock()
        found = self._read(self._holder)
        if found is None or found.get("token") != self._token:
            raise StoreLockedError(
                f"another process has taken over this store ({_named(found or {})}), since this "
                f"one gave no sign of life for {self._patience:g} s; what was committed is safe, "
                "and the same command goes on once the other has ended"
            )
        self._confirmed = asked

    def confirm_if_old(self) -> None:
        """Confirm again unless that was done a moment ago: before every single write.

        Whoever was stopped in the midst of a commit, and for how long, has to ask first.
        """
        if _clock() - self._confirmed > self._patience / 3:
            self.confirm()

    def release(self) -> None:
        """Give the lease back; harmless when it is not held."""
        if self._keeper is None:
            return
        self._done.set()
        # Where the network hangs, the next writer waits for a while instead of this one.
        self._keeper.join(timeout=1.0)
        if not self._keeper.is_alive():
            self._remove()
        self._keeper = None

    def _watch(self, found: dict[str, Any]) -> None:
        """Wait until a holder has been silent for long enough."""
        if self._waiting is not None:
            self._waiting(
                f"{_named(found)} holds this store; watching for {self._patience:g} s whether it "
                "is alive"
            )
        sign = self._read(self._signs)
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            time.sleep(min(1.0, self._patience / 4))
            now = self._read(self._holder)
            if now is None:
                return
            if now != found or self._read(self._signs) != sign:
                raise self._refusal(now)

    def _keep(self) -> None:
        count = 0
        while not self._done.wait(self._beat):
            # What fails here is met again, and told, by the next commit.
            with suppress(Exception):
                if (self._read(self._holder) or {}).get("token") != self._token:
                    return
                count += 1
                self._sign(count)

    def _read(self, path: str) -> dict[str, Any] | None:
        """Give what an object says; None where there is none, nothing where it is none of ours."""
        try:
            content = self._files.cat_file(path)
        except FileNotFoundError:
            return None
        try:
            return json_object(content)
        except ValueError:
            return {}

    def _content(self) -> bytes:
        holder = {
            "token": self._token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
        }
        return json.dumps(holder).encode()

    def _claim(self) -> None:
        self._files.pipe_file(self._holder, self._content())

    def _sign(self, count: int) -> None:
        self._files.pipe_file(
            self._signs, json.dumps({"token": self._token, "signs": count}).encode()
        )

    def _create(self) -> bool:
        """Claim where nobody holds, at one go where the file system can; say if it succeeded."""
        try:
            self._files.pipe_file(self._holder, self._content(), mode="create")
        except Exception as error:
            found = self._read(self._holder)
            if found is not None:  # ours, if only the answer was lost
                return bool(found.get("token") == self._token)
            absent = isinstance(error, _NO_EXCLUSIVE)
            if not absent and getattr(error, "errno", None) != errno.ENOSYS:
                raise
            self._claim()
        return True

    def _remove(self) -> None:
        """Delete what names this writer; where that fails, the next one waits a little."""
        with suppress(Exception):
            if (self._read(self._holder) or {}).get("token") == self._token:
                for path in (self._signs, self._holder):
                    self._files.rm_file(path)

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


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
