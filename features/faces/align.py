"""Aligned faces: five landmarks onto the ArcFace template by the best similarity transform."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from feie.features.video.reader import Image

ALIGNED_SIZE = 112
"""Side of an aligned face, px."""

ARCFACE_TEMPLATE: NDArray[np.float32] = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ],
    dtype=np.float32,
)
"""(5, 2) px in a 112x112 crop: eye on the left of the image, eye on its right, tip of the nose,
left and right corner of the mouth."""

# Landmarks closer together than this hold no face that a network could read.
_LEAST_SPREAD = 1.0
# Landmarks that resemble the template this little (1 is the same shape, 0 has nothing in common
# with it, as a mirrored face has little) would be blown up or turned at random.
_LEAST_LIKENESS = 0.3


def is_alignable(landmarks: NDArray[np.floating]) -> bool:
    """Tell whether five landmarks span a face: finite, apart, and not of a hopeless shape.

    Parameters
    ----------
    landmarks : (5, 2) float array
        px in the frame.
    """
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        return False
    source, target = _centred(landmarks), _centred(ARCFACE_TEMPLATE)
    spread, size = np.linalg.norm(source), np.linalg.norm(target)
    if spread < _LEAST_SPREAD * np.sqrt(5):
        return False
    return bool(abs(np.vdot(source, target)) >= _LEAST_LIKENESS * spread * size)


def similarity(landmarks: NDArray[np.floating], size: int = ALIGNED_SIZE) -> NDArray[np.float64]:
    """Least-squares similarity (scale, rotation, shift; no reflection) onto the template.

    With points as complex numbers about their means, p in the frame and q in the template, the
    minimum of Σ |q - a p|² is at a = Σ conj(p) q / Σ |p|²: Umeyama's solution in two dimensions.

    Parameters
    ----------
    landmarks : (5, 2) float array
        px in the frame, in the template's order.
    size : int
        Side of the crop, px; the template scales with it.

    Returns
    -------
    (2, 3) float64 array
        Affine matrix that takes frame coordinates to crop coordinates.

    Raises
    ------
    ValueError
        Landmarks that `is_alignable` refuses.
    """
    if not is_alignable(landmarks):
        raise ValueError("these landmarks span no face: ask is_alignable first")
    template = ARCFACE_TEMPLATE.astype(np.float64) * (size / ALIGNED_SIZE)
    source = _centred(landmarks)
    factor = np.vdot(source, _centred(template)) / np.vdot(source, source).real
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    shift = template.mean(axis=0) - linear @ landmarks.astype(np.float64).mean(axis=0)
    return np.column_stack([linear, shift])


def align_face(rgb: Image, landmarks: NDArray[np.floating], size: int = ALIGNED_SIZE) -> Image:
    """Warp a face onto the template: bilinear, black outside the frame.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The frame.
    landmarks : (5, 2) float array
        px in the frame, in the template's order.
    size : int
        Side of the crop, px.

    Returns
    -------
    (size, size, 3) uint8 array

    Raises
    ------
    ValueError
        Landmarks that `is_alignable` refuses.
    """
    matrix = similarity(landmarks, size)
    return np.asarray(cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def _centred(points: ArrayLike) -> NDArray[np.complex128]:
    xy = np.asarray(points, np.float64)
    xy = xy - xy.mean(axis=0)
    return np.asarray(xy[:, 0] + 1j * xy[:, 1])
