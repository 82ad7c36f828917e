"""A local Zarr store whose writes are on the disk before they are visible."""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

_PARTIAL = re.compile(r".+\.[0-9a-f]{32}\.partial")


def is_partial(name: str) -> bool:
    """Tell whether a file name is one of those that a killed writer leaves."""
    return _PARTIAL.fullmatch(name) is not None


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, value: Buffer) -> None:
    """Write to a temporary name, fsync, rename: after a power cut the old or the new file stands.

    zarr's own writer renames without an fsync; a tail chunk holds rows already committed, so a
    rename that reaches the disk before its data could lose them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(value.as_buffer_like())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class DurableStore(LocalStore):
    """`zarr.storage.LocalStore` with durable, atomic writes; `flush` makes the renames durable."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._touched: set[Path] = set()

    async def set(self, key: str, value: Buffer) -> None:
        """Write one key; see `LocalStore.set`."""
        if not self._is_open:
            await self._open()
        self._check_writable()
        await asyncio.to_thread(self._put, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write one key without an event loop; see `LocalStore.set_sync`."""
        self._check_writable()
        self._put(key, value)

    def _put(self, key: str, value: Buffer) -> None:
        path = self.root / key
        _write_durably(path, value)
        self._touched.add(path.parent)

    def flush(self) -> None:
        """Sync the directories written to since the last call, parents up to the root included."""
        directories = {self.root}
        for path in self._touched:
            directories.update(p for p in (path, *path.parents) if p.is_relative_to(self.root))
        for directory in directories:
            sync_directory(directory)
        self._touched.clear()

    def remove_partial_files(self) -> None:
        """Delete what a killed writer left under temporary names."""
        for path in self.root.rglob("*.partial"):
            if is_partial(path.name):
                path.unlink(missing_ok=True)
