"""Frames with their times, and the reader that every kind of source implements."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError, VideoError
from feie.features.video.remarks import Remarks

Image = NDArray[np.uint8]

CORRUPT_SHARE = 0.1
"""A source is ``broken`` when more than this share of its packets or images does not decode."""

FOLDER_FPS = 30.0
"""Frames a second that the numbers of an image folder count, unless told otherwise."""

# How far a grid point of `fps` may lie before a frame and still show it: Matroska rounds time
# stamps to milliseconds, so 30/s on 30/s must not repeat one frame and lose the next.
_GRID_SLACK = 1e-3
# Longer jumps of the time stamps are faults of the file; `fps` does not fill them with copies.
_LONGEST_GAP = 600.0


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes
    ----------
    time : float
        Presentation time stamp, s; a late start is kept as it is.
    image : (h, w, 3) uint8 array, RGB, or None
        None for a number missing from a folder of numbered images, or an image that does not
        decode there.
    """

    time: float
    image: Image | None


# A frame's time, and how to make its image: skipped frames are never converted to RGB.
LazyFrame = tuple[float, Callable[[], Image | None]]


class Reader(ABC):
    """An open source; a context manager, iterated once.

    Parameters
    ----------
    fps : float, optional
        Resample by time: frames at ``first + k / fps`` up to the last frame's time, each
        showing the latest frame that is not after it, and carrying the time of the grid.

    Attributes
    ----------
    width, height : int
        Of the first frame as displayed (after rotation and pixel aspect ratio).
    corrupt : int
        Packets or images that did not decode, so far.
    remarks : Remarks
        On the pictures, so far.
    """

    width: int
    height: int
    corrupt: int = 0

    def __init__(self, fps: float | None) -> None:
        if fps is not None and not 0 < fps <= 1000:
            raise UsageError(f"fps must lie in (0, 1000], not {fps}")
        self._target_fps = fps
        self._nominal_fps = math.nan
        self._first = self._last = math.nan
        self._count = 0
        self._done = False
        self.remarks = Remarks()

    @property
    def fps(self) -> float:
        """Frames a second.

        The rate asked for, when resampling. Otherwise what the header says until the last frame
        has been read, and from then on the mean rate by the time stamps, which is what is true
        of a variable rate. NaN where nothing is known, as for a single frame.
        """
        if self._target_fps is not None:
            return self._target_fps
        if self._done and self._count > 1:
            return (self._count - 1) / (self._last - self._first)
        return self._nominal_fps

    @property
    def frames_read(self) -> int:
        """Frames taken from the source so far, those left out by `fps` included."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        for time, image in self.lazily():
            yield Frame(time, image())

    def lazily(self) -> Iterator[LazyFrame]:
        """Give each frame's time and how to make its image, in place of iterating: once."""
        frames = self._counted(self._frames())
        return frames if self._target_fps is None else _resample(frames, self._target_fps)

    def _counted(self, frames: Iterator[LazyFrame]) -> Iterator[LazyFrame]:
        for time, image in frames:
            if not self._count:
                self._first = time
            self._last = time
            self._count += 1
            yield time, image
        self._done = True

    @abstractmethod
    def _frames(self) -> Iterator[LazyFrame]:
        """Frames in order of strictly rising time; raises VideoError at the end if it fails."""

    def close(self) -> None:  # noqa: B027  # an image folder holds nothing open
        """Free the source; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _resample(frames: Iterator[LazyFrame], fps: float) -> Iterator[LazyFrame]:
    first = last = 0.0
    held: Callable[[], Image | None] | None = None
    k = 0
    for time, image in frames:
        if held is None:
            first = time
        else:
            if time - last > _LONGEST_GAP:
                raise VideoError("broken", f"time stamps jump from {last:.1f} to {time:.1f} s")
            while first + k / fps + _GRID_SLACK < time:
                yield first + k / fps, held
                k += 1
        held, last = image, time
    while held is not None and first + k / fps <= last + _GRID_SLACK:
        yield first + k / fps, held
        k += 1
