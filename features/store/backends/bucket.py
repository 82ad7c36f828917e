"""Where a writer's store lies: a folder, or an object store that fsspec writes to."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore

from feie.features.errors import FeieError, StoreError, one_line
from feie.features.store.backends.durable import DurableStore, is_partial, sync_directory
from feie.features.store.backends.lease import Lease
from feie.features.store.backends.location import address, is_url
from feie.features.store.backends.lock import WriterLock

_CURES = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another --store",
    errno.EACCES: "permission is denied; choose another --store",
    errno.EPERM: "permission is denied; choose another --store",
}


_S3 = ("s3", "s3a")
_WHOLE_OBJECTS = (*_S3, "gs", "gcs", "abfs", "abfss", "az", "memory")
"""Schemes of places where an object is replaced as a whole."""

# No request may last so long that it changes something after another writer has taken over.
_S3_REQUESTS = {"connect_timeout": 3, "read_timeout": 6, "retries": {"max_attempts": 1}}


class Place(Protocol):
    """What a writer asks of the place of its store.

    Attributes
    ----------
    name : str
        Path or address, as `open_store` and messages have it.
    disk : zarr Store
        Its keys; each write is atomic, and what was written before `flush` lasts.
    """

    name: str

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


class Folder:
    """A store on a file system: the operating system's lock, and fsync before every rename."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = str(self.path)
        self._lock = WriterLock(self.path)
        self._disk: DurableStore | None = None

    @property
    def disk(self) -> DurableStore:
        """See `Place`."""
        if self._disk is None:
            self._disk = DurableStore(self.path)
        return self._disk

    def refuse_foreign(self) -> None:
        """See `Place`."""
        if not self.path.exists() or (self.path / "zarr.json").is_file():
            return
        if not self.path.is_dir() or any(not is_partial(p.name) for p in self.path.iterdir()):
            raise StoreError(f"{self.path} exists and is no store; choose another --store")

    def claim(self) -> None:
        """See `Place`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def confirm(self) -> None:
        """See `Place`; the operating system's lock is never lost."""

    def release(self) -> None:
        """See `Place`."""
        self._lock.release()

    def root(self) -> bytes | None:
        """See `Place`."""
        path = self.path / "zarr.json"
        return path.read_bytes() if path.is_file() else None

    def appeared(self) -> None:
        """See `Place`."""
        sync_directory(self.path.parent)

    def tidy(self) -> None:
        """See `Place`."""
        self.disk.remove_partial_files()

    def clear(self) -> None:
        """See `Place`."""
        for child in self.path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)

    def flush(self) -> None:
        """See `Place`."""
        self.disk.flush()


class _GuardedStore(FsspecStore):
    """Objects that are written only while the lease is held."""

    lease: Lease

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write one key; see `FsspecStore.set`."""
        await asyncio.to_thread(self.lease.confirm_if_old)
        await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Delete one key; see `FsspecStore.delete`."""
        await asyncio.to_thread(self.lease.confirm_if_old)
        await super().delete(key)


class Bucket:
    """A store at an address: objects that are written whole or not at all, and a lease."""

    def __init__(self, url: str, waiting: Callable[[str], None] | None = None) -> None:
        scheme = url.partition("://")[0]
        if scheme not in _WHOLE_OBJECTS:
            raise StoreError(
                f"{url} is neither a path nor an object store ({', '.join(_WHOLE_OBJECTS)}), "
                "where alone stores are written safely; choose another --store"
            )
        if set(url) & set("*?[]"):
            raise StoreError(f"{url}: none of * ? [ ] may stand in the address of a store")
        self.name = url.rstrip("/")
        # An instance of its own: others may have set theirs to wait for minutes.
        options: dict[str, Any] = {"skip_instance_cache": True}
        if scheme in _S3:
            options["config_kwargs"] = _S3_REQUESTS
        self._files, self._path = address(self.name, options)
        if scheme in _S3:
            self._files.retries = 2
        self._lease = Lease(self._files, self._path, waiting=waiting)
        self._disk: _GuardedStore | None = None

    @property
    def disk(self) -> FsspecStore:
        """See `Place`."""
        if self._disk is None:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            self._disk = _GuardedStore(
                AsyncFileSystemWrapper(self._files, asynchronous=True), path=self._path
            )
            self._disk.lease = self._lease
        return self._disk

    def refuse_foreign(self) -> None:
        """See `Place`."""
        with self._reaching():
            if self.root() is None and self._files.exists(self._path):
                raise StoreError(f"{self.name} exists and is no store; choose another --store")

    def claim(self) -> None:
        """See `Place`; waits where a holder may be dead."""
        with self._reaching():
            self._lease.acquire()

    def confirm(self) -> None:
        """See `Place`."""
        with self._reaching():
            self._lease.confirm()

    def release(self) -> None:
        """See `Place`."""
        self._lease.release()

    def root(self) -> bytes | None:
        """See `Place`."""
        try:
            return bytes(self._files.cat_file(f"{self._path}/zarr.json"))
        except FileNotFoundError:
            return None

    def appeared(self) -> None:
        """See `Place`; an object that is written is there."""

    def tidy(self) -> None:
        """See `Place`; objects are never half-written."""

    def clear(self) -> None:
        """See `Place`."""
        for child in self._files.ls(self._path, detail=True):
            if child["type"] == "directory":
                self._files.rm(child["name"], recursive=True)

    def flush(self) -> None:
        """See `Place`; a write has been acknowledged before the next one begins."""

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever a file system raises about an address into one sentence."""
        try:
            yield
        except FeieError:
            raise
        except Exception as error:
            raise StoreError(
                f"cannot write {self.name}: {one_line(error)}; check the address, the network and "
                "your credentials, and the same command goes on from the last commit"
            ) from error


def place_of(store: str | Path, waiting: Callable[[str], None] | None = None) -> Place:
    """Give the place that a path or an address names.

    Parameters
    ----------
    store : str or Path
        A folder, or an address such as ``s3://bucket/features.zarr``.
    waiting : callable, optional
        See `Lease`.

    Raises
    ------
    StoreError
        What writes to such an address is not installed.
    """
    if is_url(str(store)):
        return Bucket(str(store), waiting)
    return Folder(Path(store))


@contextmanager
def disk_errors(place: Place) -> Iterator[None]:
    """Turn what a disk or a server says into one sentence; nothing committed is lost by it."""
    try:
        yield
    except FeieError:
        raise
    except OSError as error:
        cure = _CURES.get(error.errno or 0, error.strerror or one_line(error))
        raise _cannot_write(place, cure) from error
    except Exception as error:
        # Each file system has its own errors; these three are what a damaged store gives, too.
        if isinstance(place, Folder) or isinstance(error, ValueError | KeyError | TypeError):
            raise
        raise _cannot_write(place, one_line(error)) from error


def _cannot_write(place: Place, why: str) -> StoreError:
    return StoreError(
        f"cannot write {place.name}: {why}; the same command goes on from the last commit"
    )
