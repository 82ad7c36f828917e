import hashlib
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces.align import ARCFACE_TEMPLATE, align_face, is_alignable, similarity
from feie.features.faces.detection import ScaledDetector, iou, letterbox, suppress
from feie.features.faces.detectors import DetectOptions, Faces, load_detector
from feie.features.faces.track import MainFace, prominence

# Alignment


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama 1991, eq. 40-43, by singular values."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    covariance = (target - mean_t).T @ (source - mean_s) / len(source)
    u, d, vt = np.linalg.svd(covariance)
    s = np.eye(2)
    if np.linalg.det(covariance) < 0:
        s[1, 1] = -1
    rotation = u @ s @ vt
    scale = np.trace(np.diag(d) @ s) / ((source - mean_s) ** 2).sum(1).mean()
    return np.column_stack([scale * rotation, mean_t - scale * rotation @ mean_s])


@given(
    angle=st.floats(-180, 180),
    scale=st.floats(0.1, 20),
    shift=st.tuples(st.floats(-500, 2000), st.floats(-500, 2000)),
    noise=st.integers(0, 2**32 - 1),
)
def test_similarity_is_umeyamas(
    angle: float, scale: float, shift: tuple[float, float], noise: int
) -> None:
    turn = np.deg2rad(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    jitter = np.random.default_rng(noise).normal(0, 3, (5, 2))
    landmarks = scale * (ARCFACE_TEMPLATE + jitter) @ rotation.T + shift
    found = similarity(landmarks)
    expected = umeyama(landmarks, ARCFACE_TEMPLATE.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_aligned_faces_are_those_of_insightface() -> None:
    face_align = pytest.importorskip("insightface.utils.face_align")
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (300, 400, 3), np.uint8), (9, 9), 3)
    for size in (112, 224):
        landmarks = (ARCFACE_TEMPLATE * 1.7 + (90, 40) + rng.normal(0, 4, (5, 2))).astype("f4")
        ours = align_face(image, landmarks, size)
        theirs = face_align.norm_crop(image, landmarks, size)
        assert ours.shape == theirs.shape == (size, size, 3)
        assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def test_template_in_place_is_the_identity_and_outside_is_black() -> None:
    image = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    np.testing.assert_array_equal(align_face(image, ARCFACE_TEMPLATE), image)
    corner = align_face(np.full((60, 60, 3), 255, np.uint8), ARCFACE_TEMPLATE - (56, 56))
    assert corner[0, 0].tolist() == [0, 0, 0]
    assert corner[80, 80].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7.0),
        np.full((5, 2), np.nan),
        ARCFACE_TEMPLATE * 0.01,
        ARCFACE_TEMPLATE * np.array([np.inf, 1]),
        ARCFACE_TEMPLATE * np.array([-1, 1]),
        np.zeros((4, 2)),
    ],
    ids=["one point", "nan", "tiny", "inf", "mirrored", "four points"],
)
def test_landmarks_that_span_no_face(landmarks: np.ndarray) -> None:
    assert not is_alignable(landmarks)
    with pytest.raises(ValueError, match="span no face"):
        align_face(np.zeros((50, 50, 3), np.uint8), landmarks)


def test_profiles_and_lying_faces_are_alignable() -> None:
    profile = ARCFACE_TEMPLATE * np.array([0.15, 1.0]) + 40  # seen from far aside
    upside_down = -ARCFACE_TEMPLATE + 300
    assert is_alignable(profile)
    assert is_alignable(upside_down)


# Boxes


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    grid = np.zeros((2, 40, 40), bool)
    for layer, (x0, y0, x1, y1) in zip(grid, (a, b), strict=True):
        layer[int(y0) : int(y1), int(x0) : int(x1)] = True
    union = grid.any(0).sum()
    return float(grid.all(0).sum() / union) if union else 0.0


boxes = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 19), st.integers(1, 19)),
    min_size=1,
    max_size=8,
).map(lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32))


@given(boxes)
def test_iou_counts_pixels(bbox: np.ndarray) -> None:
    expected = [slow_iou(bbox[0], other) for other in bbox]
    np.testing.assert_allclose(iou(bbox[0], bbox), expected, atol=1e-6)


@given(boxes, st.integers(0, 2**32 - 1))
def test_suppress_keeps_the_best_of_each_group(bbox: np.ndarray, seed: int) -> None:
    score = np.random.default_rng(seed).integers(1, 5, len(bbox)).astype(np.float32) / 5
    kept = suppress(Faces(bbox, score, np.zeros((len(bbox), 5, 2), np.float32)), 0.4)
    remaining, expected = list(range(len(bbox))), []
    while remaining:
        best = max(remaining, key=lambda i: (score[i], -i))
        expected.append(best)
        remaining = [i for i in remaining if i != best and slow_iou(bbox[best], bbox[i]) <= 0.4]
    np.testing.assert_array_equal(kept.bbox, bbox[expected])
    np.testing.assert_array_equal(kept.score, score[expected])


def test_letterbox_scales_pads_and_turns_to_bgr() -> None:
    image = np.zeros((90, 160, 3), np.uint8)
    image[..., 0] = 200
    canvas, scale = letterbox(image, 320)
    assert canvas.shape == (192, 320, 3)
    assert scale == 2
    assert canvas[10, 10].tolist() == [0, 0, 200]
    assert not canvas[180:].any()
    tall, _ = letterbox(image.transpose(1, 0, 2), 320)
    assert tall.shape == (320, 192, 3)
    thin, _ = letterbox(image[:1], 320)
    assert thin.shape == (32, 320, 3)


class Fake(ScaledDetector):
    """Finds one face of a score that depends on the input's size."""

    def __init__(self, scores: dict[int, float], options: DetectOptions) -> None:
        super().__init__("fake", "0" * 64, options)
        self.scores, self.looked = scores, []

    def _find(self, canvases: list[np.ndarray]) -> list[Faces]:
        return [self.find_one(canvas) for canvas in canvases]

    def find_one(self, canvas: np.ndarray) -> Faces:
        side = max(canvas.shape)
        self.looked.append(side)
        score = self.scores.get(side)
        if score is None:
            return Faces.none()
        box = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32) * side
        return Faces(box, np.array([score], np.float32), ARCFACE_TEMPLATE[None] / 112 * side)


def test_other_scales_are_tried_only_after_a_poor_look() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    options = DetectOptions(size=320, retry_sizes=(640, 160), retry_below=0.6)
    good = Fake({320: 0.7}, options)
    assert good.detect(image).score.tolist() == pytest.approx([0.7])
    assert good.looked == [320]
    poor = Fake({320: 0.55, 640: 0.9, 160: 0.8}, options)
    faces = poor.detect(image)
    assert poor.looked == [320, 640, 160]
    assert faces.score.tolist() == pytest.approx([0.9])
    np.testing.assert_allclose(faces.bbox, [[50, 50, 150, 150]], rtol=1e-6)
    np.testing.assert_allclose(faces.landmarks[0], ARCFACE_TEMPLATE / 112 * 200, rtol=1e-5)
    nothing = Fake({}, options).detect(image)
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0, 5, 2)]
    assert good.options == {
        "size": 320,
        "retry_sizes": [640, 160],
        "retry_below": 0.6,
        "threshold": 0.5,
        "overlap": 0.4,
        "follow": 160,
        "margin": 1.6,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"follow": 8},
        {"margin": 1.0},
        {"retry_sizes": (9999,)},
        {"threshold": 0.0},
        {"overlap": 1.5},
    ],
)
def test_senseless_detection_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DetectOptions(**options)  # type: ignore[arg-type]


# Following the main face


def faces_at(*boxes: tuple[float, float, float]) -> Faces:
    """Faces given by centre and side."""
    bbox = np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s in boxes], "f4")
    n = len(boxes)
    return Faces(bbox.reshape(n, 4), np.full(n, 0.9, "f4"), np.zeros((n, 5, 2), "f4"))


def test_largest_and_most_central_face_is_first() -> None:
    assert MainFace().pick(faces_at((100, 240, 80), (320, 240, 80)), 640, 480) == 1
    assert MainFace().pick(faces_at((60, 60, 120), (320, 240, 60)), 640, 480) == 0
    assert MainFace().pick(Faces.none(), 640, 480) is None
    score = prominence(faces_at((0, 0, 10), (320, 240, 10)).bbox, np.ones(2, "f4"), 640, 480)
    assert score.tolist() == pytest.approx([50, 100])


def test_a_passer_by_does_not_take_over() -> None:
    main = MainFace()
    assert main.pick(faces_at((200, 240, 100)), 640, 480) == 0
    for step in range(20):  # somebody larger walks right through the middle
        faces = faces_at((640 - 30 * step, 240, 220), (200 + step, 240, 100))
        assert main.pick(faces, 640, 480) == 1
    # The main face is covered for a moment: nobody else is taken for it.
    for _ in range(5):
        assert main.pick(faces_at((450, 240, 220)), 640, 480) is None
    assert main.pick(faces_at((450, 240, 220), (225, 240, 100)), 640, 480) == 1


def test_a_fast_move_is_followed_and_a_lost_face_replaced() -> None:
    main = MainFace()
    main.pick(faces_at((200, 240, 100)), 640, 480)
    assert main.pick(faces_at((280, 240, 100)), 640, 480) == 0  # no overlap above 0.3
    assert main.pick(faces_at((600, 100, 100)), 640, 480) is None  # too far to be the same
    for _ in range(14):
        assert main.pick(Faces.none(), 640, 480) is None
    assert main.pick(faces_at((600, 100, 100)), 640, 480) == 0


# Weights


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def tiny_onnx(path: Path) -> Path:
    """A sound model that is no detector."""
    from onnx import TensorProto, helper, save

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("spec", ["scrfd", "scrfd:buffalo_m", "scrfd:gone.onnx"])
def test_missing_weights_say_what_to_put_where(home: Path, spec: str) -> None:
    (home / ".insightface" / "models" / "buffalo_m").mkdir(parents=True)  # there, but empty
    with pytest.raises(MissingWeightsError, match="non-commercial") as caught:
        load_detector(spec)
    message = str(caught.value)
    assert "\n" not in message
    wanted = {"scrfd:buffalo_m": "det_2.5g.onnx", "scrfd:gone.onnx": "gone.onnx"}
    assert wanted.get(spec, "det_500m.onnx") in message


def test_damaged_wrong_and_unknown_detectors(home: Path) -> None:
    pack = home / ".insightface" / "models" / "buffalo_s"
    pack.mkdir(parents=True)
    (pack / "det_500m.onnx").write_bytes(b"not a model")
    with pytest.raises(UsageError, match=r"det_500m\.onnx is damaged"):
        load_detector("scrfd")
    wrong = tiny_onnx(home / "relu.onnx")
    with pytest.raises(UsageError, match=r"relu\.onnx is not a SCRFD"):
        load_detector(f"scrfd:{wrong}")
    with pytest.raises(UsageError, match="not OpenCV's YuNet"):
        load_detector(f"yunet:{wrong}")
    with pytest.raises(UsageError, match="not OpenCV's YuNet"):
        load_detector(f"yunet:{pack / 'det_500m.onnx'}")
    with pytest.raises(MissingWeightsError, match="face_detection_yunet_2023mar"):
        load_detector("yunet:gone.onnx")
    with pytest.raises(UsageError, match="unknown detector 'dlib'"):
        load_detector("dlib")


# With real weights


def frame_of(shared: Path, name: str, number: int) -> np.ndarray:
    with av.open(str(shared / "videos" / "clips" / name)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i == number:
                return frame.to_ndarray(format="rgb24")
    raise AssertionError(name)


@pytest.mark.shared
def test_detectors_agree_on_real_faces_and_order_landmarks(shared: Path) -> None:
    models = shared / "models"
    scrfd = load_detector(f"scrfd:{models / 'det_500m.onnx'}")
    yunet = load_detector(f"yunet:{models / 'face_detection_yunet_2023mar.onnx'}")
    assert (scrfd.name, yunet.name) == ("scrfd:det_500m", "yunet:face_detection_yunet_2023mar")
    weights = (models / "det_500m.onnx").read_bytes()
    assert scrfd.sha256 == hashlib.sha256(weights).hexdigest()
    for name in ("single_face.mp4", "driving_d14.mp4"):
        image = frame_of(shared, name, 30)
        found = [detector.detect(image) for detector in (scrfd, yunet)]
        for faces in found:
            assert len(faces.score) == 1
            assert faces.score[0] > 0.5
            eye_l, eye_r, nose, mouth_l, mouth_r = faces.landmarks[0]
            assert eye_l[0] < nose[0] < eye_r[0]
            assert mouth_l[0] < mouth_r[0]
            assert max(eye_l[1], eye_r[1]) < nose[1] < min(mouth_l[1], mouth_r[1])
            x0, y0, x1, y1 = faces.bbox[0]
            assert ((faces.landmarks[0] > (x0, y0)) & (faces.landmarks[0] < (x1, y1))).all()
        apart = np.linalg.norm(found[0].landmarks - found[1].landmarks, axis=-1).max()
        assert apart < 0.2 * np.linalg.norm(eye_l - eye_r)
        for part, again in zip(found[0], scrfd.detect(image), strict=True):
            np.testing.assert_array_equal(part, again)


@pytest.mark.shared
def test_weights_are_found_as_insightface_finds_them(
    shared: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    models = home / ".insightface" / "models"
    (models / "buffalo_s").mkdir(parents=True)  # empty: the next pack is taken
    (models / "buffalo_m").mkdir()
    (models / "buffalo_m" / "det_2.5g.onnx").symlink_to(shared / "models" / "det_2.5g.onnx")
    assert load_detector("scrfd").name == "scrfd:det_2.5g"
    (models / "antelopev2" / "antelopev2").mkdir(parents=True)
    nested = models / "antelopev2" / "antelopev2" / "scrfd_10g_bnkps.onnx"
    nested.symlink_to(shared / "models" / "det_500m.onnx")
    detector = load_detector("scrfd:antelopev2")
    assert detector.name == "scrfd:scrfd_10g_bnkps"
    detector.detect(frame_of(shared, "single_face.mp4", 0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.shared
@pytest.mark.parametrize("spec", ["scrfd:det_500m.onnx", "yunet:face_detection_yunet_2023mar.onnx"])
def test_one_detector_serves_several_threads(shared: Path, spec: str) -> None:
    kind, file = spec.split(":")
    detector = load_detector(f"{kind}:{shared / 'models' / file}")
    images = [
        frame_of(shared, name, 5) for name in ("single_face.mp4", "source_s13.mp4", "no_face.mp4")
    ]
    expected = [detector.detect(image) for image in images]
    failures: list[str] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 3, 6):
            for part, wanted in zip(detector.detect(images[i]), expected[i], strict=True):
                if not np.array_equal(part, wanted):
                    failures.append(f"image {i}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
