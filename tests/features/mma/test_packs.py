"""Reading packs, aligning their images, and scoring every one of them."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import cv2
import h5py
import numpy as np
import pytest
import torch

from feie.features.errors import DataError, MissingWeightsError, UsageError
from feie.features.mma.augment import AugmentConfig, augment, resample
from feie.features.mma.data.crops import (
    FIXED_OFFSET,
    FIXED_SIDE,
    cached_pack_faces,
    decode,
    fixed_crop,
    pack_faces,
)
from feie.features.mma.data.labelled import held_out
from feie.features.mma.data.packs import Pack, read_pack, read_units
from feie.features.mma.network import MMANetwork, NetworkConfig
from feie.features.mma.scoring.metrics import concordance
from feie.features.mma.scoring.scores import score_pack
from feie.features.mma.teacher import TABLE, Guess, Teacher, guessed_units
from feie.features.mma.training.soft_targets import blended, graded, one_hot, weak_valence_arousal
from feie.features.mma.weights import save_weights
from feie.features.schema import ACTION_UNITS, AFFECT, EXPRESSIONS, VA_EXPR8
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaOptions, run
from feie.pipeline.progress import Progress

NOTHING = dict.fromkeys(AugmentConfig.model_fields.keys() - {"quality"}, 0)
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


def test_action_units_are_placed_by_their_names(write: Write) -> None:
    def pack(columns: list[object], values: object = ((1.0, 0.25), (0.0, np.nan))) -> np.ndarray:
        path = write(_faces(2, 48), au=np.array(values))
        with h5py.File(path, "r+") as file:
            file["au"].attrs["columns"] = columns
        return read_pack(path).units

    for columns in (["AU12", "AU01"], [b"au12", b"AU1"]):
        units = pack(columns)
        np.testing.assert_array_equal(units[:, [9, 0]], [[1.0, 0.25], [0.0, np.nan]])
        assert np.isnan(np.delete(units, [0, 9], axis=1)).all()
    reverse = list(ACTION_UNITS[::-1])
    values = np.random.default_rng(0).random((2, 17)).astype(np.float32)
    np.testing.assert_array_equal(pack(reverse, values), values[:, ::-1])
    with pytest.raises(DataError, match="names 'AU99', 'smile'; feie knows AU01"):
        pack(["AU99", "smile"])
    with pytest.raises(DataError, match="an action unit twice"):
        pack(["AU01", "AU1"])
    with pytest.raises(DataError, match=r"shape \(2, 2\), expected \(2, 3\)"):
        pack(["AU01", "AU02", "AU04"])
    with pytest.raises(DataError, match="name fewer units in its attribute 'columns'"):
        read_pack(write(_faces(2, 48), au=np.zeros((2, 3))))
    single = read_pack(write(_faces(2, 48), AU1=[1.0, 0.0], AU45=[7.0, 7.0]))
    assert single.units[:, 0].tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="'AU01' and 'AU1' are one action unit"):
        read_pack(write(_faces(2, 48), AU1=[1.0, 0.0], AU01=[1.0, 0.0]))


def test_expression_codes_mean_what_the_pack_says(write: Write) -> None:
    def pack(values: object, classes: list[str] | None = None) -> Pack:
        path = write(_faces(len(values), 48), labels=np.array(values))
        with h5py.File(path, "r+") as file:
            if classes is not None:
                file["labels"].attrs["classes"] = classes
        return read_pack(path)

    fer = ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral", "Contempt"]
    named = pack([0, 3, 6, 7, -1], fer)
    assert named.expression.tolist() == [1, 4, 0, -1, -1]
    assert (named.codes, named.outside) == ("classes", {"contempt": 1})
    assumed = pack([[4.0], [np.nan], [-1.0]])
    assert (assumed.codes, assumed.expression.tolist()) == ("aff-wild2", [4, -1, -1])
    words = pack([b"joy", b"scared", b"N/A", b"Uncertain", b"sur"])
    assert (words.codes, words.expression.tolist()) == ("names", [4, 3, -1, -1, 6])
    assert words.outside == {}
    assert read_pack(write(_faces(2, 48))).codes is None
    with pytest.raises(DataError, match="holds code 8, but its classes are only 8"):
        pack([0, 8], fer)
    for value in (4.5, np.inf):
        with pytest.raises(DataError, match="which is no code"):
            pack([0.0, value])


def test_missing_values_as_data_sets_write_them(write: Write) -> None:
    pack = read_pack(
        write(_faces(3, 48), valence=[-2, -5, 1], arousal=[[0.5], [-5], [-2.0]],
              AU12=[True, False, True], AU04=[-1, 999, 1])
    )  # fmt: skip
    nan = np.nan
    np.testing.assert_array_equal(pack.valence_arousal, [[nan, 0.5], [nan, nan], [1, nan]])
    np.testing.assert_array_equal(pack.units[:, [9, 2]], [[1, nan], [0, nan], [1, 1]])
    with pytest.raises(DataError, match=r"holds 3, outside .* divide by 5"):
        read_pack(write(_faces(3, 48), AU12=[3, -1, 5]))
    with pytest.raises(DataError, match="write NaN where"):
        read_pack(write(_faces(3, 48), AU12=[3, 9, 0]))


def test_images_in_every_form_that_files_give_them(tmp_path: Path) -> None:
    images = _faces(2, 48)
    rgb = np.stack(images)[..., ::-1]
    encoded = [_jpeg(image) for image in images]
    longest = max(map(len, encoded))
    padded = np.stack([np.pad(e, (0, longest - len(e))) for e in encoded])
    forms = {
        "bytes": ("jpeg", np.array([e.tobytes() for e in encoded], dtype=f"S{longest}")),
        "opaque": ("jpeg", padded.view(f"V{longest}")[:, 0]),
        "padded": ("images", padded),
        "decoded": ("image", rgb),
        "grey": ("data", rgb[..., 0]),
    }
    want, _ = pack_faces(_pack_of(tmp_path / "vlen.h5", "jpeg", encoded))
    for form, (name, values) in forms.items():
        faces, alignment = pack_faces(_pack_of(tmp_path / f"{form}.h5", name, values))
        assert alignment.fixed == 2
        grey = faces.shape[3] == 1
        np.testing.assert_array_equal(faces, want[..., :1] if grey else want, form)


def _pack_of(path: Path, name: str, values: object) -> Pack:
    """Write an array as it is, or a list as rows of variable length."""
    with h5py.File(path, "w") as file:
        if isinstance(values, list):
            rows = file.create_dataset(name, (len(values),), h5py.vlen_dtype(np.uint8))
            for i, value in enumerate(values):
                rows[i] = value
        else:
            file[name] = values
    return read_pack(path)


def test_images_are_decoded_to_eight_bits_without_alpha_and_upright(tmp_path: Path) -> None:
    alpha = np.full((48, 48, 4), 200, np.uint8)
    deep = np.full((48, 48), 30_000, np.uint16)
    tall = np.zeros((112, 60, 3), np.uint8)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = cv2.imencode(".jpg", tall)[1].tobytes()
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    values = [_jpeg(alpha), _jpeg(deep), np.frombuffer(turned, np.uint8)]
    pack = _pack_of(tmp_path / "p.h5", "jpeg", values)
    shapes = [decode(pack, row).shape for row in range(3)]
    assert shapes == [(48, 48, 3), (48, 48, 1), (60, 112, 3)]
    assert decode(pack, 1).max() == 30_000 // 256


def test_odd_packs_are_read_or_refused_in_one_sentence(write: Write, tmp_path: Path) -> None:
    latin = np.array([b"joy", b"d\xe9go\xfbt"], dtype=object)
    pack = read_pack(write(_faces(2, 48), expression=latin, name=latin))
    assert pack.expression.tolist() == [4, -1]
    assert held_out(pack.names, 0.5).shape == (2,)
    contempt = read_pack(write(_faces(1, 48), emotion=np.array([b"contempt"])))
    assert contempt.outside == {"contempt": 1}
    for name in ("expression", "au", "name", "valence", "identity", "AU04"):
        for broken in (None, h5py.SoftLink("/nowhere")):
            path = write(_faces(1, 48))
            with h5py.File(path, "r+") as file:
                if broken is None:
                    file.create_group(name)
                else:
                    file[name] = broken
            with pytest.raises(DataError, match=f"'{name}' is no dataset"):
                read_pack(path)
        for value in (1.0, h5py.Empty("f4")):
            with pytest.raises(DataError, match=rf"'{name}' has shape \(\)"):
                read_pack(write(_faces(1, 48), **{name: value}))
    for images, message in (
        (5, "its dataset 'jpeg' is empty"),
        (h5py.Empty("f4"), "its dataset 'jpeg' is empty"),
        (np.zeros((2, 48, 48)), "decoded images are uint8"),
        (np.zeros((2, 48, 48, 2), np.uint8), "decoded images are uint8"),
        (np.zeros((2, 0, 48), np.uint8), "holds no images"),
        (np.zeros(3), "encoded images are variable-length uint8"),
    ):
        with h5py.File(tmp_path / "odd.h5", "w") as file:
            file["jpeg"] = images
        with pytest.raises(DataError, match=message):
            read_pack(tmp_path / "odd.h5")
    with h5py.File(tmp_path / "units.h5", "w") as file:
        file["name"], file["au"] = b"one", np.zeros(17)
    with pytest.raises(DataError, match="'name' has shape"):
        read_units(tmp_path / "units.h5")


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
    with pytest.raises(DataError, match="3, outside"):
        read_pack(write(_faces(2, 48), valence=[3.0, 0.0]))
    with pytest.raises(DataError, match="no expression label is one of"):
        read_pack(write(_faces(2, 48), expression=np.array([b"smile", b"frown"], dtype=object)))
    broken = read_pack(write([*_faces(1, 48), np.arange(9, dtype=np.uint8)]))
    with pytest.raises(DataError, match=r"row 1\) cannot be decoded"):
        pack_faces(broken)


def test_every_image_becomes_a_face(write: Write) -> None:
    images = [*_faces(1, 112), *_faces(1, 48, 1), *_faces(1, 224), np.zeros((60, 90, 3), np.uint8)]
    faces, alignment = pack_faces(read_pack(write(images)))
    assert faces.shape == (4, 112, 112, 3)
    assert vars(alignment) == {"aligned": 1, "landmarks": 0, "detected": 0, "fixed": 3}
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
    assert vars(alignment) == {"aligned": 0, "landmarks": 0, "detected": 1, "fixed": 2}
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
    sharp = one_hot(np.array([4, 5, -1]), 7)
    values = weak_valence_arousal(sharp, AFFECT)
    assert values[0, 0] > 0.5 > -0.5 > values[1, 0]
    assert np.isnan(values[2]).all()
    # Between two expressions lies the mean of their places; contempt has none.
    soft = np.array([[0.25, 0, 0, 0, 0.75, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(weak_valence_arousal(soft, AFFECT)[0], 0.75 * values[0], atol=1e-6)
    eight = np.pad(np.concatenate([soft, soft]), ((0, 0), (0, 1)))
    eight[1, -1] = 0.01
    np.testing.assert_array_equal(
        np.isnan(weak_valence_arousal(eight, VA_EXPR8)), [[False] * 2, [True] * 2]
    )


def test_a_faint_smile_is_partly_neutral() -> None:
    """By hand: with share 0.4 and AU12 = 0.25, happiness gives 0.3 of itself to neutral."""
    sharp = one_hot(np.array([4, 4, 4, 5, -1]), 7)
    units = np.zeros((5, 17), np.float32)
    units[:, ACTION_UNITS.index("AU12")] = [0.25, 1, np.nan, 0, 0]
    soft = graded(sharp, units, 0.4, AFFECT)
    np.testing.assert_allclose(soft[0], [0.3, 0, 0, 0, 0.7, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(soft[1:], sharp[1:])
    np.testing.assert_array_equal(graded(sharp, units, 0.0, AFFECT), sharp)
    opinion = np.full((5, 7), 1 / 7, np.float32)
    mixed = blended(soft, opinion, 0.5)
    np.testing.assert_allclose(mixed[:4].sum(axis=1), 1, atol=1e-6)
    assert mixed[0, 4] == pytest.approx(0.35 + 1 / 14, abs=1e-6)
    assert np.isnan(mixed[4]).all()


def test_augmentation_repeats_and_can_do_nothing() -> None:
    faces = np.stack(_faces(6, 112))
    first, again, other = (
        augment(faces, 64, AugmentConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, 3, 64, 64)
    assert first.min() >= -1
    assert first.max() <= 1
    nothing = AugmentConfig.model_validate(NOTHING)
    kept = augment(faces, 112, nothing, np.random.default_rng(0))
    torch.testing.assert_close(kept, resample(torch.from_numpy(faces), 112), atol=1e-5, rtol=0)
    flipping = nothing.model_copy(update={"flip": 1.0})
    mirrored = augment(faces, 112, flipping, np.random.default_rng(0))
    torch.testing.assert_close(mirrored.flip(3), kept, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "value"),
    [("equalise", 1.0), ("rotate", 20.0), ("shift", 0.2), ("scale", 0.5), ("light", 0.5),
     ("grey", 1.0), ("blur", 1.0), ("low_resolution", 1.0), ("noise", 1.0), ("compress", 1.0),
     ("cutout", 1.0)],
)  # fmt: skip
def test_every_augmentation_changes_faces_but_not_beyond_recognition(
    change: str, value: float
) -> None:
    faces = np.stack([cv2.GaussianBlur(face, (0, 0), 6) for face in _faces(8, 112)])
    config = AugmentConfig.model_validate(NOTHING | {change: value})
    changed = augment(faces, 112, config, np.random.default_rng(3))
    kept = resample(torch.from_numpy(faces), 112)
    assert (changed != kept).any(dim=(1, 2, 3)).all()
    assert changed.min() >= -1
    assert changed.max() <= 1
    if change == "grey":
        torch.testing.assert_close(changed, changed[:, :1].expand(-1, 3, -1, -1))
    if change in ("blur", "low_resolution", "compress"):
        assert (changed - kept).abs().mean() < 0.1


def _both(name: str) -> list[str]:
    return [f"{name}Left", f"{name}Right"]


BLENDSHAPES = (
    "_neutral", *_both("browDown"), "browInnerUp", *_both("browOuterUp"), "cheekPuff",
    *_both("cheekSquint"), *_both("eyeBlink"), *_both("eyeLookDown"), *_both("eyeLookIn"),
    *_both("eyeLookOut"), *_both("eyeLookUp"), *_both("eyeSquint"), *_both("eyeWide"),
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", *_both("mouthDimple"),
    *_both("mouthFrown"), "mouthFunnel", "mouthLeft", *_both("mouthLowerDown"),
    *_both("mouthPress"), "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", *_both("mouthSmile"), *_both("mouthStretch"),
    *_both("mouthUpperUp"), *_both("noseSneer"),
)  # fmt: skip
"""MediaPipe's names of the 52 blendshapes, in the order of the model's output."""


def test_the_teacher_speaks_only_of_what_it_sees() -> None:
    blendshapes = np.zeros(52, np.float32)
    blendshapes[[44, 45]] = 0.2, 0.4
    units = guessed_units(Guess(score=3.0, blendshapes=blendshapes, gap=0.06))
    named = dict(zip(ACTION_UNITS, units.tolist(), strict=True))
    assert {name for name, value in named.items() if not np.isnan(value)} == {
        "AU01", "AU02", "AU04", "AU05", "AU06", "AU10", "AU12", "AU15", "AU17", "AU20", "AU23",
        "AU24", "AU25", "AU26",
    }  # fmt: skip
    assert named["AU12"] == pytest.approx(0.5)
    assert named["AU25"] == pytest.approx(0.5)
    assert named["AU01"] == named["AU26"] == 0
    # Each unit of the table follows its own blendshapes alone, up to the value that is full.
    shapes = {
        "AU01": ["browInnerUp"], "AU02": _both("browOuterUp"), "AU04": _both("browDown"),
        "AU05": _both("eyeWide"), "AU10": _both("mouthUpperUp"), "AU12": _both("mouthSmile"),
        "AU15": _both("mouthFrown"), "AU17": ["mouthShrugLower"], "AU20": _both("mouthStretch"),
        "AU23": ["mouthRollLower", "mouthRollUpper"], "AU24": _both("mouthPress"),
        "AU26": ["jawOpen"],
    }  # fmt: skip
    assert {unit: [BLENDSHAPES[i] for i in places] for unit, (places, _) in TABLE.items()} == shapes
    for unit, (places, full) in TABLE.items():
        raised = np.zeros(52, np.float32)
        raised[list(places)] = full / 4
        got = guessed_units(Guess(3.0, raised, 0.0))
        for name in TABLE:
            want = 0.25 if name == unit else 0.0
            assert got[ACTION_UNITS.index(name)] == pytest.approx(want), (unit, name)
        raised[list(places)] = 1.0
        assert guessed_units(Guess(3.0, raised, 0.0))[ACTION_UNITS.index(unit)] == 1
    # A faint smile lifts no cheeks, a strong one does; a squint without a smile may be either.
    cheeks = ACTION_UNITS.index("AU06")
    blendshapes[[19, 20]] = 0.8
    for smile, want in ((0.1, np.nan), (0.3, np.nan), (0.6, 0.5), (0.9, 1.0), (1.0, 1.0)):
        blendshapes[[44, 45]] = smile
        got = guessed_units(Guess(3.0, blendshapes, 0.06))[cheeks]
        np.testing.assert_allclose(got, want, atol=1e-6)
    blendshapes[[19, 20, 44, 45]] = 0.2
    assert guessed_units(Guess(3.0, blendshapes, 0.06))[cheeks] == 0
    assert np.isnan(guessed_units(Guess(-1.0, blendshapes, 0.06))).all()
    with pytest.raises(MissingWeightsError, match=r"no face_landmarker\.task at"):
        Teacher(Path("nowhere.task"))


def test_images_of_another_pack_are_left_out(write: Write, tmp_path: Path) -> None:
    """The same pixels count as the same image, however they are stored; near ones do not."""
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, "tiny", MMANetwork(TINY), 64, {})
    faces = [*_faces(3, 112), *_faces(2, 48)]
    near = faces[1].copy()
    near[0, 0, 0] ^= 1
    other = write([faces[4], near, faces[0]], expression=np.arange(3)).rename(tmp_path / "other.h5")
    pack = write(faces, expression=np.arange(5))
    options = EvaluateMmaOptions(data=pack, extractor=str(weights), repeats=0)
    assert run(options).n == 5
    scores = run(options.model_copy(update={"without": other}))
    assert (scores.n, scores.aligned, scores.fixed) == (3, 2, 1)
    with pytest.raises(DataError, match=r"all of its images are in .* too"):
        run(options.model_copy(update={"without": pack}))
    with pytest.raises(DataError, match=r"no pack at nowhere\.h5"):
        run(options.model_copy(update={"without": Path("nowhere.h5")}))
    listed = options.model_copy(update={"without": other, "reader": "table"})
    with pytest.raises(UsageError, match="--without is for packs"):
        run(listed)


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
    result = run(EvaluateMmaOptions(data=path, extractor=str(weights), repeats=20))
    assert (result.n, result.n_expression, result.outside) == (7, 5, {"contempt": 1})
    assert (result.aligned, result.detected, result.fixed) == (3, 0, 4)
    assert sum(sum(row.values()) for row in result.confusion.values()) == 5
    assert list(result.au_f1) == ["AU12"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "ece"):
        assert 0 <= getattr(result, name) <= 1
    assert -1 <= (result.ccc_va or 0) <= 1
    assert set(result.intervals) == {
        "accuracy", "balanced_accuracy", "macro_f1", "recall_rare", "ccc_valence", "ccc_arousal",
        "ccc_va", "au_f1_mean",
    }  # fmt: skip
    result.model_dump_json()
    bare = run(EvaluateMmaOptions(data=write(images), extractor=str(weights)))
    assert bare.n == 7
    assert bare.accuracy is None
    with pytest.raises(MissingWeightsError, match="no extractor 'nothing'"):
        run(EvaluateMmaOptions(data=path, extractor="nothing"))


def test_one_column_of_affect_is_scored_alone(write: Write) -> None:
    rng = np.random.default_rng(0)
    affect = rng.random((9, 26)).astype(np.float32)
    valence, arousal = rng.uniform(-1, 1, (2, 9)).astype(np.float32)
    arousal[4:] = np.nan
    scores = score_pack(read_pack(write(_faces(9, 48), valence=valence)), affect, 20)
    assert scores.ccc_valence == pytest.approx(concordance(affect[:, 0].astype(float), valence))
    assert (scores.ccc_arousal, scores.ccc_va) == (None, None)
    assert set(scores.intervals) == {"ccc_valence"}
    assert set(scores.headline()) == {"ccc_valence"}
    both = score_pack(read_pack(write(_faces(9, 48), valence=valence, arousal=arousal)), affect, 20)
    assert both.ccc_valence == scores.ccc_valence
    four = concordance(affect[:4, 1].astype(float), arousal[:4])
    assert both.ccc_arousal == pytest.approx(four)
    assert both.ccc_va == pytest.approx((both.ccc_valence + four) / 2)
    low, high = both.intervals["ccc_va"]
    assert low <= both.ccc_va <= high
    contempt = read_pack(write(_faces(2, 48), expression=np.array([b"contempt", b"contempt"])))
    nothing = score_pack(contempt, affect[:2])
    assert (nothing.n, nothing.accuracy, nothing.outside) == (2, None, {"contempt": 2})


def test_evaluate_never_holds_a_pack_decoded(tmp_path: Path, untrained: Path) -> None:
    """Decoded, 200 pictures of 400x400 are 96 MB; a batch of aligned faces is 2.4 MB."""
    picture = _jpeg(np.zeros((400, 400, 3), np.uint8))
    path = tmp_path / "p.h5"
    _pack_of(path, "jpeg", [picture] * 200)
    reports: list[Progress] = []
    tracemalloc.start()
    result = run(EvaluateMmaOptions(data=path, extractor=str(untrained)), reports.append)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6
    assert (result.n, result.fixed, result.expression_codes) == (200, 200, None)
    assert [report.done for report in reports] == [0, 64, 128, 192, 200]


def test_the_command_prints_one_json_object(write: Write, untrained: Path) -> None:
    path = write([*_faces(2, 112), *_faces(2, 48, 1)], expression=[0, 4, 7, -1])
    command = [sys.executable, "-c", "from feie.cli import app; app()", "evaluate-mma"]
    command += ["--data", path, "--weights", untrained, "--repeats", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["n"] == 4
    assert {"accuracy", "balanced_accuracy", "macro_f1"} <= result.keys()
    assert result["expression_codes"] == "aff-wild2"
    assert "Aff-Wild2" in done.stderr


@pytest.mark.shared
def test_bundled_weights_beat_chance_on_unseen_faces(shared: Path, write: Write) -> None:
    """A seeded eighth of FER2013's validation set; seven classes, the largest a quarter."""
    pack = read_pack(shared / "data" / "fer2013_val.h5")
    rows = np.random.default_rng(0).choice(len(pack), len(pack) // 8, replace=False)
    part = pack.select(np.sort(rows))
    labels = np.array([EXPRESSIONS[i].encode() for i in part.expression])
    result = run(EvaluateMmaOptions(data=write(part.images, expression=labels), repeats=0))
    assert result.n == len(rows)
    assert result.accuracy is not None
    assert result.accuracy > 0.5
    assert result.macro_f1 is not None
    assert result.macro_f1 > 0.45
