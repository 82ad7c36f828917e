"""A local Zarr store whose writes are on the disk before they are visible, and that has no links.

A folder that came from somebody else may hold links to where its maker cannot write or read, pipes
that nobody fills, and chunks of a few kilobytes that unpack to gigabytes. None of them is followed,
waited for, or unpacked.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import LocalStore

from feie.features.files import (
    opened_file,
    refuse_links,
    remove_all_partials,
    sync_directory,
    write_whole,
)
from feie.features.store.backends.bounds import refuse_file


class DurableStore(LocalStore):
    """`zarr.storage.LocalStore` with durable, atomic writes; `flush` makes the renames durable.

    zarr's own writer renames without an fsync; a tail chunk holds rows already committed, so a
    rename that reaches the disk before its data could lose them.

    Raises
    ------
    LinkError
        Whatever is read, written or deleted is a link, or lies behind one; the root may be one.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._touched: set[Path] = set()

    def _path(self, key: str) -> Path:
        path = self.root / key
        refuse_links(self.root, path)
        return path

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read one key; see `LocalStore.get`."""
        if not self._is_open:
            await self._open()
        return await asyncio.to_thread(self._read_key, key, prototype, byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read one key without an event loop; see `LocalStore.get_sync`."""
        self._ensure_open_sync()
        return self._read_key(key, prototype, byte_range)

    def _read_key(
        self, key: str, prototype: BufferPrototype | None, byte_range: ByteRequest | None
    ) -> Buffer | None:
        try:
            with opened_file(self._path(key)) as file:
                if byte_range is not None:
                    size = os.fstat(file.fileno()).st_size
                    start, count = _range(byte_range, size)
                    file.seek(start)
                    data = file.read(count)
                else:
                    data = file.read()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        refuse_file(key, data)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def exists(self, key: str) -> bool:
        """Tell whether a key is there; see `LocalStore.exists`."""
        return await asyncio.to_thread(self._path(key).is_file)

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
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, value.as_buffer_like())
        self._touched.add(path.parent)

    async def delete(self, key: str) -> None:
        """Delete one key; see `LocalStore.delete`."""
        self._path(key)
        await super().delete(key)

    def delete_sync(self, key: str) -> None:
        """Delete one key without an event loop; see `LocalStore.delete_sync`."""
        self._path(key)
        super().delete_sync(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys below a prefix; see `LocalStore.delete_dir`."""
        self._path(prefix)
        await super().delete_dir(prefix)

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
        remove_all_partials(Path(self.root))


def _range(asked: ByteRequest, size: int) -> tuple[int, int]:
    """Give the first byte and the number of bytes that are asked for."""
    if isinstance(asked, RangeByteRequest):
        return asked.start, max(0, asked.end - asked.start)
    if isinstance(asked, OffsetByteRequest):
        return asked.offset, max(0, size - asked.offset)
    if isinstance(asked, SuffixByteRequest):
        count = min(asked.suffix, size)
        return size - count, count
    raise TypeError(f"unexpected byte range {asked}")
