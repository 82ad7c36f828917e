"""Several detectors in turn: the next is asked where the ones before it find nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.faces.detection import Detector, Faces
from feie.features.video.reader import Image


class Fallback:
    """Detectors tried in turn on each frame, up to the first that finds a face.

    Around the last place of a face only the first is asked: where it finds none there, the whole
    frame is searched, by the first and then by the others. Give each video one of its own
    (`for_video`): it counts.

    Parameters
    ----------
    detectors : sequence of Detector
        Two or more.

    Attributes
    ----------
    rescued : int
        Frames in which the first found nothing and another did.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = tuple(detectors)
        self.name = ",".join(detector.name for detector in detectors)
        self.sha256 = detectors[0].sha256
        self.refresh = detectors[0].refresh
        self.rescued = 0

    @property
    def options(self) -> dict[str, Any]:
        """Of the first; those of the others, with their names and weights, as ``fallback``."""
        first, *others = (_described(detector) for detector in self._detectors)
        return chained_options(first, others)

    def for_video(self) -> Fallback:
        """Give the same detectors with a count of their own."""
        return Fallback(self._detectors)

    def detect(self, rgb: Image) -> Faces:
        """Find the faces of a frame."""
        return self.detect_many([rgb])[0]

    def detect_many(self, images: Sequence[Image]) -> list[Faces]:
        """Find the faces of several frames; the others see only frames without a face so far."""
        first, *others = self._detectors
        found = first.detect_many(images)
        for detector in others:
            empty = [i for i, faces in enumerate(found) if not len(faces.score)]
            if not empty:
                break
            again = detector.detect_many([images[i] for i in empty])
            for i, faces in zip(empty, again, strict=True):
                found[i] = faces
                self.rescued += bool(len(faces.score))
        return found

    def follow(self, rgb: Image, box: NDArray[np.float32]) -> Faces:
        """Find faces around the place where one was, by the first detector."""
        return self._detectors[0].follow(rgb, box)


def chained_options(first: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the options of several detectors in turn, from what each says of itself."""
    own = {name: value for name, value in first.items() if name not in ("name", "sha256")}
    return {**own, "fallback": list(others)}


def _described(detector: Detector) -> dict[str, Any]:
    return {"name": detector.name, "sha256": detector.sha256, **detector.options}
