"""Folders of numbered images, read as one video each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from feie.features.errors import UsageError, VideoError
from feie.features.video.chatter import CHATTER, tells_damage
from feie.features.video.numbering import frame_images
from feie.features.video.quiet import quiet_opencv
from feie.features.video.reader import CORRUPT_SHARE, FOLDER_FPS, Image, LazyFrame, Reader


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
        loaded = (CHATTER.listen(partial(_load, path))[0] for path in self._images.values())
        first = next((image for image in loaded if image is not None), None)
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
            named = ", ".join(self.remarks.damaged[:3])
            raise VideoError("broken", f"{found} in {self._name} ({named}, …)")

    def _image(self, path: Path | None) -> Image | None:
        if path is None:
            return None
        image, words = CHATTER.listen(partial(_load, path))
        self.corrupt += image is None
        self.remarks.warnings += len(words)
        if image is None or any(map(tells_damage, words)):
            self.remarks.damaged.append(path.name)
        return image


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
