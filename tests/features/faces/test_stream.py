import threading
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from feie.features.errors import MissingWeightsError, UsageError, VideoError
from feie.features.faces.align import ARCFACE_TEMPLATE, align_face
from feie.features.faces.detectors import Detector, Faces, load_detector
from feie.features.faces.stream import FaceChunk, FaceOptions, FaceStream
from feie.features.video.sources import Source, discover


def face_chunks(*given, **named):
    """Iterate over the main face of a source; see `FaceStream`."""
    with FaceStream(*given, **named) as stream:
        yield from stream


class Squares:
    """A detector of bright squares, which it takes for faces of the template's layout."""

    name, sha256, options = "squares", "0" * 64, {"threshold": 128}
    refresh = 0

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, rgb: np.ndarray) -> Faces:
        self.calls += 1
        _, _, stats, _ = cv2.connectedComponentsWithStats((rgb[..., 1] > 128).astype(np.uint8))
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, a in stats[1:] if a > 50], "f4")
        boxes = boxes.reshape(-1, 4)
        side = (boxes[:, 2] - boxes[:, 0])[:, None, None]
        landmarks = boxes[:, None, :2] + ARCFACE_TEMPLATE / 112 * side
        return Faces(boxes, np.full(len(boxes), 0.8, "f4"), landmarks.astype("f4"))

    def detect_many(self, images: list[np.ndarray]) -> list[Faces]:
        return [self.detect(image) for image in images]

    def follow(self, rgb: np.ndarray, box: np.ndarray) -> Faces:
        return Faces.none()


def scene(*squares: tuple[int, int, int], width: int = 160, height: int = 120) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = 255
    return image


def video(path: Path, images: list[np.ndarray]) -> Source:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"bf": "0", "crf": "10"}
        for image in images:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(stream.encode())
    return discover(path).sources[0]


def folder(path: Path, images: dict[int, np.ndarray]) -> Source:
    path.mkdir()
    for number, image in images.items():
        cv2.imwrite(str(path / f"{number:05d}.png"), image[..., ::-1])
    return discover(path).sources[0]


def joined(chunks: list[FaceChunk]) -> FaceChunk:
    names = ("time", "valid", "face_score", "bbox", "landmarks", "aligned")
    return FaceChunk(*(np.concatenate([getattr(c, n) for c in chunks]) for n in names))


def test_rows_and_crops_of_a_searched_video(tmp_path: Path) -> None:
    images = [scene((20 + 2 * i, 30, 48)) if i % 4 else scene() for i in range(10)]
    source = video(tmp_path / "a.mkv", images)
    stream = FaceStream(source, FaceOptions(), Squares(), size=4)
    assert (stream.mode, stream.width, stream.height) == ("detect", 160, 120)
    chunks = list(stream)
    assert [len(c.time) for c in chunks] == [4, 4, 2]
    assert stream.fps == pytest.approx(30, rel=0.01)
    for chunk in chunks:
        assert len(chunk.aligned) == chunk.valid.sum()
        assert chunk.aligned.shape[1:] == (112, 112, 3)
    one = joined(chunks)
    assert one.valid.tolist() == [i % 4 > 0 for i in range(10)]
    for array in (one.face_score, one.bbox, one.landmarks):
        assert np.isnan(array[~one.valid]).all()
        assert np.isfinite(array[one.valid]).all()
    np.testing.assert_allclose(one.bbox[1], [22, 30, 70, 78], atol=1)
    assert one.face_score[1] == np.float32(0.8)
    np.testing.assert_allclose(one.landmarks[1], (22, 30) + ARCFACE_TEMPLATE * 48 / 112, atol=1)
    # The square fills the template: the crop is white up to its rim.
    assert one.aligned[0, 6:-6, 6:-6].min() > 200
    types = [a.dtype for a in (one.time, one.valid, one.face_score, one.bbox, one.landmarks)]
    assert types == [np.float64, np.bool_, np.float32, np.float32, np.float32]
    # The size of chunks changes nothing.
    for size in (1, 64):
        other = joined(list(face_chunks(source, FaceOptions(), Squares(), size=size)))
        for name in ("time", "valid", "bbox", "landmarks", "aligned"):
            np.testing.assert_array_equal(getattr(other, name), getattr(one, name))


def test_main_face_stays_the_same_person(tmp_path: Path) -> None:
    images = [scene((20, 40, 30), (150 - 5 * i, 10, 60)) for i in range(10)]
    images[0] = scene((20, 40, 30))
    source = video(tmp_path / "a.mkv", images)
    chunk = joined(list(face_chunks(source, None, Squares())))
    assert chunk.valid.all()
    np.testing.assert_allclose(chunk.bbox, np.tile([20, 40, 50, 70], (10, 1)), atol=1)


def test_no_face_at_all_gives_rows(tmp_path: Path) -> None:
    chunk = joined(list(face_chunks(video(tmp_path / "a.mkv", [scene()] * 5), None, Squares())))
    assert not chunk.valid.any()
    assert chunk.aligned.shape == (0, 112, 112, 3)
    assert len(chunk.time) == 5


def test_aligned_frames_with_gaps_need_no_detector(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    crops = {n: rng.integers(0, 256, (112, 112, 3), np.uint8) for n in (1, 2, 5)}
    source = folder(tmp_path / "crops", crops)

    def never() -> Detector:
        raise AssertionError("aligned input asks for no detector")

    for options in (FaceOptions(), FaceOptions(faces="aligned")):
        stream = FaceStream(source, options, never)
        assert stream.mode == "aligned"
        chunk = joined(list(stream))
        assert chunk.valid.tolist() == [True, True, False, False, True]
        np.testing.assert_allclose(chunk.time, np.arange(5) / 30)
        np.testing.assert_array_equal(chunk.aligned, [crops[1], crops[2], crops[5]])
        assert chunk.face_score[chunk.valid].tolist() == [1, 1, 1]
        np.testing.assert_array_equal(chunk.bbox[0], [0, 0, 112, 112])
        np.testing.assert_array_equal(chunk.landmarks[4], ARCFACE_TEMPLATE)
        assert np.isnan(chunk.landmarks[2]).all()
    rated = joined(list(face_chunks(source, FaceOptions(folder_fps=10, fps=5), None)))
    np.testing.assert_allclose(rated.time, [0, 0.2, 0.4])
    assert rated.valid.tolist() == [True, False, True]


def test_videos_of_face_crops_are_aligned_too(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", [scene((30, 30, 40), width=112, height=112)] * 3)
    assert joined(list(face_chunks(source))).valid.all()
    detector = Squares()
    searched = joined(list(face_chunks(source, FaceOptions(faces="detect"), detector)))
    assert detector.calls == 3
    np.testing.assert_allclose(searched.bbox[0], [30, 30, 70, 70], atol=1)


def test_square_crops_of_other_sizes_are_resized_and_others_refused(tmp_path: Path) -> None:
    aligned = FaceOptions(faces="aligned")
    big = scene((56, 56, 112), width=224, height=224)
    chunk = joined(list(face_chunks(folder(tmp_path / "big", {1: big}), aligned)))
    assert chunk.aligned.shape == (1, 112, 112, 3)
    assert chunk.aligned[0, 56, 56].tolist() == [255] * 3
    assert chunk.aligned[0, 20, 20].tolist() == [0] * 3
    np.testing.assert_allclose(chunk.landmarks[0], ARCFACE_TEMPLATE * 2)
    np.testing.assert_array_equal(chunk.bbox[0], [0, 0, 224, 224])
    with pytest.raises(VideoError, match="160x120") as caught:
        list(face_chunks(folder(tmp_path / "wide", {1: scene()}), aligned))
    assert caught.value.reason == "not-aligned"


def test_detector_is_asked_for_only_when_needed(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", [scene((20, 20, 40))] * 2)
    for nothing in (None, lambda: None):
        with pytest.raises(MissingWeightsError, match="--detector"):
            list(face_chunks(source, None, nothing))  # type: ignore[arg-type]
    made: list[Squares] = []

    def make() -> Squares:
        made.append(Squares())
        return made[-1]

    assert joined(list(face_chunks(source, None, make))).valid.all()
    assert len(made) == 1


def test_memory_holds_one_chunk(tmp_path: Path) -> None:
    detector = Squares()
    with FaceStream(video(tmp_path / "a.mp4", [scene()] * 60), None, detector, size=8) as stream:
        chunks = iter(stream)
        next(chunks)
        assert detector.calls == 8
        next(chunks)
        assert detector.calls == 16


def test_failures_keep_their_reasons(tmp_path: Path) -> None:
    source = video(tmp_path / "a.flv", [scene((20, 20, 40))] * 60)
    data = source.path.read_bytes()
    source.path.write_bytes(data[: len(data) // 2])
    chunks = face_chunks(source, None, Squares(), size=4)
    assert len(next(chunks).time) == 4
    with pytest.raises(VideoError) as caught:
        list(chunks)
    assert caught.value.reason == "truncated"
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match="0 bytes"):
        FaceStream(discover(tmp_path / "b.mp4").sources[0], None, Squares())


def test_useless_landmarks_are_no_face(tmp_path: Path) -> None:
    class Lost(Squares):
        def detect(self, rgb: np.ndarray) -> Faces:
            faces = super().detect(rgb)
            return Faces(faces.bbox, faces.score, np.full_like(faces.landmarks, np.nan))

    source = video(tmp_path / "a.mp4", [scene((20, 20, 40))] * 2)
    assert not joined(list(face_chunks(source, None, Lost()))).valid.any()


@pytest.mark.parametrize("options", [{"faces": "maybe"}, {"fps": 0.0}, {"folder_fps": -1.0}])
def test_senseless_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FaceOptions(**options)


@pytest.fixture(scope="module")
def scrfd(shared: Path) -> Detector:
    return load_detector(f"scrfd:{shared / 'models' / 'det_500m.onnx'}")


def clip(shared: Path, name: str) -> Source:
    return discover(shared / "videos" / name).sources[0]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "fps", "least", "most"),
    [
        ("clips/driving_d14.mp4", 3.75, 0.99, 1.0),  # a close-up that one 640 input misses
        ("clips/no_face.mp4", 6.0, 0.0, 0.0),
        ("clips/face_noface.mov", 8.0, 0.35, 0.45),
        ("clips/source_s29.mp4", 6.0, 1.0, 1.0),
        ("clips/driving_d0.mp4", 6.0, 1.0, 1.0),
        ("asl/walk.mkv", 10.0, 1.0, 1.0),
    ],
)
def test_share_of_faces_in_real_clips(
    shared: Path, scrfd: Detector, name: str, fps: float | None, least: float, most: float
) -> None:
    chunk = joined(list(face_chunks(clip(shared, name), FaceOptions(fps=fps), scrfd)))
    assert least <= chunk.valid.mean() <= most


@pytest.mark.shared
def test_of_two_people_one_is_followed(shared: Path, scrfd: Detector) -> None:
    source = clip(shared, "clips/head-pose-face-detection-female-and-male.gif")
    chunk = joined(list(face_chunks(source, None, scrfd)))
    assert chunk.valid.mean() >= 0.95
    points = chunk.landmarks[chunk.valid]
    eyes = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    steps = np.linalg.norm(np.diff(points.mean(axis=1), axis=0), axis=1)
    assert (steps / eyes[1:]).max() < 0.5  # the other person sits four eye distances away


@pytest.mark.shared
def test_streams_in_threads_share_one_detector(shared: Path, scrfd: Detector) -> None:
    source = clip(shared, "clips/single_face.mp4")
    options = FaceOptions(fps=6)
    expected = joined(list(face_chunks(source, options, scrfd)))
    results: list[FaceChunk] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(joined(list(face_chunks(source, options, scrfd))))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result.aligned, expected.aligned)
        np.testing.assert_array_equal(result.landmarks, expected.landmarks)


@pytest.mark.shared
def test_real_crops_show_the_landmarks_in_place(shared: Path, scrfd: Detector) -> None:
    source = clip(shared, "clips/single_face.mp4")
    chunk = next(face_chunks(source, None, scrfd, size=1))
    found = scrfd.detect(chunk.aligned[0])
    assert np.abs(found.landmarks[0] - ARCFACE_TEMPLATE).max() < 8
    np.testing.assert_array_equal(align_face(chunk.aligned[0], ARCFACE_TEMPLATE), chunk.aligned[0])
