"""A store at an address: objects that are written whole or not at all, and a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import FsspecStore

from feie.features.errors import FeieError, StoreError, one_line
from feie.features.store.backends.lease import Lease
from feie.features.store.backends.location import BoundedStore, address

_S3 = ("s3", "s3a")
_WHOLE_OBJECTS = (*_S3, "gs", "gcs", "abfs", "abfss", "az", "memory")
"""Schemes of places where an object is replaced as a whole."""

# No request may last so long that it changes something after another writer has taken over.
_S3_REQUESTS = {"connect_timeout": 3, "read_timeout": 6, "retries": {"max_attempts": 1}}


class _GuardedStore(BoundedStore):
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
    """A store on an object store that fsspec writes to; see `Backend`."""

    local = False

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
        """See `Backend`."""
        if self._disk is None:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            self._disk = _GuardedStore(
                AsyncFileSystemWrapper(self._files, asynchronous=True), path=self._path
            )
            self._disk.lease = self._lease
        return self._disk

    def refuse_foreign(self) -> None:
        """See `Backend`."""
        with self._reaching():
            if self.root() is None and self._files.exists(self._path):
                raise StoreError(f"{self.name} exists and is no store; choose another --store")

    def claim(self) -> None:
        """See `Backend`; waits where a holder may be dead."""
        with self._reaching():
            self._lease.acquire()

    def confirm(self) -> None:
        """See `Backend`."""
        with self._reaching():
            self._lease.confirm()

    def release(self) -> None:
        """See `Backend`."""
        self._lease.release()

    def root(self) -> bytes | None:
        """See `Backend`."""
        try:
            return bytes(self._files.cat_file(f"{self._path}/zarr.json"))
        except FileNotFoundError:
            return None

    def appeared(self) -> None:
        """See `Backend`; an object that is written is there."""

    def tidy(self) -> None:
        """See `Backend`; objects are never half-written."""

    def clear(self) -> None:
        """See `Backend`."""
        for child in self._files.ls(self._path, detail=True):
            if child["type"] == "directory":
                self._files.rm(child["name"], recursive=True)

    def flush(self) -> None:
        """See `Backend`; a write has been acknowledged before the next one begins."""

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
