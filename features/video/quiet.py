"""OpenCV's own words about damaged images, which we say by the name of the file instead."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()
_inside = 0
_before = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's log quiet within the block, in all threads; afterwards it is as it was.

    Whoever sets ``OPENCV_LOG_LEVEL`` wants to read the log, and nothing is changed.
    """
    global _inside, _before
    if "OPENCV_LOG_LEVEL" in os.environ:
        yield
        return
    with _lock:
        if not _inside:
            _before = _level()
            _set_level(0)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set_level(_before)


def _level() -> int:
    get = getattr(cv2, "getLogLevel", None) or cv2.utils.logging.getLogLevel  # OpenCV 4, or 5
    return int(get())


def _set_level(level: int) -> None:
    (getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel)(level)
