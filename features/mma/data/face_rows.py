"""Faces by row: from memory, from a pack, or from image files that are read when asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.faces.align import align_face, is_alignable
from feie.features.faces.detection import Detector
from feie.features.mma.data.crops import (
    SIDE,
    Alignment,
    Change,
    decode_image,
    enlarged,
    fixed_crop,
    found_landmarks,
    pack_faces,
)
from feie.features.mma.data.packs import Pack
from feie.features.mma.data.readers.listing import Listing

Rows = NDArray[np.int64]
Image = NDArray[np.uint8]

_LEAST_BOX = 8
_LEAST_UNREADABLE = 5
_UNTRIED, _ALIGNED, _LANDMARKS, _DETECTED, _FIXED, _UNREADABLE = range(6)


class FaceRows(Protocol):
    """Faces of a set of images."""

    def read(self, rows: Rows) -> tuple[Image, NDArray[np.bool_]]:
        """Give faces (k, 112, 112, c), RGB or grey, and which of them could be read."""
        ...

    @property
    def alignment(self) -> Alignment:
        """How the faces came to 112x112; of image files, those that have been read so far."""
        ...

    @property
    def unreadable(self) -> Rows:
        """Rows that were asked for and could not be read."""
        ...


class MemoryFaces:
    """Faces that were decoded before.

    Parameters
    ----------
    faces : ndarray (n, 112, 112, c) uint8
    alignment : Alignment
    """

    unreadable: Rows = np.empty(0, dtype=np.int64)

    def __init__(self, faces: Image, alignment: Alignment) -> None:
        self._faces = faces
        self.alignment = alignment

    def read(self, rows: Rows) -> tuple[Image, NDArray[np.bool_]]:
        """Give the faces of some rows."""
        return self._faces[rows], np.ones(len(rows), dtype=np.bool_)


class PackFaces:
    """Faces of a pack, decoded when asked for: a pack decoded whole may not fit into memory.

    Parameters
    ----------
    pack : Pack
    detector : Detector, optional
        Aligns images that are not 112x112.
    change : callable, optional
        Done to each image before it is aligned.
    """

    unreadable: Rows = np.empty(0, dtype=np.int64)

    def __init__(
        self, pack: Pack, detector: Detector | None = None, change: Change | None = None
    ) -> None:
        self._pack, self._detector, self._change = pack, detector, change
        self.alignment = Alignment()

    def read(self, rows: Rows) -> tuple[Image, NDArray[np.bool_]]:
        """Decode some rows.

        Raises
        ------
        DataError
            One of them is broken.
        """
        faces, alignment = pack_faces(self._pack.select(rows), self._detector, self._change)
        self.alignment += alignment
        return faces, np.ones(len(rows), dtype=np.bool_)


class FileFaces:
    """Faces of image files, read and aligned when asked for; may be used by several threads.

    An image of 112x112 is taken as aligned. Any other is aligned by the landmarks that its data
    set gives; else its face box is cut out, and aligned by a detector or the fixed crop. What a
    detector found is remembered, so that it runs once an image.

    Parameters
    ----------
    listing : Listing
        The files.
    detector : Detector, optional
        For images without landmarks.
    tolerance : float
        Largest share of the images tried that may be unreadable; up to five always may.
    change : callable, optional
        Done to each image before it is aligned.
    """

    def __init__(
        self,
        listing: Listing,
        detector: Detector | None = None,
        tolerance: float = 0.01,
        change: Change | None = None,
    ) -> None:
        self._listing, self._detector, self._tolerance = listing, detector, tolerance
        self._change = change
        self._state = np.full(len(listing), _UNTRIED, dtype=np.uint8)
        self._detecting = threading.Lock()
        found = (len(listing), 5, 2) if detector is not None else (0, 5, 2)
        self._found = np.full(found, np.nan, dtype=np.float32)

    @property
    def alignment(self) -> Alignment:
        """How the images that were read so far came to 112x112."""
        counts = np.bincount(self._state, minlength=6)
        return Alignment(
            aligned=int(counts[_ALIGNED]),
            landmarks=int(counts[_LANDMARKS]),
            detected=int(counts[_DETECTED]),
            fixed=int(counts[_FIXED]),
        )

    @property
    def unreadable(self) -> Rows:
        """Rows that could not be read."""
        return np.flatnonzero(self._state == _UNREADABLE).astype(np.int64)

    def read(self, rows: Rows) -> tuple[Image, NDArray[np.bool_]]:
        """Read and align some rows; what cannot be read stays black and is told.

        Raises
        ------
        DataError
            More images than tolerated cannot be read.
        """
        faces = np.zeros((len(rows), SIDE, SIDE, 3), dtype=np.uint8)
        readable = np.zeros(len(rows), dtype=np.bool_)
        for place, row in enumerate(rows):
            if self._state[row] == _UNREADABLE:
                continue
            image = self._decode(int(row))
            if image is None:
                self._state[row] = _UNREADABLE
                continue
            faces[place], self._state[row] = self._align(int(row), image)
            readable[place] = True
        if not readable.all():
            self._check()
        return faces, readable

    def _decode(self, row: int) -> Image | None:
        try:
            image = decode_image(np.fromfile(self._listing.path(row), dtype=np.uint8))
        except OSError:
            return None
        return image if image is None or self._change is None else self._change(image)

    def _align(self, row: int, image: Image) -> tuple[Image, int]:
        if image.shape[:2] == (SIDE, SIDE):
            return image, _ALIGNED
        landmarks, boxes = self._listing.landmarks, self._listing.boxes
        if boxes is None or _of_this(boxes[row], image):
            if landmarks is not None and _fits(landmarks[row], image):
                return align_face(image, landmarks[row]).reshape(SIDE, SIDE, -1), _LANDMARKS
            if boxes is not None:
                image = _cut(image, boxes[row])
        if self._detector is not None:
            picture = enlarged(image)
            found = self._search(row, picture, self._detector)
            if found is not None:
                return align_face(picture, found), _DETECTED
        return fixed_crop(image), _FIXED

    def _search(self, row: int, picture: Image, detector: Detector) -> NDArray[np.float32] | None:
        state = self._state[row]
        if state == _UNTRIED:
            with self._detecting:  # not every detector may be asked by two threads at once
                found = found_landmarks(picture, detector)
            if found is not None:
                self._found[row] = found
            return found
        return self._found[row] if state == _DETECTED else None

    def _check(self) -> None:
        tried = int((self._state != _UNTRIED).sum())
        broken = self.unreadable
        if len(broken) > max(_LEAST_UNREADABLE, self._tolerance * tried):
            some = ", ".join(str(self._listing.path(int(row))) for row in broken[:3])
            raise DataError(
                f"{self._listing.title}: {len(broken)} of the {tried} images tried cannot be read "
                f"({some}, …); mend them or raise tolerance ({self._tolerance:g})"
            )


def _of_this(box: NDArray[np.float32], image: Image) -> bool:
    """Tell whether a face box may be of this image, and not of a larger one it was cut from."""
    height, width = image.shape[:2]
    return not (box[2] > 1.05 * width or box[3] > 1.05 * height)


def _fits(landmarks: NDArray[np.float32], image: Image) -> bool:
    """Tell whether landmarks may be of this image: within it, or not far outside."""
    size = np.array([image.shape[1], image.shape[0]], dtype=np.float32)
    if not is_alignable(landmarks):
        return False
    return bool(((landmarks > -0.25 * size) & (landmarks < 1.25 * size)).all())


def _cut(image: Image, box: NDArray[np.float32]) -> Image:
    """Cut a face box (x0, y0, x1, y1 px) out, as far as it lies in the image."""
    if not np.isfinite(box).all():
        return image
    x0, y0 = (max(0, round(float(v))) for v in box[:2])
    x1, y1 = round(float(box[2])), round(float(box[3]))
    part = image[y0 : max(y1, 0), x0 : max(x1, 0)]
    return image if min(part.shape[:2]) < _LEAST_BOX else part


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], workers: int
) -> Iterator[_Result]:
    """Apply a function in threads and give the results in order, a few ahead of their use.

    Parameters
    ----------
    work : callable
        What to do with an item.
    items : iterable
        Taken as they are needed.
    workers : int
        Threads; at most one result more than that is waiting.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[_Result]] = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def worker_count(asked: int, busy: int) -> int:
    """Give the number of threads that prepare images.

    Parameters
    ----------
    asked : int
        0 takes the processors that the network leaves, at least one and at most eight.
    busy : int
        Threads of the network.
    """
    return asked or max(1, min(8, (os.cpu_count() or 1) - busy))
