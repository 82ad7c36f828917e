"""A store in a folder: the operating system's lock, and fsync before every rename."""

from __future__ import annotations

import shutil
from pathlib import Path

from feie.features.errors import StoreError
from feie.features.files import is_partial, opened_file, refuse_link, sync_directory
from feie.features.store.backends.durable import DurableStore
from feie.features.store.backends.lock import WriterLock


class Folder:
    """A store on a file system; see `Backend`."""

    local = True

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = str(self.path)
        self._lock = WriterLock(self.path)
        self._disk: DurableStore | None = None

    @property
    def disk(self) -> DurableStore:
        """See `Backend`."""
        if self._disk is None:
            self._disk = DurableStore(self.path)
        return self._disk

    def refuse_foreign(self) -> None:
        """See `Backend`."""
        if not self.path.exists() or (self.path / "zarr.json").is_file():
            return
        if not self.path.is_dir() or any(not is_partial(p.name) for p in self.path.iterdir()):
            raise StoreError(f"{self.path} exists and is no store; choose another --store")

    def claim(self) -> None:
        """See `Backend`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()

    def confirm(self) -> None:
        """See `Backend`; the operating system's lock is never lost."""

    def release(self) -> None:
        """See `Backend`."""
        self._lock.release()

    def root(self) -> bytes | None:
        """See `Backend`."""
        path = self.path / "zarr.json"
        refuse_link(path)
        if not path.is_file():
            return None
        with opened_file(path) as file:
            return file.read()

    def appeared(self) -> None:
        """See `Backend`."""
        sync_directory(self.path.parent)

    def tidy(self) -> None:
        """See `Backend`."""
        self.disk.remove_partial_files()

    def clear(self) -> None:
        """See `Backend`."""
        for child in self.path.iterdir():
            refuse_link(child)
            if child.is_dir():
                shutil.rmtree(child)

    def flush(self) -> None:
        """See `Backend`."""
        self.disk.flush()
