"""Giving freed memory back to the system, which the C library puts off for ever if it can."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):  # another C library, musl for one, keeps less
        return None
    return trim


_TRIM = _find_trim()


class MemoryTrimmer:
    """Trims the heap now and then.

    Results of a few bytes, which stay, lie between pictures, which go: glibc then keeps what it
    cannot give back from the end of its heap, and a long video seems to need more and more.

    Parameters
    ----------
    every : int
        Frames between two trims; each takes some milliseconds.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._frames = 0

    def count(self, frames: int) -> None:
        """Note frames that were worked through, and trim when it is time."""
        self._frames += frames
        if self._frames >= self._every:
            self._frames = 0
            if _TRIM is not None:
                _TRIM(0)
