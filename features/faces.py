"""What a face detector gives, and how detectors look at several scales."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.frames import Image


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

    def detect(self, rgb: Image) -> Faces:
        """Find the faces of a (h, w, 3) uint8 frame; safe to call from several threads."""
        ...


@dataclass(frozen=True)
class DetectOptions:
    """How a frame is searched.

    A frame is scaled so that its longer side is `size`. If the best face found there scores
    below `retry_below`, or there is none, it is searched again at each of `retry_sizes`, and
    overlapping finds are reduced to the one of the best score. One size alone will not do:
    detectors miss faces that fill a large input, and faces that are tiny in a small one.

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
    """

    size: int = 320
    retry_sizes: tuple[int, ...] = (640, 160)
    retry_below: float = 0.6
    threshold: float = 0.5
    overlap: float = 0.4

    def __post_init__(self) -> None:
        if any(not 32 <= size <= 4096 for size in (self.size, *self.retry_sizes)):
            raise UsageError(f"detection sizes must lie in [32, 4096]: {self}")
        if not 0 < self.threshold < 1 or not 0 < self.overlap < 1 or not 0 <= self.retry_below <= 1:
            raise UsageError(f"detection scores and overlaps must lie in (0, 1): {self}")


class ScaledDetector(ABC):
    """A detector that searches as `DetectOptions` say; subclasses search one input.

    Parameters
    ----------
    name, sha256 : str
        See `Detector`.
    options : DetectOptions
        How to search.
    """

    def __init__(self, name: str, sha256: str, options: DetectOptions) -> None:
        self.name = name
        self.sha256 = sha256
        self._search = options

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the weights that changes numbers."""
        return {**asdict(self._search), "retry_sizes": list(self._search.retry_sizes)}

    def detect(self, rgb: Image) -> Faces:
        """Find the faces of a (h, w, 3) uint8 frame; safe to call from several threads."""
        search = self._search
        faces = self._at(rgb, search.size)
        if len(faces.score) and faces.score.max() >= search.retry_below:
            return faces
        looks = [faces, *(self._at(rgb, size) for size in search.retry_sizes)]
        found = Faces(*(np.concatenate(parts) for parts in zip(*looks, strict=True)))
        return suppress(found, search.overlap)

    def _at(self, rgb: Image, size: int) -> Faces:
        canvas, scale = letterbox(rgb, size)
        faces = self._find(canvas)
        return Faces(faces.bbox / scale, faces.score, faces.landmarks / scale)

    @abstractmethod
    def _find(self, canvas: Image) -> Faces:
        """Faces of a BGR input whose sides are multiples of 32, in its pixels, best first."""


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
    canvas[:h, :w] = small[:, :, ::-1]
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
