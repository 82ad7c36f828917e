"""What image libraries print to standard error, caught and counted in a process of our own."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")

_IMAGE_LIBRARIES = re.compile(
    r"libpng |libjpeg|Corrupt JPEG data|Premature end of JPEG|Invalid SOS|Unsupported JPEG|"
    r"Bogus |.*JPEG marker|Warning: |TIFF|.*: Warning, |.*: (?:JPEG|Read|Fax|LZW)\w*: |\[ ?WARN"
)


class _Chatter:
    """Takes the place of file descriptor 2, where nobody but C libraries writes.

    One file serves all threads. As long as it stays empty, pictures are decoded side by side; from
    the first word on, one after the other, so that each word is known to be of its picture.
    """

    def __init__(self) -> None:
        self._file: int | None = None
        self._true = 2
        self._lock = threading.Lock()
        self._heard = threading.Event()

    def catch(self) -> None:
        """Catch what this process prints from now on; Python's own goes on to standard error."""
        if self._file is not None or not hasattr(os, "memfd_create"):
            return
        sys.stderr.flush()
        self._true = os.dup(2)
        sys.stderr = os.fdopen(self._true, "w", buffering=1, errors="replace", closefd=False)
        made = os.memfd_create("standard error")
        fcntl.fcntl(made, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(made, 2)
        os.close(made)
        self._file = 2

    def listen(self, decode: Callable[[], _T]) -> tuple[_T, list[str]]:
        """Call a function; give what it gives, and the lines that an image library printed."""
        if self._file is None:
            return decode(), []
        if not self._heard.is_set():
            made = decode()
            if not self._size() and not self._heard.is_set():
                return made, []
            self._heard.set()
        with self._lock:
            self._take()
            made = decode()
            return made, self._take()

    def pass_on(self) -> None:
        """Hand on to standard error what is no image library's."""
        if self._file is None or not self._size():
            return
        with self._lock:
            words = os.pread(self._file, self._size(), 0).decode(errors="replace").splitlines()
            # A picture's words are for the thread that decodes it.
            if not any(map(_IMAGE_LIBRARIES.match, words)):
                self._take()

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file).st_size

    def _take(self) -> list[str]:
        """Empty the file: give the words of image libraries, hand on all others."""
        assert self._file is not None
        if not (size := self._size()):
            return []
        text = os.pread(self._file, size, 0)
        os.ftruncate(self._file, 0)
        lines = text.decode(errors="replace").splitlines()
        others = [line for line in lines if not _IMAGE_LIBRARIES.match(line)]
        if others:
            with suppress(OSError):  # nobody reads it
                os.write(self._true, "".join(f"{line}\n" for line in others).encode())
        return [line for line in lines if _IMAGE_LIBRARIES.match(line)]


def tells_damage(line: str) -> bool:
    """Whether such a line says that a picture is not whole."""
    return bool(re.search(r"corrupt|premature|error|invalid|unsupported|truncated", line, re.I))


CHATTER = _Chatter()
"""Of this process."""
