"""The face finder that comes with feie: YuNet's boxes, and O-Net's landmarks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.faces.bundled import BUNDLED, ONET, YUNET, read_bundled
from feie.features.faces.detection import DetectOptions, Faces, search_options
from feie.features.faces.onet import INPUT, SIDE, LandmarkNet
from feie.features.faces.yunet import YuNet
from feie.features.video.reader import Image

NAME = "yunet+onet"

REFRESH = 15
"""Frames in a row that may be followed before the whole frame is searched anew."""

_SURE = 0.9  # O-Net's probability below which a followed face is in doubt; 1 % of frames have less
_SWELL = 1.5  # as much may a box grow or shrink from one frame to the next
# YuNet's box in terms of O-Net's landmarks: its centre's distance from theirs, and its width and
# height, in spreads (root of their mean squared distance from their mean); medians over 3,228
# faces of real clips.
_CENTRE = np.array([0.02, -0.35], np.float32)
_EXTENT = np.array([3.47, 4.69], np.float32)


class Finder(YuNet):
    """YuNet finds faces, MTCNN's O-Net places their landmarks, from the frame at its full size.

    YuNet's own landmarks are poor on turned heads; how near these are to those of insightface's
    detectors is in docs/stage-one.md. Once found, a face is followed by O-Net alone: it looks
    where the face was, says where its landmarks are now and whether this is a face, and the next
    box is the one that YuNet would draw around such landmarks. Where it is in doubt, and after
    `REFRESH` frames in a row, the whole frame is searched anew.

    Parameters
    ----------
    options : DetectOptions
        How to search.

    Raises
    ------
    MissingWeightsError, UsageError
        The weights are not there, or not what they should be.
    """

    def __init__(self, options: DetectOptions) -> None:
        path, _ = read_bundled(YUNET)
        super().__init__(path, BUNDLED[YUNET], options)
        self.name = NAME
        onet, model = read_bundled(ONET)
        self._net = LandmarkNet(model, onet)

    refresh = REFRESH

    @property
    def options(self) -> dict[str, Any]:
        """Everything but YuNet's weights that changes numbers."""
        return finder_options(self._search)

    def detect_many(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces of several frames."""
        found = super().detect_many(images)
        return [self._placed(image, faces) for image, faces in zip(images, found, strict=True)]

    def follow(self, rgb: Image, box: NDArray[np.float32]) -> Faces:
        """Find the face where one was, by O-Net; its score is O-Net's probability."""
        if not self._search.follow:
            return Faces.none()
        landmarks, score = self._net.look(rgb, box[None])
        bbox = _box_around(landmarks[0])
        swell = (bbox[2:] - bbox[:2]).max() / max(float((box[2:] - box[:2]).max()), 1e-3)
        if score[0] < _SURE or not 1 / _SWELL < swell < _SWELL:
            return Faces.none()
        return Faces(bbox[None], score, landmarks)

    def _placed(self, rgb: Image, faces: Faces) -> Faces:
        return faces._replace(landmarks=self._net.look(rgb, faces.bbox)[0])


def _box_around(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the box (4,) that YuNet would draw around landmarks (5, 2), px."""
    middle = landmarks.mean(axis=0)
    spread = np.sqrt(np.square(landmarks - middle).sum() / len(landmarks))
    centre, extent = middle + _CENTRE * spread, _EXTENT * spread
    return np.concatenate([centre - extent / 2, centre + extent / 2])


def finder_options(options: DetectOptions) -> dict[str, Any]:
    """Give what a store says of the finder beside its name and YuNet's sha256, in JSON types."""
    followed = {"follow": INPUT, "margin": SIDE, "refresh": REFRESH} if options.follow else {}
    own = {"onet_sha256": BUNDLED[ONET], "onet_side": SIDE}
    return {**search_options(options), **followed, **own}
