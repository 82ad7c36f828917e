"""A teacher of action units: MediaPipe's blendshapes on real faces, mapped by a stated table.

Its outputs are guesses, good enough to carry what renders teach over to photographs, and never
more than pseudo-labels: from one person to the next its brow-lowering, frown and press follow light
and beards as much as expressions, and on enlarged pictures of 48 pixels they are noisier still. Its
cheek squint and nose sneer stay near zero whatever the face does and are not used. AU06 and AU25
follow by rules of ours from the smile and the gap between the lips.
"""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError, MissingWeightsError
from feie.features.schema import ACTION_UNITS

TABLE: dict[str, tuple[tuple[int, ...], float]] = {
    "AU01": ((3,), 0.6),
    "AU02": ((4, 5), 0.6),
    "AU04": ((1, 2), 0.5),
    "AU05": ((21, 22), 0.3),
    "AU10": ((48, 49), 0.4),
    "AU12": ((44, 45), 0.6),
    "AU15": ((30, 31), 0.3),
    "AU17": ((42,), 0.5),
    "AU20": ((46, 47), 0.4),
    "AU23": ((40, 41), 0.5),
    "AU24": ((36, 37), 0.4),
    "AU26": ((25,), 0.4),
}
"""Action unit to blendshapes, whose mean is divided by the value that counts as full activation:
inner brow up; outer brow up; brow down; eye wide; upper lip up; smile; mouth frown; lower lip
shrugged; mouth stretch; lips rolled in; mouth pressed; jaw open (left and right where there are
both)."""

GAP_CLOSED, GAP_OPEN = 0.02, 0.10
"""AU25 comes from geometry: the distance of the inner lips over the height of the face rises
from closed to open between these."""

_SMILE, _SQUINT = (44, 45), (19, 20)
CHEEKS_REST, CHEEKS_RAISED, SQUINT = 0.3, 0.9, 0.5
"""AU06 comes from the smile, which lifts the cheeks as it grows: none at the first value of the
smile blendshape, full at the second. Eyes that squint (above the third) without a smile may do so
by AU06 or AU07: unknown."""

_INNER_LIPS = (13, 14)
_FACE_HEIGHT = (10, 152)
_MARGIN = 24
# The landmarks that the blendshape model reads, of the 478 that the landmark model gives.
_READ = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65,
    66, 67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136,
    144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172,
    173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324,
    332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385,
    386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472,
    473, 474, 475, 476, 477,
)  # fmt: skip


class Guess(NamedTuple):
    """What the teacher sees in one face.

    Attributes
    ----------
    score : float
        Logit of there being a face.
    blendshapes : ndarray (52,) float32
        In [0, 1].
    gap : float
        Distance of the inner lips over the height of the face.
    """

    score: float
    blendshapes: NDArray[np.float32]
    gap: float


class Teacher:
    """The landmark and blendshape models of a ``face_landmarker.task`` bundle, run by LiteRT.

    Parameters
    ----------
    path : Path
        The bundle: a zip of TFLite models.

    Raises
    ------
    MissingWeightsError
        The bundle, or the package ``ai-edge-litert``, is not on this machine.
    DataError
        A file that is no such bundle.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingWeightsError(f"no face_landmarker.task at {path}")
        try:
            litert = importlib.import_module("ai_edge_litert.interpreter")
        except ImportError as error:
            raise MissingWeightsError(
                "the teacher needs the package ai-edge-litert: pip install ai-edge-litert"
            ) from error
        try:
            with zipfile.ZipFile(path) as bundle:
                contents = [
                    bundle.read(f"{name}.tflite")
                    for name in ("face_landmarks_detector", "face_blendshapes")
                ]
        except (zipfile.BadZipFile, KeyError) as error:
            raise DataError(f"{path} is no face_landmarker.task bundle: {error}") from error
        self._landmarks, self._blendshapes = (
            litert.Interpreter(model_content=content, num_threads=1) for content in contents
        )
        self._landmarks.allocate_tensors()
        self._blendshapes.allocate_tensors()

    def __call__(self, face: NDArray[np.uint8]) -> Guess:
        """Look at one aligned RGB face (112, 112, 3)."""
        padded = cv2.copyMakeBorder(
            face, _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_CONSTANT, value=(0, 0, 0)
        )
        image = cv2.resize(padded, (256, 256), interpolation=cv2.INTER_CUBIC)
        outputs = _invoke(self._landmarks, image[None].astype(np.float32) / np.float32(255))
        points = outputs["Identity"].reshape(478, 3)[:, :2].astype(np.float32)
        shapes = next(iter(_invoke(self._blendshapes, points[None, _READ]).values()))
        lips = np.linalg.norm(np.subtract(*points[list(_INNER_LIPS)]))
        height = np.linalg.norm(np.subtract(*points[list(_FACE_HEIGHT)]))
        return Guess(float(outputs["Identity_1"].item()), shapes.reshape(52), float(lips / height))


def _invoke(model: Any, value: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    model.set_tensor(model.get_input_details()[0]["index"], value)
    model.invoke()
    return {
        output["name"]: model.get_tensor(output["index"]).copy()
        for output in model.get_output_details()
    }


def guessed_units(guess: Guess) -> NDArray[np.float32]:
    """Map a guess to action units by `TABLE`.

    Parameters
    ----------
    guess : Guess
        What the teacher saw.

    Returns
    -------
    ndarray (17,) float32
        Activations in [0, 1]; NaN for units not in the table, and all NaN where the teacher
        sees no face.
    """
    units = np.full(len(ACTION_UNITS), np.nan, dtype=np.float32)
    if guess.score <= 0:
        return units
    for name, (places, full) in TABLE.items():
        units[ACTION_UNITS.index(name)] = min(guess.blendshapes[list(places)].mean() / full, 1.0)
    smile, squint = (guess.blendshapes[list(places)].mean() for places in (_SMILE, _SQUINT))
    cheeks = min(max((smile - CHEEKS_REST) / (CHEEKS_RAISED - CHEEKS_REST), 0.0), 1.0)
    if cheeks or squint <= SQUINT:
        units[ACTION_UNITS.index("AU06")] = cheeks
    opening = (guess.gap - GAP_CLOSED) / (GAP_OPEN - GAP_CLOSED)
    units[ACTION_UNITS.index("AU25")] = min(max(opening, 0.0), 1.0)
    return units
