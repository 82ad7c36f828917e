"""OpenCV's YuNet: a small detector under the MIT licence."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces.bundled import YUNET, read_bundled
from feie.features.faces.detection import DetectOptions, Faces, ScaledDetector
from feie.features.video.reader import Image

_KEPT = 100  # finds looked at before overlapping ones are dropped


class YuNet(ScaledDetector):
    """YuNet by `cv2.FaceDetectorYN`.

    Its landmarks are the subject's right eye, left eye, nose, right and left corner of the
    mouth; the subject's right is the image's left, so this is ArcFace's order already. One
    object may serve several threads: each thread gets a network of its own.

    Parameters
    ----------
    path : Path
        ONNX file, ``face_detection_yunet_2023mar.onnx``.
    sha256 : str
        Hash of the file.
    options : DetectOptions
        How to search.

    Raises
    ------
    UsageError
        The file is damaged, or is no YuNet.
    """

    def __init__(self, path: Path, sha256: str, options: DetectOptions) -> None:
        super().__init__(f"yunet:{path.stem}", sha256, options)
        self._path = path
        self._local = threading.local()
        try:
            self._find([np.zeros((32, 32, 3), np.uint8)])
        except cv2.error as error:
            raise UsageError(
                f"{path} is damaged or not OpenCV's YuNet; put face_detection_yunet_2023mar.onnx "
                "there"
            ) from error

    def _find(self, canvases: Sequence[Image]) -> list[Faces]:
        return [self._find_one(canvas) for canvas in canvases]

    def _find_one(self, canvas: Image) -> Faces:
        network = self._network()
        network.setInputSize((canvas.shape[1], canvas.shape[0]))
        found = network.detect(canvas)[1]
        if found is None:
            return Faces.none()
        found = np.asarray(found, np.float32)
        found = found[np.argsort(-found[:, 14], kind="stable")]
        corner, extent = found[:, :2], found[:, 2:4]
        bbox = np.concatenate([corner, corner + extent], axis=1)
        return Faces(bbox, found[:, 14], found[:, 4:14].reshape(-1, 5, 2))

    def _network(self) -> Any:
        if not hasattr(self._local, "network"):
            search = self._search
            self._local.network = cv2.FaceDetectorYN.create(
                str(self._path), "", (32, 32), search.threshold, search.overlap, _KEPT
            )
        return self._local.network


def find_weights(spec: str) -> Path:
    """Find YuNet's weights: the file named, else feie's own, else the one `feie models` fetched.

    Raises
    ------
    MissingWeightsError
        They are not there.
    UsageError
        feie's own are damaged.
    """
    if not spec:
        return read_bundled(YUNET)[0]
    path = Path(expanduser(spec))
    if not path.is_file():
        raise MissingWeightsError(
            f"there is no {path}; leave out the name for the {YUNET} that comes with feie"
        )
    return path
