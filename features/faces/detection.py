"""What a face detector gives, and how detectors look at several scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.video.reader import Image


class Faces(NamedTuple):
    """Faces of one frame, in the frame's pixels, best score first.

    Attributes
    ----------
    bbox : (n, 4) float32 array
        x0, y0, x1, y1; may reach beyond the frame.
    score : (n,) float32 array
        Of the detector, in [0, 1].
    landmarks : (n, 5, 2) float32 array
        In ArcFace's order: eye on the left of the image, eye on its right, tip of the nose,
        left and right corner of the mouth.
    """

    bbox: NDArray[np.float32]
    score: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    @classmethod
    def none(cls) -> Faces:
        """Give the faces of an empty frame."""
        return cls(
            np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32)
        )


def rescaled(faces: Faces, before: tuple[int, int], after: tuple[int, int]) -> Faces:
    """Give faces of a frame of one (width, height), px, as they lie in the frame at another."""
    if before == after:
        return faces
    x, y = after[0] / before[0], after[1] / before[1]
    scale = np.array([x, y], np.float32)
    return Faces(faces.bbox * np.tile(scale, 2), faces.score, faces.landmarks * scale)


class Detector(Protocol):
    """A face detector, with what its provenance needs."""

    @property
    def name(self) -> str:
        """Kind and weights, e.g. ``scrfd:det_500m``."""
        ...

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of the weights file."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the weights that changes numbers, in JSON types."""
        ...

    @property
    def refresh(self) -> int:
        """Frames in a row for which `follow` may be believed before a full search; 0: any."""
        ...

    def detect(self, rgb: Image) -> Faces:
        """Find the faces of a (h, w, 3) uint8 frame; safe to call from several threads."""
        ...

    def detect_many(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces of several frames, in as few calls of the network as they allow."""
        ...

    def follow(self, rgb: Image, box: NDArray[np.float32]) -> Faces:
        """Find faces around the place (4,) where one was; none where a full search is needed."""
        ...


@dataclass(frozen=True)
class DetectOptions:
    """How a frame is searched.

    A frame is scaled so that its longer side is `size`. If the best face found there scores
    below `retry_below`, or there is none, it is searched again at each of `retry_sizes`, and
    overlapping finds are reduced to the one of the best score. One size alone will not do:
    detectors miss faces that fill a large input, and faces that are tiny in a small one.

    Where a face is known from the frame before, a square of `margin` times its box is looked at
    first, scaled to `follow`. Only a find that scores `retry_below` or more there, with all its
    landmarks inside the square, saves the search of the whole frame.

    Attributes
    ----------
    size : int
        Longer side of the network's first input, px.
    retry_sizes : tuple of int
        Longer sides tried after a poor first look, px.
    retry_below : float
        Score in [0, 1] of a poor look.
    threshold : float
        Least score of a face, in (0, 1).
    overlap : float
        IoU above which two finds are the same face.
    follow : int
        Side of the network's input for the look around the last place, px; 0 for none: every
        frame is searched whole.
    margin : float
        Side of the square that is looked at, in longer sides of the last box, > 1.
    """

    size: int = 320
    retry_sizes: tuple[int, ...] = (640, 160)
    retry_below: float = 0.6
    threshold: float = 0.5
    overlap: float = 0.4
    follow: int = 160
    margin: float = 1.6

    def __post_init__(self) -> None:
        sizes = (self.size, *self.retry_sizes, self.follow or self.size)
        if any(not 32 <= size <= 4096 for size in sizes):
            raise UsageError(f"detection sizes must lie in [32, 4096]: {self}")
        if not 0 < self.threshold < 1 or not 0 < self.overlap < 1 or not 0 <= self.retry_below <= 1:
            raise UsageError(f"detection scores and overlaps must lie in (0, 1): {self}")
        if not 1 < self.margin <= 8:
            raise UsageError(f"the margin around the last box must lie in (1, 8]: {self}")


class ScaledDetector(ABC):
    """A detector that searches as `DetectOptions` say; subclasses search one input.

    Parameters
    ----------
    name, sha256 : str
        See `Detector`.
    options : DetectOptions
        How to search.
    """

    refresh = 0

    def __init__(self, name: str, sha256: str, options: DetectOptions) -> None:
        self.name = name
        self.sha256 = sha256
        self._search = options

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the weights that changes numbers."""
        return search_options(self._search)

    def detect(self, rgb: Image) -> Faces:
        """Find the faces of a (h, w, 3) uint8 frame; safe to call from several threads."""
        return self.detect_many([rgb])[0]

    def detect_many(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces of several frames, in as few calls of the network as they allow.

        The same as `detect` of each; where the network takes several images at a time, equal
        within 0.01 px.
        """
        search = self._search
        first = self._at(images, search.size)
        poor = [i for i, faces in enumerate(first) if not _good(faces, search.retry_below)]
        if poor:
            again = [images[i] for i in poor]
            looks = [[first[i] for i in poor], *(self._at(again, s) for s in search.retry_sizes)]
            for i, parts in zip(poor, zip(*looks, strict=True), strict=True):
                found = Faces(*(np.concatenate(part) for part in zip(*parts, strict=True)))
                first[i] = suppress(found, search.overlap)
        return first

    def follow(self, rgb: Image, box: NDArray[np.float32]) -> Faces:
        """Find faces around the place where one was in the frame before.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            The frame.
        box : (4,) float array
            x0, y0, x1, y1 of the face in the frame before, px.

        Returns
        -------
        Faces
            Those that score `DetectOptions.retry_below` or more; none calls for a full search.
        """
        search = self._search
        window = _window(box, search.margin, rgb.shape[1], rgb.shape[0]) if search.follow else None
        if window is None:
            return Faces.none()
        x0, y0, x1, y1 = window
        faces = self._at([rgb[y0:y1, x0:x1]], search.follow)[0]
        landmarks = faces.landmarks + np.array([x0, y0], np.float32)
        inside = ((landmarks >= (x0, y0)) & (landmarks <= (x1, y1))).all(axis=(1, 2))
        sure = inside & (faces.score >= search.retry_below)
        bbox = faces.bbox + np.array([x0, y0, x0, y0], np.float32)
        return Faces(bbox[sure], faces.score[sure], landmarks[sure])

    def _at(self, images: Sequence[Image], size: int) -> list[Faces]:
        """Search each image at one size; images of one shape go to the network together."""
        scaled = [letterbox(image, size) for image in images]
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, (canvas, _) in enumerate(scaled):
            shapes.setdefault(canvas.shape, []).append(i)
        found: dict[int, Faces] = {}
        for rows in shapes.values():
            for i, faces in zip(rows, self._find([scaled[i][0] for i in rows]), strict=True):
                scale = scaled[i][1]
                found[i] = Faces(faces.bbox / scale, faces.score, faces.landmarks / scale)
        return [found[i] for i in range(len(images))]

    @abstractmethod
    def _find(self, canvases: Sequence[Image]) -> list[Faces]:
        """Faces of BGR inputs of one shape, sides multiples of 32; in their pixels, best first."""


def search_options(options: DetectOptions) -> dict[str, Any]:
    """Give the options of a search in JSON types."""
    return {**asdict(options), "retry_sizes": list(options.retry_sizes)}


def _good(faces: Faces, least: float) -> bool:
    return bool(len(faces.score) and faces.score.max() >= least)


def _window(
    box: NDArray[np.float32], margin: float, width: int, height: int
) -> tuple[int, int, int, int] | None:
    """Square of `margin` times a box's longer side about its centre, cut at the frame's edges."""
    side = margin * float(max(box[2] - box[0], box[3] - box[1]))
    x, y = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    x0, y0 = max(0, round(x - side / 2)), max(0, round(y - side / 2))
    x1, y1 = min(width, round(x + side / 2)), min(height, round(y + side / 2))
    return (x0, y0, x1, y1) if min(x1 - x0, y1 - y0) >= 8 else None


def letterbox(rgb: Image, size: int) -> tuple[Image, np.float32]:
    """Scale a frame's longer side to `size` and pad it with black, right and below.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The frame.
    size : int
        Longer side of the result before padding, px.

    Returns
    -------
    canvas : (H, W, 3) uint8 array
        BGR, as OpenCV and insightface want it; H and W are the next multiples of 32, which is
        less to compute than a square.
    scale : float32
        Pixels of the canvas per pixel of the frame.
    """
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = np.zeros((-(-h // 32) * 32, -(-w // 32) * 32, 3), np.uint8)
    small = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_LINEAR)
    cv2.cvtColor(small, cv2.COLOR_RGB2BGR, dst=canvas[:h, :w])
    return canvas, np.float32(scale)


def suppress(faces: Faces, overlap: float) -> Faces:
    """Keep the best of every group of faces that overlap by an IoU above `overlap`.

    Faces of equal score keep their order, so that the result is always the same.
    """
    order = np.argsort(-faces.score, kind="stable")
    kept: list[int] = []
    for i in order:
        if not kept or iou(faces.bbox[i], faces.bbox[kept]).max() <= overlap:
            kept.append(int(i))
    return Faces(faces.bbox[kept], faces.score[kept], faces.landmarks[kept])


def iou(box: NDArray[np.float32], bbox: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of one box (4,) with n boxes (n, 4), x0, y0, x1, y1; (n,)."""
    one, many = box.astype(np.float64), bbox.astype(np.float64)
    corner = np.minimum(one[2:], many[:, 2:]) - np.maximum(one[:2], many[:, :2])
    shared = np.prod(np.maximum(corner, 0.0), axis=1)
    area = np.prod(one[2:] - one[:2]) + np.prod(many[:, 2:] - many[:, :2], axis=1)
    return np.asarray(shared / np.maximum(area - shared, 1e-9))
