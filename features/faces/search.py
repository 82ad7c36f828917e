"""Searching a video's frames for its faces: one main face, or tracks of all of them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from feie.features.faces.align import is_alignable
from feie.features.faces.detection import Detector, Faces, rescaled
from feie.features.faces.track import MainFace, Tracks
from feie.features.video.reader import Frame, Image


class Search:
    """The search of one video; stateful, use one for each.

    Faces are given in pixels of the size below, also where frames change their size on the way: a
    face at the same place of the picture keeps its numbers, and its track.

    Parameters
    ----------
    detector : Detector
        What finds faces in a frame.
    width, height : int
        Of the first frame, px.
    stride : int
        Every so many frames are searched; landmarks, box and score in between are interpolated
        by time, where the main face was found at both ends. Where it was found at one end only,
        each frame in between is searched; where at neither, none is, and they count as frames
        without a face.
    batch : int
        Frames that the detector searches together. More than one needs that it does not look
        around the last place first (`DetectOptions.follow` = 0), which wants them one by one.
    """

    def __init__(
        self, detector: Detector, width: int, height: int, stride: int = 1, batch: int = 1
    ) -> None:
        self._detector = detector
        self._size = width, height
        self._stride = stride
        self._batch = batch
        self._main = MainFace()

    def main_face(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Faces | None]]:
        """Give each frame with its main face, or None where it shows none."""
        if self._stride > 1:
            yield from self._strided(iter(frames))
        elif self._batch > 1:
            for frame, faces in self._searched(frames):
                yield frame, self._pick(faces)
        else:
            for frame in frames:
                yield frame, self._look(frame.image)

    def all_faces(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, list[tuple[int, Faces]]]]:
        """Give each frame with all its faces, each with the number of its track."""
        tracks = Tracks()
        for frame, faces in self._searched(frames):
            numbers = tracks.assign(faces)
            yield frame, [(number, _one(faces, i)) for i, number in enumerate(numbers)]

    def _searched(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Faces]]:
        """Search whole frames, several at a time."""
        rest = iter(frames)
        while group := list(itertools.islice(rest, self._batch)):
            images = [frame.image for frame in group if frame.image is not None]
            found = iter(self._detector.detect_many(images) if images else [])
            for frame in group:
                image = frame.image
                yield frame, Faces.none() if image is None else self._taken(next(found), image)

    def _look(self, image: Image | None) -> Faces | None:
        """Find the main face of the next frame: around its last place, else anywhere."""
        if image is None:
            return self._pick(Faces.none())
        due = 0 < self._detector.refresh <= self._main.followed
        if (box := self._main.box) is not None and not due:
            near = self._taken(self._detector.follow(image, self._place(box, image)), image)
            if (kept := self._main.keep(near)) is not None:
                return _one(near, kept)
        return self._pick(self._taken(self._detector.detect(image), image))

    def _taken(self, found: Faces, image: Image) -> Faces:
        """Give what a detector found in an image: usable faces, in pixels of the first frame."""
        return rescaled(_usable(found), (image.shape[1], image.shape[0]), self._size)

    def _place(self, box: NDArray[np.float32], image: Image) -> NDArray[np.float32]:
        """Give a box in pixels of the image."""
        width, height = self._size
        if (image.shape[1], image.shape[0]) == self._size:
            return box
        scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)
        return box * np.tile(scale, 2)

    def _pick(self, faces: Faces) -> Faces | None:
        chosen = self._main.pick(faces, *self._size)
        return None if chosen is None else _one(faces, chosen)

    def _strided(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Faces | None]]:
        before: tuple[float, Faces | None] | None = None
        # The first frame is searched by itself: there is nothing before it to interpolate from.
        for group in _groups(frames, self._stride):
            saved = copy.copy(self._main)
            found = self._look(group[-1].image)
            if len(group) == 1:
                faces = [found]
            elif before is not None and (before[1] is None) == (found is None):
                ends = (before, (group[-1].time, found))
                faces = [*_between(*ends, [frame.time for frame in group[:-1]]), found]
                if found is None:
                    self._main.miss(len(group) - 1)
            else:
                self._main = saved
                faces = [self._look(frame.image) for frame in group]
            before = group[-1].time, faces[-1]
            # A number missing from a folder of images has no picture to take the face from.
            for frame, face in zip(group, faces, strict=True):
                yield frame, None if frame.image is None else face


def _groups(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    """Give the first frame alone, then the others in groups."""
    group = list(itertools.islice(frames, 1))
    while group:
        yield group
        group = list(itertools.islice(frames, size))


def _between(
    start: tuple[float, Faces | None], end: tuple[float, Faces | None], times: Sequence[float]
) -> list[Faces | None]:
    """Interpolate a face linearly by time between two frames that show it, or neither does."""
    (t0, first), (t1, last) = start, end
    if first is None or last is None:
        return [None] * len(times)
    shares = [(time - t0) / (t1 - t0) for time in times]
    mixed = [
        Faces(*(_mixed(a, b, share) for a, b in zip(first, last, strict=True))) for share in shares
    ]
    # Half-way between two faces that are turned against each other there is none.
    return [face if is_alignable(face.landmarks[0]) else None for face in mixed]


def _mixed(a: NDArray[np.float32], b: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    return (a * (1 - share) + b * share).astype(np.float32)


def _usable(faces: Faces) -> Faces:
    usable = [i for i, points in enumerate(faces.landmarks) if is_alignable(points)]
    return faces if len(usable) == len(faces.score) else Faces(*(part[usable] for part in faces))


def _one(faces: Faces, index: int) -> Faces:
    return Faces(*(part[index : index + 1] for part in faces))
