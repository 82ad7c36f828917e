"""What a writer asks of the place of its store, and the sentences for what goes wrong there."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from feie.features.errors import FeieError, StoreError, one_line

_CURES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another --store",
    errno.EACCES: "permission is denied; choose another --store",
    errno.EPERM: "permission is denied; choose another --store",
}


class Backend(Protocol):
    """Where a store is written to.

    Attributes
    ----------
    name : str
        Path or address, as `open_store` and messages have it.
    local : bool
        Whether its errors are those of the operating system.
    disk : zarr Store
        Its keys; each write is atomic, and what was written before `flush` lasts.
    """

    name: str
    local: bool

    @property
    def disk(self) -> Any:
        """Give the Zarr store, writable."""

    def refuse_foreign(self) -> None:
        """Raise `StoreError` where something lies that is no store."""

    def claim(self) -> None:
        """Take the right to write; raises `StoreLockedError` where another process has it."""

    def confirm(self) -> None:
        """Raise `StoreLockedError` where the right to write has been lost."""

    def release(self) -> None:
        """Give the right to write back."""

    def root(self) -> bytes | None:
        """Give the metadata of the root group; None where there is none."""

    def appeared(self) -> None:
        """Make the name of a store that has just been begun last."""

    def tidy(self) -> None:
        """Delete what a killed writer left half-written."""

    def clear(self) -> None:
        """Delete all arrays of a store that was never laid out in full."""

    def flush(self) -> None:
        """Make what was written so far last, before what is written next."""


@contextmanager
def disk_errors(backend: Backend) -> Iterator[None]:
    """Turn what a disk or a server says into one sentence; nothing committed is lost by it."""
    try:
        yield
    except FeieError:
        raise
    except OSError as error:
        cure = _CURES.get(error.errno or 0, error.strerror or one_line(error))
        raise _cannot_write(backend, cure) from error
    except Exception as error:
        # Each file system has its own errors; these three are what a damaged store gives, too.
        if backend.local or isinstance(error, ValueError | KeyError | TypeError):
            raise
        raise _cannot_write(backend, one_line(error)) from error


def _cannot_write(backend: Backend, why: str) -> StoreError:
    return StoreError(
        f"cannot write {backend.name}: {why}; the same command goes on from the last commit"
    )
