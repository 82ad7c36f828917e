"""Boxes and landmarks filtered over time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import savgol_filter

from feie.features.errors import UsageError
from feie.features.faces.align import ARCFACE_TEMPLATE
from feie.features.faces.detection import Faces
from feie.features.faces.smooth import smoothed
from feie.features.faces.stream import FaceOptions
from feie.features.video.reader import Frame


def face(x: float, y: float, size: float = 100.0) -> Faces:
    box = np.array([[x, y, x + size, y + size]], np.float32)
    points = ARCFACE_TEMPLATE * np.float32(size / 112) + np.float32([x, y])
    return Faces(box, np.array([0.9], np.float32), points[None])


def run(faces: list[Faces | None], window: int) -> list[Faces | None]:
    frames = [(Frame(i / 25, np.zeros((4, 4, 3), np.uint8)), f) for i, f in enumerate(faces)]
    out = list(smoothed(iter(frames), window))
    assert [frame for frame, _ in out] == [frame for frame, _ in frames]
    return [f for _, f in out]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 14), min_size=1, max_size=4),
    window=st.sampled_from([5, 7, 9]),
    seed=st.integers(0, 999),
)
def test_each_run_is_scipys_filter_over_all_of_it(lengths, window, seed):
    """Frame by frame it gives what the filter gives that sees the whole run."""
    rng = np.random.default_rng(seed)
    faces: list[Faces | None] = []
    expected: list[np.ndarray | None] = []
    for length in lengths:
        part = [face(*rng.normal(50, 3, 2)) for _ in range(length)]
        points = np.array([f.landmarks[0] for f in part], np.float64).reshape(-1, 5, 2)
        if length >= window:
            points = savgol_filter(points, window, 2, axis=0, mode="interp")
        faces += [*part, None]
        expected += [*points, None]
    found = run(faces, window)
    for got, wanted in zip(found, expected, strict=True):
        assert (got is None) == (wanted is None)
        if got is not None and wanted is not None:
            np.testing.assert_allclose(got.landmarks[0], wanted, atol=1e-3)
            assert got.score[0] == np.float32(0.9)


def test_even_movement_is_kept_and_trembling_is_not():
    """Without lag: acceleration stays where and when it was."""
    t = np.arange(40.0)
    path = 0.05 * (t - 20) ** 2
    even = run([face(x, 2 * x) for x in path], 7)
    np.testing.assert_allclose([f.bbox[0, 0] for f in even], path, atol=1e-3)
    noise = np.random.default_rng(0).normal(0, 1, 40)
    shaky = np.array([f.bbox[0, 0] for f in run([face(x, 0) for x in path + noise], 7)])
    assert np.abs(np.diff(shaky - path, 2)).mean() < 0.3 * np.abs(np.diff(noise, 2)).mean()


def test_another_face_is_not_mixed_in():
    faces = [face(0, 0)] * 9 + [face(300, 0)] * 9
    assert [f.bbox[0, 0] for f in run(faces, 5)] == pytest.approx([0] * 9 + [300] * 9, abs=1e-3)


@pytest.mark.parametrize("options", [{"smooth": 4}, {"smooth": 3}, {"smooth": 33}, {"smooth": -5},
                                     {"smooth": 7, "all_faces": True}])  # fmt: skip
def test_senseless_windows(options):
    with pytest.raises(UsageError):
        FaceOptions(**options)
