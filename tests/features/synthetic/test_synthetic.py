"""Synthetic faces: geometry, action units, rasteriser, samples and the pack they end in."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from feie.features.errors import DataError, UsageError
from feie.features.faces.align import similarity
from feie.features.mma.data.packs import read_pack
from feie.features.schema import ACTION_UNITS, EXPRESSIONS
from feie.features.synthetic.aus import AU_SHAPES, LARGEST_WEIGHT, SIDES, expression_weights
from feie.features.synthetic.backdrop import make_backdrop
from feie.features.synthetic.camera import Camera, Pose
from feie.features.synthetic.degrade import Degradation, degrade
from feie.features.synthetic.expressions import (
    ANCHORS,
    LABEL_FROM,
    NEUTRAL_BELOW,
    PROTOTYPES,
    draw_affect,
    prototype,
)
from feie.features.synthetic.ict import (
    FaceMesh,
    MeshPart,
    load_ict,
    normals_operator,
    vertex_normals,
)
from feie.features.synthetic.light import Light, Lighting
from feie.features.synthetic.person import make_person
from feie.features.synthetic.raster import rasterise
from feie.features.synthetic.render import FaceRenderer, View
from feie.features.synthetic.sampling import aim_camera, draw_sample, parted_lips
from feie.pipeline.extractor import render_faces
from feie.pipeline.extractor.render_faces import RenderFacesOptions, people_of, run

UNIT = {name: i for i, name in enumerate(ACTION_UNITS)}


def sheet(xs, ys, height, first):
    """A grid of points and its triangles, counter-clockwise seen from +z."""
    x, y = np.meshgrid(xs, ys)
    points = np.stack([x, y, height(x, y)], -1).reshape(-1, 3).astype(np.float32)
    grid = first + np.arange(x.size).reshape(x.shape)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    triangles = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return points, triangles


@pytest.fixture(scope="module")
def mask() -> FaceMesh:
    """A made-up face: a dome with two eye caps, a lash each, and deltas of the right names."""
    rng = np.random.default_rng(3)
    parts = [
        (
            MeshPart.FACE,
            np.linspace(-8, 8, 17),
            np.linspace(-9, 12, 22),
            lambda x, y: 12 - x**2 / 15,
        ),
        (MeshPart.EYE, np.linspace(-4, -2, 5), np.linspace(3, 5, 5), lambda x, y: 12.5 + 0 * x),
        (MeshPart.EYE, np.linspace(2, 4, 5), np.linspace(3, 5, 5), lambda x, y: 12.5 + 0 * x),
        (MeshPart.LASHES, np.linspace(-4, -2, 3), np.linspace(5, 5.5, 2), lambda x, y: 13 + 0 * x),
    ]
    points, triangles, part, spans, first = [], [], [], [], 0
    for kind, xs, ys, height in parts:
        p, t = sheet(xs, ys, height, first)
        points.append(p)
        triangles.append(t)
        part.append(np.full(len(t), kind, np.int64))
        spans.append(np.arange(first, first + len(p)))
        first += len(p)
    neutral = np.concatenate(points)
    uv = ((neutral[:, :2] - [-8, -9]) / [16, 21]).clip(0, 1).astype(np.float32)

    def near(x, y):
        face = spans[0]
        return face[[np.abs(neutral[face, :2] - [x, y]).sum(axis=1).argmin()]]

    names = {n for shapes in AU_SHAPES.values() for n in shapes}
    names |= {"eyeBlink", "eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut", "mouthDimple"}
    whole = {"jawOpen", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"}
    both = whole & names
    both |= {"mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight", "jawLeft", "jawRight"}
    both |= {n + side for n in (names - whole) | {"cheekPuff"} for side in SIDES}
    expression = {
        n: (0.05 * rng.standard_normal(neutral.shape)).astype(np.float32) for n in sorted(both)
    }
    upper, lower = near(0, -3), near(0, -4)
    for side in SIDES:
        expression["mouthLowerDown" + side][lower, 1] = -0.5
    return FaceMesh(
        neutral=neutral,
        identity=(0.02 * rng.standard_normal((4, *neutral.shape))).astype(np.float32),
        expression=expression,
        triangles=np.concatenate(triangles),
        part=np.concatenate(part),
        uv=uv,
        eyes=(spans[1], spans[2]),
        landmarks=(spans[1], spans[2], near(0, 0), near(-2, -3), near(2, -3)),
        lips=np.concatenate([upper, lower]),
    )


@pytest.fixture(scope="module")
def ict(shared: Path) -> FaceRenderer:
    return FaceRenderer(load_ict(shared / "data" / "ict_facekit_light.h5"))


# The z-buffer


def slow_raster(points, depth, triangles, width, height):
    """Every pixel against every triangle, in float64."""
    seen = np.full((height, width), -1)
    nearest = np.full((height, width), np.inf)
    for t, (i, j, k) in enumerate(triangles):
        a, b, c = (points[n].astype(float) for n in (i, j, k))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area >= 0:
            continue  # a back: corners run clockwise as seen (y points down)
        for y in range(height):
            for x in range(width):
                wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
                wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
                if min(wb, wc, 1 - wb - wc) >= 0:
                    z = (1 - wb - wc) * depth[i] + wb * depth[j] + wc * depth[k]
                    if z < nearest[y, x]:
                        nearest[y, x], seen[y, x] = z, t
    return seen, nearest


def test_rasteriser_agrees_with_an_obvious_one():
    rng = np.random.default_rng(0)
    points = rng.uniform(-6, 30, (60, 2)).astype(np.float32)
    depth = rng.uniform(10, 20, 60).astype(np.float32)
    triangles = rng.integers(0, 60, (50, 3))
    got = rasterise(points, depth, triangles, 24, 18)
    want, nearest = slow_raster(points, depth, triangles, 24, 18)
    seen = np.full(24 * 18, -1)
    seen[got.pixel] = got.triangle
    assert len(set(got.pixel.tolist())) == len(got.pixel)
    np.testing.assert_array_equal(seen.reshape(18, 24), want)
    np.testing.assert_allclose(got.depth, nearest.ravel()[got.pixel], atol=1e-3)
    np.testing.assert_allclose(got.weights.sum(axis=1), 1, atol=1e-5)


def test_nearer_triangles_hide_farther_ones_in_any_order():
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]], np.float32)
    points = np.concatenate([square, square])
    depth = np.repeat(np.float32([5, 3]), 4)
    back, front = [[0, 1, 2], [0, 2, 3]], [[4, 5, 6], [4, 6, 7]]
    for order, nearer in ((back + front, {2, 3}), (front + back, {0, 1})):
        got = rasterise(points, depth, np.array(order), 10, 10)
        assert len(got.pixel) == 100  # no seam along the diagonal
        assert set(got.triangle.tolist()) == nearer


def test_backs_and_what_lies_outside_are_not_drawn():
    points = np.array([[0, 0], [9, 0], [9, 9], [50, 50], [50, 60], [60, 60]], np.float32)
    got = rasterise(points, np.ones(6, np.float32), np.array([[0, 1, 2], [3, 4, 5]]), 10, 10)
    assert len(got.pixel) == 0


# Camera, shapes and units


def test_projection_is_a_pinhole():
    points = np.array([[1.0, 2.0, 3.0], [-4.0, 0.5, -6.0]], np.float32)
    camera = Camera(distance=50.0, scale=7.0, centre=(100.0, 90.0))
    screen, depth = camera.project(points)
    for (x, y, z), (u, v), d in zip(points, screen, depth, strict=True):
        focal = 7.0 * 50.0
        assert d == pytest.approx(50.0 - z)
        assert u == pytest.approx(100.0 + focal * x / (50.0 - z), rel=1e-5)
        assert v == pytest.approx(90.0 - focal * y / (50.0 - z), rel=1e-5)


def test_pose_turns_the_way_it_says():
    nose, crown = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    assert (Pose(yaw=30).rotation() @ nose)[0] == pytest.approx(0.5, abs=1e-6)  # to the right
    assert (Pose(pitch=30).rotation() @ nose)[1] == pytest.approx(0.5, abs=1e-6)  # up
    assert (Pose(roll=30).rotation() @ crown)[0] == pytest.approx(0.5, abs=1e-6)  # clockwise
    turn = Pose(20, -10, 5).rotation()
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-6)


def test_vertex_normals_point_out_of_the_face(mask: FaceMesh):
    operator = normals_operator(mask.triangles, len(mask.neutral))
    normals = vertex_normals(mask.neutral, mask.triangles, operator)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert (normals[:, 2] > 0.3).all()


def test_the_table_covers_every_action_unit():
    assert tuple(AU_SHAPES) == ACTION_UNITS
    assert [u for u, shapes in AU_SHAPES.items() if not shapes] == ["AU11"]


def test_weights_are_linear_in_the_activation_and_bounded(mask: FaceMesh):
    one = np.zeros(17)
    one[UNIT["AU12"]] = 0.5
    one[UNIT["AU11"]] = np.nan
    assert expression_weights(one, mask.expression)["mouthSmile_L"] == pytest.approx(0.5)
    lopsided = expression_weights(one, mask.expression, asymmetry=0.2)
    assert lopsided["mouthSmile_L"] == pytest.approx(0.5)
    assert lopsided["mouthSmile_R"] == pytest.approx(0.4)
    everything = expression_weights(np.ones(17), mask.expression)
    assert set(everything) <= set(mask.expression)
    assert max(everything.values()) <= LARGEST_WEIGHT


def test_lips_part_as_far_as_the_geometry_says(mask: FaceMesh):
    units = np.zeros(17)
    assert parted_lips(mask, expression_weights(units, mask.expression)) == 0
    units[UNIT["AU25"]] = 0.5
    assert parted_lips(mask, expression_weights(units, mask.expression)) == pytest.approx(0.5)


# Affect


def test_prototypes_are_those_of_the_paper():
    table = {
        "happiness": "12 25 | 6", "sadness": "4 15 | 1 6 11 17", "fear": "1 4 20 25 | 2 5 26",
        "anger": "4 7 24 | 10 17 23", "surprise": "1 2 25 26 | 5", "disgust": "9 10 17 | 4 24",
    }  # fmt: skip
    for expression, row in table.items():
        core, other = ({f"AU{int(n):02d}" for n in half.split()} for half in row.split("|"))
        assert set(PROTOTYPES[expression][0]) == core
        assert set(PROTOTYPES[expression][1]) == other - {"AU11"}
    assert set(ANCHORS) == set(EXPRESSIONS)


def test_labels_only_where_the_pattern_earns_them():
    kinds = {"": 0}
    for seed in range(400):
        affect = draw_affect(np.random.default_rng(seed))
        units = affect.units
        kinds[affect.expression] = kinds.get(affect.expression, 0) + 1
        assert np.isnan(units[UNIT["AU11"]])
        known = np.delete(units, UNIT["AU11"])
        assert ((known >= 0) & (known <= 1)).all()
        assert min(units[UNIT["AU24"]], units[UNIT["AU25"]]) == 0
        if affect.expression == "neutral":
            assert known.max() < NEUTRAL_BELOW
            assert (affect.valence, affect.arousal) == (0, 0)
        elif affect.expression:
            assert (
                np.hypot(affect.valence, affect.arousal)
                >= LABEL_FROM * np.hypot(*ANCHORS[affect.expression]) - 1e-9
            )
        assert np.isnan(affect.valence) == np.isnan(affect.arousal)
    assert set(kinds) == {"", *EXPRESSIONS}
    assert min(kinds.values()) > 10


def test_a_neutral_prototype_moves_nothing():
    assert np.nan_to_num(prototype("neutral", 1.0, np.random.default_rng(0))).max() == 0


# Pictures


def test_people_and_backdrops_follow_their_seed():
    first, again, other = make_person(7), make_person(7), make_person(8)
    np.testing.assert_array_equal(first.identity, again.identity)
    np.testing.assert_array_equal(first.skin, again.skin)
    assert np.abs(first.identity - other.identity).max() > 0.1
    dark, light = make_person(7, tone=1.0), make_person(7, tone=0.0)
    assert dark.skin.sum() < 0.3 * light.skin.sum()
    a, b = (make_backdrop(np.random.default_rng(2), 40) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_degradation_does_what_it_says():
    rng = np.random.default_rng(0)
    picture = make_backdrop(rng, 64)
    np.testing.assert_array_equal(degrade(picture, Degradation(), rng), picture)
    grey = degrade(picture, Degradation(grey=True, scale=0.5), rng)
    assert grey.shape == (32, 32, 3)
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    assert np.abs(degrade(picture, Degradation(noise=5.0), rng).astype(int) - picture).mean() > 2


def test_samples_are_determined_by_their_seed(mask: FaceMesh):
    renderer = FaceRenderer(mask)
    first, again = (draw_sample(renderer, 5, (1, 2, 3)) for _ in range(2))
    other = draw_sample(renderer, 5, (1, 2, 4))
    assert first.image.shape == (112, 112, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.units, again.units)
    assert (first.image != other.image).any()


def test_the_camera_puts_the_crop_into_the_middle(mask: FaceMesh):
    renderer = FaceRenderer(mask)
    look = renderer.look(make_person(0, modes=4))
    vertices = renderer.vertices(look, {}, Pose(20, 5, 10), (0.0, 0.0))
    camera = aim_camera(renderer, vertices, 60.0, 200, 150.0)
    matrix = similarity(renderer.landmarks(vertices, camera))
    assert 112 / np.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(150, rel=1e-4)
    np.testing.assert_allclose(matrix @ [99.5, 99.5, 1], [55.5, 55.5], atol=1e-2)


def test_light_from_the_right_brightens_the_right(mask: FaceMesh):
    renderer = FaceRenderer(mask)
    look = renderer.look(make_person(0, modes=4, tone=0.2))
    lamp = Lighting((Light((1, 0, 0.3), (1, 1, 1)),), (0.05,) * 3, (0.05,) * 3)
    view = View(Pose(), Camera(60, 5, (80, 80)), lamp)
    black = np.zeros((160, 160, 3), np.uint8)
    vertices = renderer.vertices(look, {}, Pose(), (0.0, 0.0))
    picture = renderer.draw(look, vertices, np.zeros(17), view, black).astype(float)
    assert picture[90:110, 100:115].mean() > 1.3 * picture[90:110, 45:60].mean()
    assert picture[:3].max() == 0  # the background shows beside the face


# The pack


def test_a_pack_is_read_back(mask: FaceMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(render_faces, "_renderer", lambda model: FaceRenderer(mask))
    reports = []
    options = {"model": tmp_path / "m.h5", "count": 7, "seed": 4, "identities": 20}
    for name, people in (("a", "train"), ("b", "train"), ("c", "held-out")):
        run(
            RenderFacesOptions(out=tmp_path / f"{name}.h5", people=people, **options),
            reports.append,
        )
    packs = {name: read_pack(tmp_path / f"{name}.h5") for name in "abc"}
    for first, again in zip(packs["a"].images, packs["b"].images, strict=True):
        np.testing.assert_array_equal(first, again)
    assert packs["a"].identity is not None
    assert packs["c"].identity is not None
    assert set(packs["a"].identity % 5) <= {0, 1, 2, 3}
    assert set(packs["c"].identity % 5) == {4}
    for pack in packs.values():
        assert len(pack) == 7
        assert cv2.imdecode(pack.images[0], cv2.IMREAD_COLOR).shape == (112, 112, 3)
        assert np.isnan(pack.units[:, UNIT["AU11"]]).all()
        assert not np.isnan(pack.units[:, UNIT["AU12"]]).any()
    assert reports[-1].done == reports[-1].total == 7
    assert not list(tmp_path.glob("*.partial"))
    with h5py.File(tmp_path / "a.h5") as file:
        for name, (low, high) in {"tone": (0, 1), "yaw": (-40, 40), "pitch": (-25, 25)}.items():
            values = file[name][:]
            assert len(set(values)) > 1
            assert low <= values.min() <= values.max() <= high
        assert "MIT" in file.attrs["licence"]
        assert str(tmp_path) not in str(dict(file.attrs))  # packs say nothing of the machine


def test_people_of_packs_do_not_overlap(tmp_path: Path):
    def people(which):
        options = RenderFacesOptions(model=tmp_path, out=tmp_path, people=which, identities=103)
        return set(people_of(options).tolist())

    assert people("train") | people("held-out") == people("all") == set(range(103))
    assert not people("train") & people("held-out")
    assert len(people("held-out")) == 20


def test_bad_input_is_one_clear_error(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        load_ict(tmp_path / "none.h5")
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=re.escape(str(broken))):
        load_ict(broken)
    with pytest.raises(UsageError, match="exists"):
        run(RenderFacesOptions(model=broken, out=broken, count=1))
    with pytest.raises(UsageError, match="no such folder"):
        run(RenderFacesOptions(model=broken, out=tmp_path / "no" / "pack.h5", count=1))
    for model in (broken, tmp_path / "none.h5"):
        with pytest.raises(DataError):
            run(RenderFacesOptions(model=model, out=tmp_path / "pack.h5", count=1))
    assert [path.name for path in tmp_path.iterdir()] == ["broken.h5"]


# With the real model


@pytest.mark.shared
def test_units_move_the_face_as_their_names_say(ict: FaceRenderer):
    mesh = ict.mesh
    rest = mesh.neutral

    def with_unit(name: str) -> np.ndarray:
        units = np.zeros(17)
        units[UNIT[name]] = 1.0
        return mesh.shape(rest, expression_weights(units, mesh.expression))

    def mouth_width(v):
        right, left = mesh.landmark_points(v)[3:]
        return left[0] - right[0]

    def gap(v):
        return float(v[mesh.lips[0], 1] - v[mesh.lips[1], 1])

    def height(v, x, y):
        """Height of the point of the face that rests at (x, y)."""
        front = np.where(rest[:, 2] > 5, 0, 99)
        return float(v[(np.abs(rest[:, :2] - [x, y]).sum(axis=1) + front).argmin(), 1])

    smile = with_unit("AU12")
    assert mouth_width(smile) > mouth_width(rest) + 0.8
    assert mesh.landmark_points(smile)[3:, 1].min() > mesh.landmark_points(rest)[3:, 1].max() + 0.4
    assert mouth_width(with_unit("AU20")) > mouth_width(rest) + 0.3
    frown = mesh.landmark_points(with_unit("AU15"))
    assert frown[3:, 1].max() < mesh.landmark_points(rest)[3:, 1].min()
    assert height(with_unit("AU01"), 1.8, 5.3) > height(rest, 1.8, 5.3) + 0.3
    assert height(with_unit("AU02"), 4.8, 5.6) > height(rest, 4.8, 5.6) + 0.3
    assert height(with_unit("AU04"), 1.8, 5.3) < height(rest, 1.8, 5.3) - 0.2
    assert height(with_unit("AU05"), 3.2, 4.2) > height(with_unit("AU07"), 3.2, 4.2)
    assert gap(with_unit("AU26")) > gap(with_unit("AU25")) > gap(rest) + 0.3
    assert gap(with_unit("AU24")) <= gap(rest) + 0.02


@pytest.mark.shared
def test_detectors_see_the_landmarks_where_they_are(ict: FaceRenderer, shared: Path):
    detect = importlib.import_module("feie.features.faces.detectors")
    models = shared / "models"
    detectors = [
        detect.load_detector(f"scrfd:{models / 'det_500m.onnx'}"),
        detect.load_detector(f"yunet:{models / 'face_detection_yunet_2023mar.onnx'}"),
    ]
    light = Lighting((Light((0.4, 0.6, 1), (0.8, 0.8, 0.8)),), (0.3,) * 3, (0.2,) * 3)
    errors = [[], []]
    for seed in range(6):
        look = ict.look(make_person(seed, tone=seed / 5))
        units = np.nan_to_num(prototype(EXPRESSIONS[seed + 1], 0.8, np.random.default_rng(seed)))
        weights = expression_weights(units, ict.mesh.expression)
        pose = Pose(yaw=6.0 * (seed - 3), pitch=3.0 * (seed - 3))
        vertices = ict.vertices(look, weights, pose, (0.0, 0.0))
        camera = aim_camera(ict, vertices, 70.0, 320, 190.0)
        backdrop = make_backdrop(np.random.default_rng(seed), 320)
        photo = ict.draw(look, vertices, units, View(pose, camera, light), backdrop)
        truth = ict.landmarks(vertices, camera)
        for kept, detector in zip(errors, detectors, strict=True):
            faces = detector.detect(photo)
            assert len(faces.score) == 1
            kept.append(np.linalg.norm(faces.landmarks[0] - truth, axis=1) * 112 / 190)
    # In px of the aligned crop; the detectors differ from each other by as much.
    assert np.mean(errors[0]) < 3
    assert np.mean(errors[1]) < 5


@pytest.mark.shared
def test_the_real_pack(shared: Path, tmp_path: Path):
    model = shared / "data" / "ict_facekit_light.h5"
    result = run(RenderFacesOptions(model=model, out=tmp_path / "p.h5", count=8, workers=1))
    pack = read_pack(result.out)
    assert len(pack) == result.images == 8
    for jpeg in pack.images:
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert image.shape == (112, 112, 3)
        assert image.std() > 5
