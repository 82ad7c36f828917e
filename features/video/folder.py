"""Frames with their times, the reader that every kind of source implements, and image folders."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError, VideoError
from feie.features.video.numbering import frame_images
from feie.features.video.quiet import quiet_opencv

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
    notes : list of str
        What was done to the pictures besides decoding them, so far; a store keeps it.
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
        self.notes: list[str] = []

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


class FolderReader(Reader):
    """Frames of a folder of numbered images (ABAW's ``cropped_aligned/<video>/00001.jpg``).

    Frame ``n`` is shown at ``(n - start) / folder_fps`` s, where start is 0 if there is an image
    of number 0 and 1 otherwise. Missing numbers, those before the first image included, are
    frames without an image; so are images that do not decode, which count as corrupt.

    Parameters
    ----------
    path : Path
        The folder.
    fps : float, optional
        Resample by time, see `Reader`.
    folder_fps : float
        Rate that the numbering counts.

    Raises
    ------
    VideoError
        ``missing``; ``empty`` (no numbered images); ``broken`` (two images of one number,
        numbers that cannot be frame numbers, or at the end more than `CORRUPT_SHARE` of the
        images undecodable); ``no-frames`` (none decodes).
    """

    def __init__(
        self, path: Path, fps: float | None = None, folder_fps: float = FOLDER_FPS
    ) -> None:
        super().__init__(fps)
        if not 0 < folder_fps <= 1000:
            raise UsageError(f"the rate of image folders must lie in (0, 1000], not {folder_fps}")
        self._name = path.name
        self._nominal_fps = folder_fps
        self._images = _numbered_images(path)
        first = next((i for i in map(_load, self._images.values()) if i is not None), None)
        if first is None:
            raise VideoError("no-frames", f"no image of {self._name} decodes")
        self.height, self.width = first.shape[:2]

    @property
    def fps(self) -> float:
        """Frames a second: of the numbering, or the rate asked for."""
        return self._nominal_fps if self._target_fps is None else self._target_fps

    def _frames(self) -> Iterator[LazyFrame]:
        start = 0 if 0 in self._images else 1
        for number in range(start, max(self._images) + 1):
            path = self._images.get(number)
            yield (number - start) / self._nominal_fps, partial(self._image, path)
        if self.corrupt > CORRUPT_SHARE * len(self._images):
            found = f"{self.corrupt} of {len(self._images)} images do not decode"
            raise VideoError("broken", f"{found} in {self._name}")

    def _image(self, path: Path | None) -> Image | None:
        if path is None:
            return None
        image = _load(path)
        self.corrupt += image is None
        return image


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


def _numbered_images(folder: Path) -> dict[int, Path]:
    try:
        names, _ = frame_images(os.listdir(folder))
    except OSError as error:
        raise VideoError("missing", f"{folder.name} cannot be listed: {error.strerror}") from error
    images: dict[int, Path] = {}
    for name, number in sorted(names.items()):
        if number in images:
            message = f"{folder.name} holds {images[number].name} and {name}, both of one number"
            raise VideoError("broken", message)
        images[number] = folder / name
    if not images:
        raise VideoError("empty", f"{folder.name} holds no numbered images")
    # A face may be missing from most frames, but not from all but one in a thousand: such
    # numbers are dates or identifiers, and each gap would become a row.
    if max(images) > 1000 * (len(images) + 100):
        message = f"{folder.name} numbers {len(images)} images up to {max(images)}"
        raise VideoError("broken", f"{message}: these are no frame numbers")
    return images


def _load(path: Path) -> Image | None:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        with quiet_opencv():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image, np.uint8)
