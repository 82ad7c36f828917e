"""The face finder that comes with feie: YuNet's boxes, and O-Net's landmarks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.faces.bundled import BUNDLED, ONET, YUNET, read_bundled
from feie.features.faces.detection import DetectOptions, Faces, search_options
from feie.features.faces.onet import SIDE, LandmarkNet
from feie.features.faces.yunet import YuNet
from feie.features.video.reader import Image

NAME = "yunet+onet"


class Finder(YuNet):
    """YuNet finds faces, MTCNN's O-Net places their landmarks, from the frame at its full size.

    YuNet's own landmarks are poor on turned heads. Against insightface's det_500m on real clips
    (docs/stage-one.md) these are as near as those of insightface's next larger detector.

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

    @property
    def options(self) -> dict[str, Any]:
        """Everything but YuNet's weights that changes numbers."""
        return finder_options(self._search)

    def detect_many(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces of several frames."""
        found = super().detect_many(images)
        return [self._placed(image, faces) for image, faces in zip(images, found, strict=True)]

    def follow(self, rgb: Image, box: NDArray[np.float32]) -> Faces:
        """Find faces around the place where one was; see `Detector.follow`."""
        return self._placed(rgb, super().follow(rgb, box))

    def _placed(self, rgb: Image, faces: Faces) -> Faces:
        return faces._replace(landmarks=self._net.landmarks(rgb, faces.bbox))


def finder_options(options: DetectOptions) -> dict[str, Any]:
    """Give what a store says of the finder beside its name and YuNet's sha256, in JSON types."""
    return {**search_options(options), "onet_sha256": BUNDLED[ONET], "onet_side": SIDE}
