"""The size of the frames changes in mid-stream (broadcast, calls): one unit, one track."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from feie.features.faces.align import ARCFACE_TEMPLATE
from feie.features.faces.crop import face_picture
from feie.features.faces.detection import Faces
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.video.sources import discover

SIZES = [(160, 120)] * 6 + [(80, 60)] * 6 + [(320, 240)] * 6 + [(200, 120)] * 6


class Bright:
    """Finds the one bright patch of a frame; looks around the last place only when asked to."""

    name, sha256, options = "bright", "0" * 64, {}
    refresh = 0

    def __init__(self) -> None:
        self.whole = 0

    def detect(self, rgb: np.ndarray) -> Faces:
        self.whole += 1
        ys, xs = np.nonzero(rgb[..., 1] > 100)
        x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        box = np.array([[x0, y0, x1, y1]], np.float32)
        span = np.array([x1 - x0, y1 - y0], np.float32)
        points = box[:, None, :2] + ARCFACE_TEMPLATE / 112 * span
        return Faces(box, np.full(1, 0.9, np.float32), points.astype(np.float32))

    def detect_many(self, images: list[np.ndarray]) -> list[Faces]:
        return [self.detect(image) for image in images]

    def follow(self, rgb: np.ndarray, box: np.ndarray) -> Faces:
        found = self.detect(rgb)
        self.whole -= 1
        near = np.abs(found.bbox[0] - box).max() <= 0.1 * rgb.shape[1]
        return found if near else Faces.none()


@pytest.fixture
def source(tmp_path: Path):
    """A folder of frames that show one bright patch at the same place, in four sizes."""
    for number, (width, height) in enumerate(SIZES, start=1):
        image = np.zeros((height, width, 3), np.uint8)
        x, y = width // 4, height // 4
        image[y : y + height // 2, x : x + width // 2] = 200
        path = tmp_path / "v" / f"{number:04d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image)
    return discover(tmp_path).sources[0]


@pytest.mark.parametrize("options", [{}, {"stride": 4}, {"batch": 3}, {"all_faces": True}])
def test_boxes_keep_their_unit_and_the_face_its_track(source, options: dict[str, int]) -> None:
    detector = Bright()
    with FaceStream(source, FaceOptions(faces="detect", **options), detector) as stream:
        assert (stream.width, stream.height) == SIZES[0]
        [chunk] = list(stream)
    assert chunk.valid.all()
    assert len(chunk.bbox) == len(SIZES)
    np.testing.assert_allclose(chunk.bbox, [[40, 30, 120, 90]] * len(SIZES), atol=0.01)
    template = [40, 30] + ARCFACE_TEMPLATE / 112 * [80, 60]
    np.testing.assert_allclose(chunk.landmarks, [template] * len(SIZES), atol=0.01)
    if chunk.track is not None:
        assert set(chunk.track) == {0}
    # The crop is cut where the face is in each frame: bright to its middle.
    assert chunk.aligned[:, 30:80, 30:80].min() > 150
    if not options:
        assert detector.whole == 1  # looked around the last place ever since


def test_aligned_faces_of_several_sizes_keep_the_unit_of_the_first(tmp_path: Path) -> None:
    for number, side in enumerate([112, 224, 56], start=1):
        (tmp_path / "v").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"v/{number}.png"), np.full((side, side, 3), 90, np.uint8))
    with FaceStream(discover(tmp_path).sources[0]) as stream:
        [chunk] = list(stream)
    np.testing.assert_array_equal(chunk.bbox, [[0, 0, 112, 112]] * 3)
    np.testing.assert_array_equal(chunk.landmarks, [ARCFACE_TEMPLATE] * 3)


def test_pictures_of_a_face_are_cut_by_the_store_s_unit() -> None:
    small = np.zeros((60, 80, 3), np.uint8)
    small[15:45, 20:60] = 200
    box = np.array([40, 30, 120, 90], np.float32)
    points = (np.array([40, 30]) + ARCFACE_TEMPLATE / 112 * [80, 60]).astype(np.float32)
    shown = face_picture(small, points, box, 112, (160, 120))
    assert shown[30:80, 30:80].min() > 150
    shown = face_picture(small, np.full((5, 2), np.nan, np.float32), box, 64, (160, 120))
    assert shown[20:44, 16:48].min() > 150
