"""From the images of a pack to 112x112 faces as stage one would present them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from feie.features.errors import DataError
from feie.features.faces.align import align_face, is_alignable
from feie.features.faces.detection import DetectOptions, Detector
from feie.features.files import json_object, write_whole
from feie.features.mma.data.packs import Pack
from feie.features.video.quiet import quiet_opencv

SIDE = 112
FIXED_SIDE = 105
FIXED_OFFSET = (3, 12)
"""The fixed crop: an image that is a face crop is resized to 105x105 and put with its corner at
x = 3, y = 12 of the 112x112 face, edges repeated. Measured so that the median landmarks which
SCRFD finds on 400 enlarged FER2013 faces fall on the ArcFace template (scale 2.18 a pixel of 48,
offset 3.5, 12.0)."""

_MARGIN = 0.5
_DETECTION_SIDE = 256

CROP_SEARCH = DetectOptions(
    size=_DETECTION_SIDE, retry_sizes=(160, 320), retry_below=0.4, threshold=0.3
)
"""How detectors search the enlarged crops of a pack, which nearly all hold a face."""


@dataclass(frozen=True)
class Alignment:
    """How the faces of a pack came to 112x112: counts that sum to the number of images.

    Attributes
    ----------
    aligned : int
        Images of 112x112, taken as aligned.
    landmarks : int
        Images aligned by the landmarks that their data set gives.
    detected : int
        Face crops aligned by a detector's landmarks.
    fixed : int
        Face crops aligned by the fixed crop, because no detector was given or it found nothing.
    """

    aligned: int = 0
    landmarks: int = 0
    detected: int = 0
    fixed: int = 0

    def __add__(self, other: Alignment) -> Alignment:
        """Count both."""
        return Alignment(
            self.aligned + other.aligned,
            self.landmarks + other.landmarks,
            self.detected + other.detected,
            self.fixed + other.fixed,
        )


def decode(pack: Pack, row: int) -> NDArray[np.uint8]:
    """Decode one image of a pack to (h, w, 3) RGB, or (h, w, 1) where it is stored grey.

    Raises
    ------
    DataError
        It cannot be decoded.
    """
    stored = pack.images[row]
    if stored.ndim > 1:
        return stored.reshape(*stored.shape[:2], -1)
    image = decode_image(stored)
    if image is None:
        raise DataError(f"{pack.title}: image {pack.names[row]} (row {row}) cannot be decoded")
    return image


def left_out(pack: Pack, other: Pack) -> Pack:
    """Give the images of a pack that are not in another, pixel for pixel.

    Raises
    ------
    DataError
        One that cannot be decoded, or none is left.
    """
    theirs = {_pixels(other, row) for row in range(len(other))}
    rows = [row for row in range(len(pack)) if _pixels(pack, row) not in theirs]
    if not rows:
        raise DataError(f"{pack.title}: all of its images are in {other.title} too")
    return pack.select(np.array(rows))


def _pixels(pack: Pack, row: int) -> tuple[tuple[int, ...], bytes]:
    image = decode(pack, row)
    return image.shape, hashlib.sha256(image.tobytes()).digest()


def decode_image(encoded: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Decode an image file's bytes to (h, w, 3) RGB, or (h, w, 1) where grey; None where broken."""
    if not encoded.size:
        return None
    try:
        # Any colour: 8 bits, no alpha, upright as its EXIF says.
        with quiet_opencv():
            image = cv2.imdecode(encoded, cv2.IMREAD_ANYCOLOR)
    except cv2.error:
        return None
    if image is None:
        return None
    if image.ndim == 2:
        return np.ascontiguousarray(image[:, :, None], dtype=np.uint8)
    return np.ascontiguousarray(image[:, :, 2::-1], dtype=np.uint8)


def fixed_crop(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put a face crop of any size (h, w, c) where FER2013's faces meet the ArcFace template."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    shrinks = side > FIXED_SIDE
    resized = cv2.resize(
        square,
        (FIXED_SIDE, FIXED_SIDE),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC,
    )
    x, y = FIXED_OFFSET
    padded = cv2.copyMakeBorder(resized, y, 0, x, SIDE - FIXED_SIDE - x, cv2.BORDER_REPLICATE)
    return np.asarray(padded, dtype=np.uint8).reshape(*padded.shape[:2], -1)[:SIDE]


def enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad a face crop (h, w, c) by half its size and enlarge it to what detectors see best.

    They miss faces that are tiny or fill the picture.

    Returns
    -------
    ndarray (h', w', 3) uint8
        Its longer side is that of a fixed size.
    """
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    side = max(image.shape[:2])
    margin = round(_MARGIN * side)
    padded = cv2.copyMakeBorder(colour, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    scale = _DETECTION_SIDE / (side + 2 * margin)
    shape = (round(padded.shape[1] * scale), round(padded.shape[0] * scale))
    return np.asarray(cv2.resize(padded, shape, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def found_landmarks(picture: NDArray[np.uint8], detector: Detector) -> NDArray[np.float32] | None:
    """Search an `enlarged` face crop for the landmarks (5, 2) px of its face.

    Returns
    -------
    ndarray (5, 2) or None
        None where no face is found whose eyes are a plausible distance apart.
    """
    found = detector.detect(picture)
    if len(found.score) == 0:
        return None
    landmarks = np.asarray(found.landmarks[int(np.argmax(found.score))], dtype=np.float32)
    side = max(picture.shape[:2]) / (1 + 2 * _MARGIN)
    eyes = float(np.linalg.norm(landmarks[1] - landmarks[0])) / side
    if not 0.2 <= eyes <= 0.65 or not is_alignable(landmarks):
        return None
    return landmarks


def cached_pack_faces(
    pack: Pack, detector: Detector, folder: Path
) -> tuple[NDArray[np.uint8], Alignment]:
    """Do as `pack_faces` does, or take what it gave before for these very images and detector.

    Parameters
    ----------
    folder : Path
        Where the faces are kept, some 12 MB a thousand.
    """
    key = hashlib.sha256(f"{detector.sha256} {detector.options}".encode())
    for image in pack.images:
        key.update(hashlib.sha256(image.tobytes()).digest())
    path = folder / f"faces-{key.hexdigest()[:16]}.safetensors"
    if path.exists():
        with safe_open(path, framework="np") as file:
            return file.get_tensor("faces"), Alignment(**json_object(file.metadata()["alignment"]))
    faces, alignment = pack_faces(pack, detector)
    write_whole(path, save({"faces": faces}, {"alignment": json.dumps(vars(alignment))}))
    return faces, alignment


Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""What is done to each image (h, w, c) before it is aligned."""


def pack_faces(
    pack: Pack, detector: Detector | None = None, change: Change | None = None
) -> tuple[NDArray[np.uint8], Alignment]:
    """Decode every image of a pack to a 112x112 face; none is dropped.

    Parameters
    ----------
    pack : Pack
        Images of 112x112 count as aligned, all others as face crops.
    detector : Detector, optional
        Aligns face crops; where it finds nothing, and without it, the fixed crop does.
    change : callable, optional
        Done to each image before it is aligned, e.g. `equalised`.

    Returns
    -------
    faces : ndarray (n, 112, 112, c) uint8
        RGB, or one channel when every image is grey.
    alignment : Alignment
        How many went which way.
    """
    faces = np.empty((len(pack), SIDE, SIDE, 1), dtype=np.uint8)
    aligned = detected = 0
    for row in range(len(pack)):
        image = decode(pack, row)
        if change is not None:
            image = change(image)
        if image.shape[2] > faces.shape[3]:
            faces = np.repeat(faces, image.shape[2], axis=3)
        if image.shape[:2] == (SIDE, SIDE):
            faces[row] = image
            aligned += 1
            continue
        face = None
        if detector is not None:
            picture = enlarged(image)
            landmarks = found_landmarks(picture, detector)
            face = None if landmarks is None else align_face(picture, landmarks)
        if face is None:
            faces[row] = fixed_crop(image)
        else:
            faces[row] = face[:, :, : faces.shape[3]]
            detected += 1
    return faces, Alignment(
        aligned=aligned, detected=detected, fixed=len(pack) - aligned - detected
    )
