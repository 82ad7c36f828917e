"""The example clips and labels as they lie in the project."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

TARGETS = ["Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"]


@pytest.fixture(scope="module")
def example(project: Path) -> Path:
    return project / "data.example"


@pytest.fixture(scope="module")
def labels(example: Path) -> pd.DataFrame:
    return pd.read_csv(example / "labels.csv")


@pytest.fixture(scope="module")
def clips(example: Path) -> dict[str, tuple[int, int]]:
    """Decoded frames and frame rate of every clip."""
    found = {}
    for path in sorted((example / "videos").iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            frames = list(container.decode(stream))
            assert {(f.width, f.height) for f in frames} == {(112, 112)}
            found[path.stem] = (len(frames), round(float(stream.average_rate)))
    return found


@pytest.fixture(scope="module")
def maker(example: Path):
    """The kept script, as a module."""
    spec = importlib.util.spec_from_file_location("make_clips", example / "make_clips.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_clips"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_clips"]


def test_the_folder_is_small(example: Path):
    assert sum(p.stat().st_size for p in example.rglob("*") if p.is_file()) < 5e6


def test_labels_join_the_videos(labels: pd.DataFrame, clips):
    assert list(labels.columns) == ["id", "split", *TARGETS]
    assert labels["id"].is_unique
    assert set(labels["id"]) == set(clips)
    assert len(labels) >= 40
    assert labels["split"].value_counts().to_dict() == {"train": 96, "test": 48, "val": 32}


def test_every_target_varies_in_every_split(labels: pd.DataFrame):
    values = labels[TARGETS]
    assert values.notna().all(axis=None)
    assert ((values >= 0) & (values <= 1)).all(axis=None)
    for _, rows in labels.groupby("split"):
        assert (rows[TARGETS].std() > 0.1).all()
        assert (rows[TARGETS].max() > 0.4).all()
        assert (rows[TARGETS].nunique() >= 4).all()


def test_clips_differ_in_length_and_length_tells_nothing(labels: pd.DataFrame, clips):
    lengths = np.array([clips[name][0] for name in labels["id"]])
    assert lengths.min() >= 45
    assert lengths.max() <= 160
    assert len(set(lengths.tolist())) > 30
    assert {rate for _, rate in clips.values()} == {25, 30}
    r = [abs(np.corrcoef(lengths, labels[target])[0, 1]) for target in TARGETS]
    assert np.mean(r) < 0.15
    assert max(r) < 0.3


def test_splits_share_no_person(maker):
    assert sum(maker.PEOPLE.values()) * maker.CLIPS_PER_PERSON == 176
    assert maker.FIRST_PERSON >= 1000  # beyond those of the training packs


def test_labels_follow_the_rule_of_the_script(labels: pd.DataFrame, maker):
    # The curves of a clip are drawn before anything is rendered: no face model is needed.
    number = 0
    clips = 0
    for people in maker.PEOPLE.values():
        for index in range(people * maker.CLIPS_PER_PERSON):
            number += 1
            turn, which = divmod(index, len(maker.MOVES))
            leading = list(maker.MOVES)[which]
            rng = np.random.default_rng([27, number])
            clip = maker.draw_clip(rng, leading, 0.3 + 0.7 * ((0.5 + 0.618 * turn) % 1))
            row = labels.iloc[number - 1]
            for target, value in maker.labels(clip).items():
                assert row[target] == pytest.approx(value, abs=6e-5)
            clips += 1
    assert clips == len(labels)


def test_readme_says_what_matters(example: Path):
    text = (example / "README.md").read_text(encoding="utf-8")
    for words in ("MIT", "USC Institute for Creative Technologies", "The rule of the labels"):
        assert words in text


@pytest.mark.shared
def test_detectors_find_the_faces(example: Path, shared: Path):
    from feie.features.faces.detectors import load_detector

    detector = load_detector(f"scrfd:{shared / 'models' / 'det_500m.onnx'}")
    found = []
    for path in sorted((example / "videos").iterdir())[::4]:
        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        for image in frames[:: len(frames) // 3]:
            bordered = np.pad(image, ((56, 56), (56, 56), (0, 0)), mode="edge")
            found.append(len(detector.detect(bordered).score) > 0)
    assert np.mean(found) > 0.97


@pytest.mark.shared
def test_the_script_renders_the_same_pictures(shared: Path, maker):
    renderer = maker.FaceRenderer(maker.load_ict(shared / "data" / "ict_facekit_light.h5"))
    digests = []
    for _ in range(2):
        rng = np.random.default_rng([1, 1])
        clip = maker.draw_clip(rng, "smile", 0.8)
        person = maker.make_person(maker.FIRST_PERSON, tone=0.3)
        frames = maker.frames_of(renderer, person, clip, rng)
        first = [next(frames) for _ in range(3)]
        assert first[0].shape == (112, 112, 3)
        digests.append(hashlib.sha256(b"".join(f.tobytes() for f in first)).hexdigest())
    assert digests[0] == digests[1]
