"""Faces cut out of frames: what an extractor sees, and what a picture for people shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.faces.align import ALIGNED_SIZE, align_face, is_alignable
from feie.features.video.reader import Image

CropKind = Literal["aligned", "box"]
_PICTURE_MARGIN = 1.3  # sides of a box that a picture without landmarks shows


@dataclass(frozen=True)
class Crop:
    """How a face is cut out of its frame.

    Attributes
    ----------
    kind : {"aligned", "box"}
        ``aligned``: five landmarks warped onto the ArcFace template. ``box``: the detector's box,
        not turned, and stretched to a square whatever its shape.
    size : int
        Side of the crop, px.
    margin : float
        Of a box: how much of its width and height is added on each side.
    """

    kind: CropKind = "aligned"
    size: int = ALIGNED_SIZE
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 1024:
            raise UsageError(f"the side of a face crop must lie in [16, 1024] px, not {self.size}")
        if not 0 <= self.margin <= 2 or (self.margin and self.kind == "aligned"):
            raise UsageError(
                f"a margin must lie in [0, 2], and belongs to the crop 'box': {self.margin}"
            )

    def cut(self, rgb: Image, box: NDArray[np.floating], landmarks: NDArray[np.floating]) -> Image:
        """Cut a face out of a frame.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            The frame.
        box : (4,) float array
            x0, y0, x1, y1, px; what lies beyond the frame is left out.
        landmarks : (5, 2) float array
            px, in the template's order.

        Returns
        -------
        (size, size, 3) uint8 array

        Raises
        ------
        ValueError
            Landmarks that `align.is_alignable` refuses, for an aligned crop.
        """
        if self.kind == "aligned":
            return align_face(rgb, landmarks, self.size)
        (x0, x1), (y0, y1) = (
            _within(float(box[axis]), float(box[axis + 2]), self.margin, rgb.shape[1 - axis])
            for axis in (0, 1)
        )
        # Bilinear also where it shrinks: what the networks that see boxes were trained on.
        return _resized(rgb[y0:y1, x0:x1], self.size, cv2.INTER_LINEAR)

    def fit(self, face: Image) -> Image:
        """Bring a square picture that is a face crop already, of whatever kind, to this size."""
        if face.shape[0] == self.size:
            return face
        shrink = face.shape[0] > self.size
        return _resized(face, self.size, cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


ALIGNED = Crop()
"""What an MMA sees: 112x112, aligned."""


def face_picture(
    rgb: Image,
    landmarks: NDArray[np.floating],
    bbox: NDArray[np.floating],
    size: int,
    unit: tuple[int, int] | None = None,
) -> Image:
    """Cut the face out of a frame: aligned by its landmarks, else its box, else the whole frame.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The frame.
    landmarks : (5, 2) float array
        px, in ArcFace's order; NaN where unknown.
    bbox : (4,) float array
        x0, y0, x1, y1, px; NaN where unknown.
    size : int
        Side of the picture, px.
    unit : (int, int), optional
        Width and height of the frame in whose pixels box and landmarks are, where that may not be
        this one's.

    Returns
    -------
    (size, size, 3) uint8 array
        Black where it reaches beyond the frame.
    """
    height, width = rgb.shape[:2]
    if unit is not None and min(unit) > 0 and unit != (width, height):
        scale_by = np.array([width / unit[0], height / unit[1]], np.float32)
        landmarks, bbox = landmarks * scale_by, bbox * np.tile(scale_by, 2)
    if is_alignable(landmarks):
        return align_face(rgb, landmarks, size)
    box = np.array([0, 0, width, height], np.float64)
    margin = 1.0
    if np.isfinite(bbox).all() and (bbox[2:] > bbox[:2]).all():
        box, margin = bbox.astype(np.float64), _PICTURE_MARGIN
    scale = size / (margin * max(box[2] - box[0], box[3] - box[1]))
    shift = size / 2 - scale * (box[:2] + box[2:]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def _within(low: float, high: float, margin: float, limit: int) -> tuple[int, int]:
    """Whole pixels from `low` to `high` and the margin, at least one, within [0, limit)."""
    more = margin * (high - low)
    start = min(max(round(low - more), 0), limit - 1)
    return start, min(max(round(high + more), start + 1), limit)


def _resized(image: Image, size: int, how: int) -> Image:
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), np.uint8)
