"""Reading packs, aligning their images, and scoring every one of them."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import cv2
import h5py
import numpy as np
import pytest
import torch

from feie.features.errors import DataError, MissingWeightsError
from feie.features.mma.augment import AugmentConfig, augment, resample
from feie.features.mma.crops import (
    FIXED_OFFSET,
    FIXED_SIDE,
    cached_pack_faces,
    fixed_crop,
    pack_faces,
)
from feie.features.mma.network import MMANetwork, NetworkConfig
from feie.features.mma.packs import read_pack
from feie.features.mma.sampling import held_out, weak_valence_arousal
from feie.features.mma.teacher import Guess, Teacher, guessed_units
from feie.features.mma.weights import save_weights
from feie.features.schema import ACTION_UNITS, EXPRESSIONS
from feie.pipeline.evaluate_mma import EvaluateMmaOptions, run

TINY = NetworkConfig(stem=(8, 8), widths=(8, 16), depths=(1, 1), embedding=8)
Write = Callable[..., Path]


def _jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imencode(".png", image)[1].reshape(-1)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(images: list[np.ndarray], **columns: object) -> Path:
        path = tmp_path / "pack.h5"
        with h5py.File(path, "w") as file:
            rows = file.create_dataset("jpeg", (len(images),), h5py.vlen_dtype(np.uint8))
            for i, image in enumerate(images):
                rows[i] = _jpeg(image) if image.ndim > 1 else image
            for name, values in columns.items():
                file[name] = values
        return path

    return write


def _faces(count: int, side: int, channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(side)
    shape = (side, side, channels) if channels > 1 else (side, side)
    return [rng.integers(0, 255, shape, dtype=np.uint8) for _ in range(count)]


def test_labels_as_bytes_strings_codes_and_synonyms(write: Write) -> None:
    labels = np.array([b"happiness", b"Angry", b"", b"contempt", b"neutral"], dtype=object)
    pack = read_pack(write(_faces(5, 48), expression=labels, name=labels))
    assert [EXPRESSIONS[i] if i >= 0 else "" for i in pack.expression] == [
        "happiness", "anger", "", "", "neutral",
    ]  # fmt: skip
    assert pack.outside == {"contempt": 1}
    assert pack.select(np.array([0, 1])).outside == {}
    assert pack.names[1] == "Angry"
    codes = read_pack(write(_faces(4, 48), expression=np.array([0, 6, 7, -1])))
    assert codes.expression.tolist() == [0, 6, -1, -1]
    assert codes.outside == {"7": 1}


def test_numbers_are_read_and_the_unknown_stays_unknown(write: Write) -> None:
    units = np.full((2, 17), np.nan, dtype=np.float32)
    units[0, 3] = 0.5
    pack = read_pack(write(_faces(2, 112), valence=[0.5, np.nan], arousal=[-1.0, np.nan], au=units))
    np.testing.assert_array_equal(pack.units, units)
    np.testing.assert_array_equal(pack.valence_arousal, [[0.5, -1.0], [np.nan, np.nan]])
    single = read_pack(write(_faces(2, 112), AU12=[1.0, 0.0]))
    assert np.flatnonzero(~np.isnan(single.units).any(axis=0)).tolist() == [9]
    assert (single.expression == -1).all()


def test_bad_packs_are_one_clear_error(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pack at"):
        read_pack(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError, match="not a readable HDF5"):
        read_pack(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pixels"] = np.zeros(3)
        file["emotion"] = np.zeros(3)
    with pytest.raises(DataError, match="only: emotion, pixels"):
        read_pack(tmp_path / "other.h5")
    with pytest.raises(DataError, match="holds no images"):
        read_pack(write([]))
    with pytest.raises(DataError, match=r"'expression' has shape \(3,\), expected \(2,\)"):
        read_pack(write(_faces(2, 48), expression=[0, 1, 2]))
    with pytest.raises(DataError, match="-5, outside"):
        read_pack(write(_faces(2, 48), valence=[-5.0, 0.0]))
    with pytest.raises(DataError, match="no expression label is one of"):
        read_pack(write(_faces(2, 48), expression=np.array([b"smile", b"frown"], dtype=object)))
    broken = read_pack(write([*_faces(1, 48), np.arange(9, dtype=np.uint8)]))
    with pytest.raises(DataError, match=r"row 1\) cannot be decoded"):
        pack_faces(broken)


def test_every_image_becomes_a_face(write: Write) -> None:
    images = [*_faces(1, 112), *_faces(1, 48, 1), *_faces(1, 224), np.zeros((60, 90, 3), np.uint8)]
    faces, alignment = pack_faces(read_pack(write(images)))
    assert faces.shape == (4, 112, 112, 3)
    assert vars(alignment) == {"aligned": 1, "detected": 0, "fixed": 3}
    np.testing.assert_array_equal(faces[0], images[0][:, :, ::-1])
    grey, _ = pack_faces(read_pack(write(_faces(3, 48, 1))))
    assert grey.shape == (3, 112, 112, 1)


def test_the_fixed_crop_puts_fer_eyes_on_the_template() -> None:
    """FER2013's median eyes lie at (15.1, 18.6) and (33.0, 18.3) of 48 pixels."""
    image = np.zeros((48, 48, 1), np.uint8)
    image[18, 14:17] = image[18, 32:35] = 255
    face = fixed_crop(image)[:, :, 0].astype(float)
    for half, eye in ((slice(0, 56), (38.3, 51.7)), (slice(56, 112), (73.5, 51.5))):
        part = np.zeros_like(face)
        part[:, half] = face[:, half]
        y, x = np.indices(part.shape)
        centre = (x * part).sum() / part.sum(), (y * part).sum() / part.sum()
        assert np.hypot(centre[0] - eye[0], centre[1] - eye[1]) < 2.5
    assert FIXED_OFFSET[0] * 2 + FIXED_SIDE <= 112


class _Found:
    def __init__(self, landmarks: np.ndarray) -> None:
        self.landmarks, self.score = landmarks, np.ones(len(landmarks), np.float32)


class _Detector:
    """Finds the ArcFace template, enlarged, in every second picture, and nonsense in the third."""

    name, sha256 = "stub", "0"
    options: ClassVar = {}

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, rgb: np.ndarray) -> _Found:
        self.calls += 1
        points = np.array([[100, 110], [156, 110], [128, 140], [105, 170], [150, 170]], np.float32)
        if self.calls == 1:
            return _Found(points[None])
        return _Found(np.empty((0, 5, 2), np.float32) if self.calls == 2 else points[None] * 0.1)


def test_what_a_detector_misses_gets_the_fixed_crop(write: Write, tmp_path: Path) -> None:
    pack = read_pack(write(_faces(3, 48)))
    faces, alignment = pack_faces(pack, _Detector())
    fixed, _ = pack_faces(pack)
    assert vars(alignment) == {"aligned": 0, "detected": 1, "fixed": 2}
    assert not np.array_equal(faces[0], fixed[0])
    np.testing.assert_array_equal(faces[1:], fixed[1:])
    detector = _Detector()
    for _ in range(2):
        kept, again = cached_pack_faces(pack, detector, tmp_path)
        np.testing.assert_array_equal(kept, faces)
        assert again == alignment
        assert detector.calls == 3


def test_held_out_fifth_is_fixed_by_names() -> None:
    names = [f"image_{i}.jpg" for i in range(2000)]
    out = held_out(names, 0.2)
    assert 0.17 < out.mean() < 0.23
    np.testing.assert_array_equal(held_out(names[::-1], 0.2)[::-1], out)


def test_weak_valence_follows_the_circumplex() -> None:
    values = weak_valence_arousal(np.array([4, 5, -1]))
    assert values[0, 0] > 0.5 > -0.5 > values[1, 0]
    assert np.isnan(values[2]).all()


def test_augmentation_repeats_and_can_do_nothing() -> None:
    faces = torch.from_numpy(np.stack(_faces(6, 112)))
    first, again, other = (
        augment(faces, 64, AugmentConfig(), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, 3, 64, 64)
    assert first.min() >= -1
    assert first.max() <= 1
    nothing = AugmentConfig.model_validate(dict.fromkeys(AugmentConfig.model_fields, 0))
    kept = augment(faces, 112, nothing, torch.Generator().manual_seed(0))
    torch.testing.assert_close(kept, resample(faces, 112), atol=2e-3, rtol=0)
    mirrored = augment(
        faces, 112, nothing.model_copy(update={"flip": 1.0}), torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(mirrored.flip(3), kept, atol=2e-3, rtol=0)


def test_the_teacher_speaks_only_of_what_it_sees() -> None:
    blendshapes = np.zeros(52, np.float32)
    blendshapes[[44, 45]] = 0.2, 0.4
    units = guessed_units(Guess(score=3.0, blendshapes=blendshapes, gap=0.06))
    named = dict(zip(ACTION_UNITS, units.tolist(), strict=True))
    assert {name for name, value in named.items() if not np.isnan(value)} == {
        "AU01", "AU02", "AU12", "AU25", "AU26",
    }  # fmt: skip
    assert named["AU12"] == pytest.approx(0.5)
    assert named["AU25"] == pytest.approx(0.5)
    assert named["AU01"] == named["AU26"] == 0
    assert np.isnan(guessed_units(Guess(-1.0, blendshapes, 0.06))).all()
    with pytest.raises(MissingWeightsError, match=r"no face_landmarker\.task at"):
        Teacher(Path("nowhere.task"))


def test_evaluate_counts_every_image(write: Write, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, "tiny", MMANetwork(TINY), 64, {})
    images = [*_faces(3, 112), *_faces(4, 48, 1)]
    labels = np.array([b"happiness", b"anger", b"contempt", b"", b"fear", b"sadness", b"neutral"])
    units = np.full((7, 17), np.nan)
    units[:3, 9] = [1.0, 0.0, 0.7]
    path = write(images, expression=labels, au=units, valence=np.linspace(-1, 1, 7),
                 arousal=np.linspace(1, -1, 7))  # fmt: skip
    result = run(EvaluateMmaOptions(data=path, weights=str(weights), repeats=20))
    assert (result.n, result.n_expression, result.outside) == (7, 5, {"contempt": 1})
    assert (result.aligned, result.detected, result.fixed) == (3, 0, 4)
    assert sum(sum(row.values()) for row in result.confusion.values()) == 5
    assert list(result.au_f1) == ["AU12"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "ece"):
        assert 0 <= getattr(result, name) <= 1
    assert -1 <= (result.ccc_va or 0) <= 1
    assert set(result.intervals) == {
        "accuracy", "balanced_accuracy", "macro_f1", "ccc_valence", "ccc_arousal", "au_f1_mean",
    }  # fmt: skip
    result.model_dump_json()
    bare = run(EvaluateMmaOptions(data=write(images), weights=str(weights)))
    assert bare.n == 7
    assert bare.accuracy is None
    with pytest.raises(MissingWeightsError, match="no extractor 'nothing'"):
        run(EvaluateMmaOptions(data=path, weights="nothing"))


@pytest.mark.shared
def test_bundled_weights_beat_chance_on_unseen_faces(shared: Path, write: Write) -> None:
    """A seeded eighth of FER2013's validation set; seven classes, the largest a quarter."""
    pack = read_pack(shared / "data" / "fer2013_val.h5")
    rows = np.random.default_rng(0).choice(len(pack), len(pack) // 8, replace=False)
    part = pack.select(np.sort(rows))
    labels = np.array([EXPRESSIONS[i].encode() for i in part.expression])
    result = run(EvaluateMmaOptions(data=write(part.jpeg, expression=labels), repeats=0))
    assert result.n == len(rows)
    assert result.accuracy is not None
    assert result.accuracy > 0.5
    assert result.macro_f1 is not None
    assert result.macro_f1 > 0.45
