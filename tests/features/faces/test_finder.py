"""The face finder that comes with feie: its weights, what it finds, and detectors in turn."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces import bundled
from feie.features.faces.align import ARCFACE_TEMPLATE
from feie.features.faces.bundled import BUNDLED, ONET, YUNET, read_bundled
from feie.features.faces.detection import DetectOptions, Faces, iou
from feie.features.faces.detectors import (
    absolute_detector,
    describe_detector,
    find_detector,
    load_detector,
)
from feie.features.faces.fallback import Fallback
from feie.features.faces.onet import LandmarkNet


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """The only place of the weights: copies that a test may damage."""
    files = {name: read_bundled(name)[1] for name in BUNDLED}
    folder = tmp_path / "wheel"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    monkeypatch.setattr(bundled, "places", lambda name: [folder / name])
    return folder


# Weights


def test_the_packages_of_the_build_are_the_ones_that_carry_the_weights(project):
    import tomllib

    wanted = tomllib.loads((project / "pyproject.toml").read_text())["build-system"]["requires"]
    carriers = {source["package"] for source in bundled._SOURCES.values()}
    assert {w.split("==")[0] for w in wanted if "==" in w} == carriers
    licences = (project / "features" / "faces" / "weights" / "LICENCES.md").read_text()
    assert all(name in licences for name in BUNDLED)
    assert licences.count("Permission is hereby granted, free of charge") == 2


def test_weights_are_the_known_bytes_wherever_they_lie(tmp_path, monkeypatch, never_built):
    monkeypatch.setenv("HOME", str(tmp_path))
    data = {name: places[0].read_bytes() for name, places in never_built.items()}
    with pytest.raises(MissingWeightsError, match=r"lacks .*yunet.*pip install \.") as caught:
        load_detector()
    assert "\n" not in str(caught.value)
    folder = tmp_path / ".cache" / "feie" / "models"
    folder.mkdir(parents=True)
    (folder / YUNET).write_bytes(data[YUNET])
    assert load_detector("yunet").name == "yunet:face_detection_yunet_2023mar"
    with pytest.raises(MissingWeightsError, match=r"lacks onet\.onnx"):
        load_detector()
    (folder / ONET).write_bytes(data[ONET])
    assert load_detector().name == "yunet+onet"
    assert read_bundled(ONET) == (folder / ONET, data[ONET])


def test_a_damaged_wheel_is_cured_by_a_sound_copy(tmp_path, monkeypatch, wheel):
    good = tmp_path / "copy.onnx"
    shutil.copy(wheel / ONET, good)
    (wheel / ONET).write_bytes(good.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"onet\.onnx is damaged.*install feie anew") as caught:
        load_detector()
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="damaged"):
        describe_detector()
    monkeypatch.setattr(bundled, "places", lambda name: [wheel / name, good])
    assert read_bundled(ONET)[0] == good


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_weights_that_may_not_be_read(wheel):
    (wheel / YUNET).chmod(0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        load_detector()


def test_without_a_home_the_finder_works_and_others_are_missing(monkeypatch):
    """As in a container whose user has neither HOME nor a name."""

    def nobody(_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert load_detector().name == "yunet+onet"
    with pytest.raises(MissingWeightsError, match="buffalo_s"):
        load_detector("scrfd")


def onnx_model(shape: list[object], outputs: int) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, shape) for i in range(outputs)]
    nodes = [helper.make_node("Relu", ["x"], [f"y{i}"]) for i in range(outputs)]
    graph = helper.make_graph(nodes, "g", [x], y)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    "model", [b"no model", onnx_model(["n", 3, 48, 48], 3), onnx_model(["n", 3, 112, 112], 1)]
)
def test_another_network_is_no_onet(model):
    with pytest.raises(UsageError, match=r"x\.onnx is damaged or not MTCNN's O-Net"):
        LandmarkNet(model, Path("x.onnx"))


# Landmarks


@pytest.fixture(scope="module")
def net() -> LandmarkNet:
    path, model = read_bundled(ONET)
    return LandmarkNet(model, path)


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """A rendered face in a frame, and the box around it."""
    rng = np.random.default_rng(3)
    image = rng.integers(90, 120, (240, 320, 3), np.uint8)
    cv2.ellipse(image, (150, 120), (60, 80), 0, 0, 360, (200, 160, 140), -1)
    for x in (125, 175):
        cv2.ellipse(image, (x, 100), (12, 6), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(image, (x, 100), 5, (40, 30, 30), -1)
    cv2.ellipse(image, (150, 130), (8, 6), 0, 0, 360, (150, 110, 100), -1)
    cv2.ellipse(image, (150, 160), (22, 7), 0, 0, 360, (160, 60, 60), -1)
    return image, np.array([[85, 35, 215, 205]], np.float32)


def test_landmarks_move_scale_and_mirror_with_the_picture(net, face):
    image, box = face
    points = net.look(image, box)[0]
    assert points.shape == (1, 5, 2)
    eye_l, eye_r, nose, mouth_l, mouth_r = points[0]
    assert eye_l[0] < nose[0] < eye_r[0]
    assert mouth_l[0] < mouth_r[0]
    assert max(eye_l[1], eye_r[1]) < nose[1] < min(mouth_l[1], mouth_r[1])
    drawn = np.array([[125, 100], [175, 100], [150, 130], [135, 160], [165, 160]])
    assert np.abs(points[0] - drawn).max() < 25
    moved = net.look(np.roll(image, (20, 30), (0, 1)), box + np.float32([30, 20, 30, 20]))[0]
    np.testing.assert_allclose(moved, points + np.float32([30, 20]), atol=0.5)
    flipped = box.copy()
    flipped[:, [0, 2]] = 320 - box[:, [2, 0]]
    mirrored = net.look(np.ascontiguousarray(image[:, ::-1]), flipped)[0][0, [1, 0, 2, 4, 3]]
    np.testing.assert_allclose(319 - mirrored[:, 0], points[0, :, 0], atol=1.0)
    large = cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(net.look(large, box * 3)[0] / 3, points, atol=1.5)


def test_faces_together_are_as_alone_and_boxes_may_leave_the_frame(net, face):
    image, box = face
    boxes = np.concatenate([box, box - 60, box + 150, box * 0 + [400, 300, 420, 330]])
    together = net.look(image, boxes.astype(np.float32))[0]
    assert together.shape == (4, 5, 2)
    assert np.isfinite(together).all()
    for one, at in zip(together, boxes, strict=True):
        alone = net.look(image, at[None].astype(np.float32))[0]
        np.testing.assert_allclose(alone[0], one, atol=1e-3)
    assert net.look(image, np.empty((0, 4), np.float32))[0].shape == (0, 5, 2)
    dot = net.look(image, np.array([[10, 10, 10, 10]], np.float32))[0]
    assert np.isfinite(dot).all()


# The finder


def test_a_frame_without_a_face_and_what_the_store_says():
    finder = load_detector()
    assert load_detector("yunet+onet").name == load_detector("auto").name == finder.name
    assert not len(finder.detect(np.zeros((120, 160, 3), np.uint8)).score)
    said = {"name": finder.name, "sha256": finder.sha256, **finder.options}
    assert said == describe_detector()
    assert said["sha256"] == BUNDLED[YUNET]
    assert said["onet_sha256"] == BUNDLED[ONET]
    assert describe_detector("auto", DetectOptions(follow=0))["follow"] == 0


def frames_of(path: Path, numbers: range) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(frames) if i in numbers]


@pytest.mark.shared
def test_on_real_faces_it_is_nearer_to_a_larger_detector_than_yunet_is(shared):
    models = shared / "models"
    finder, yunet = load_detector(), load_detector("yunet")
    judge = load_detector(f"scrfd:{models / 'det_2.5g.onnx'}")
    apart: dict[str, list[float]] = {"finder": [], "yunet": []}
    for name in ("single_face.mp4", "driving_d19.mp4", "source_s13.mp4"):
        for image in frames_of(shared / "videos" / "clips" / name, range(0, 60, 20)):
            true = judge.detect(image).landmarks[0]
            eyes = np.linalg.norm(true[0] - true[1])
            for key, detector in (("finder", finder), ("yunet", yunet)):
                found = detector.detect(image)
                assert len(found.score) == 1
                apart[key] += [*(np.linalg.norm(found.landmarks[0] - true, axis=1) / eyes)]
            box = finder.detect(image).bbox[0]
            near = finder.follow(image, box)
            assert np.linalg.norm(near.landmarks[0] - true, axis=1).max() < 0.3 * eyes
    assert np.median(apart["finder"]) < 0.05 < np.median(apart["yunet"])
    for image in frames_of(shared / "videos" / "clips" / "no_face.mp4", range(0, 95, 30)):
        assert not len(finder.detect(image).score)


def test_a_face_that_is_followed_stays_in_its_place_and_is_given_up_when_it_is_gone(face):
    """Box and landmarks come to rest where the picture does; a search is called for without one."""
    image, _ = face
    finder = load_detector()
    first = finder.detect(image)
    assert len(first.score) == 1
    box, places = first.bbox[0], []
    for _ in range(8):
        near = finder.follow(image, box)
        assert len(near.score) == 1
        assert 0.9 <= near.score[0] <= 1
        box = near.bbox[0]
        places.append(near)
    assert np.abs(places[-1].landmarks - places[-2].landmarks).max() < 0.5
    assert np.abs(places[-1].landmarks - first.landmarks).max() < 8
    assert iou(box, first.bbox)[0] > 0.6
    moved = np.roll(image, (6, -8), (0, 1))
    np.testing.assert_allclose(
        finder.follow(moved, box).landmarks, places[-1].landmarks + np.float32([-8, 6]), atol=4
    )
    for gone in (np.full_like(image, 90), np.roll(image, 150, 1)):
        assert not len(finder.follow(gone, box).score)
    assert not len(load_detector(options=DetectOptions(follow=0)).follow(image, box).score)


# Detectors in turn


class Finds:
    """Finds one face in frames of the brightnesses that it knows."""

    refresh = 15

    def __init__(self, name: str, *known: int) -> None:
        self.name, self.sha256, self.options = name, name[0] * 64, {"size": 320}
        self.known, self.asked = known, 0

    def detect(self, rgb):
        return self.detect_many([rgb])[0]

    def detect_many(self, images):
        self.asked += len(images)
        return [self._one(int(image[0, 0, 0])) for image in images]

    def follow(self, rgb, box):
        return self._one(int(rgb[0, 0, 0]))

    def _one(self, brightness):
        if brightness not in self.known:
            return Faces.none()
        box = np.array([[0, 0, 10, 10]], np.float32)
        return Faces(box, np.ones(1, np.float32), ARCFACE_TEMPLATE[None] + brightness)


def grey(value: int) -> np.ndarray:
    return np.full((20, 20, 3), value, np.uint8)


def test_the_next_detector_is_asked_only_where_the_ones_before_find_nothing():
    a, b, c = Finds("a", 1, 2), Finds("b", 2, 3), Finds("c", 4)
    chain = Fallback([a, b, c])
    found = chain.detect_many([grey(v) for v in (1, 2, 3, 4, 5)])
    assert [len(f.score) for f in found] == [1, 1, 1, 1, 0]
    np.testing.assert_array_equal(found[2].landmarks[0], ARCFACE_TEMPLATE + 3)
    assert (a.asked, b.asked, c.asked) == (5, 3, 2)
    assert chain.rescued == 2
    assert len(chain.follow(grey(3), np.zeros(4, np.float32)).score) == 0
    assert chain.for_video().rescued == 0
    assert chain.refresh == 15
    assert chain.name == "a,b,c"
    others = [{"name": n, "sha256": n * 64, "size": 320} for n in "bc"]
    assert chain.options == {"size": 320, "fallback": others}


@pytest.mark.parametrize("spec", ["auto,", ",auto", "auto,auto", "auto,dlib"])
def test_senseless_chains(spec):
    with pytest.raises(UsageError):
        load_detector(spec)


@pytest.mark.shared
def test_chains_say_and_are_found_again_as_what_they_are(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = shared / "models" / "det_500m.onnx"
    spec = f"auto,scrfd:{weights}"
    chain = load_detector(spec)
    said = describe_detector(spec)
    assert said == {"name": chain.name, "sha256": chain.sha256, **chain.options}
    assert said["name"] == "yunet+onet,scrfd:det_500m"
    assert find_detector(said, [spec]) == spec
    with pytest.raises(MissingWeightsError, match=r"scrfd:det_500m, .*det_500m\.onnx of sha256"):
        find_detector(said)
    pack = tmp_path / ".insightface" / "models" / "buffalo_sc"
    pack.mkdir(parents=True)
    (pack / weights.name).symlink_to(weights)
    assert find_detector(said) == "auto,scrfd"
    monkeypatch.chdir(weights.parent)
    assert absolute_detector("auto, scrfd:det_500m.onnx") == f"auto,scrfd:{weights.resolve()}"


def test_a_stores_own_detector_is_found():
    assert find_detector(describe_detector("yunet")) == "yunet"
    assert find_detector(describe_detector()) == "auto"
    other = {**describe_detector(), "sha256": "0" * 64}
    with pytest.raises(MissingWeightsError, match=r"yunet\+onet, which is not here"):
        find_detector(other)
