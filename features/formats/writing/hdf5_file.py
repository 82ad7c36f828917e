"""A file for HDF5 to write to, in which a full disk is an error and not the end of the process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import h5py

from feie.features.files import new_file


class DiskFile:
    """A new file that remembers the first error of the disk and hides it from HDF5.

    The HDF5 library cannot close a file that it can no longer write: it prints traces, and has
    been seen to crash. So from the first error on this file takes everything and keeps nothing,
    until its owner asks.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = new_file(path, buffering=0)
        self._at = self._end = 0
        self._error: OSError | None = None

    def hdf5(self) -> h5py.File:
        """Give a new HDF5 file that is written here."""
        return h5py.File(self, "w")

    def refuse_error(self) -> None:
        """Raise the error that was hidden, if there was one.

        Raises
        ------
        OSError
        """
        if self._error is not None:
            raise OSError(self._error.errno, self._error.strerror, str(self._path))

    def close(self) -> None:
        """Close the file; call `refuse_error` afterwards."""
        self._file.close()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """See `io.RawIOBase.tell`."""
        return self._at

    def write(self, data: memoryview) -> int:
        """Write all of it; see `io.RawIOBase.write`."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            self._file.seek(self._at)
            while len(left) and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        self._at += size
        self._end = max(self._end, self._at)
        return size

    def read(self, size: int) -> bytes:
        """Read as `readinto` does."""
        data = bytearray(size)
        self.readinto(memoryview(data))
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """Read; what the disk did not take is zeros. See `io.RawIOBase.readinto`."""
        view = memoryview(buffer).cast("B")
        self._file.seek(self._at)
        count = self._file.readinto(view) or 0
        view[count:] = bytes(len(view) - count)
        self._at += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """See `io.RawIOBase.truncate`."""
        self._end = self._at if size is None else size
        try:
            self._file.truncate(self._end)
        except OSError as error:
            self._error = self._error or error
        return self._end

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""
