"""Readers of data sets, on small files in the genuine formats with real JPEG images."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any, ClassVar

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import TypeAdapter

from feie.features.errors import DataError, UsageError
from feie.features.faces.align import ARCFACE_TEMPLATE
from feie.features.faces.detection import Faces
from feie.features.mma.config import MmaConfig, find_config, read_config
from feie.features.mma.data.config import AffectNetSource, DataConfig, PartConfig
from feie.features.mma.data.face_rows import FileFaces, in_order
from feie.features.mma.data.readers import read_listing
from feie.features.mma.data.readers.listing import Listing
from feie.features.mma.scoring.metrics import bootstrap
from feie.features.mma.training.sampling import Mixture, load_source, take_part
from feie.features.mma.training.trainer import config_digest
from feie.features.schema import ACTION_UNITS, EXPRESSIONS
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaOptions
from feie.pipeline.extractor.evaluate_mma import run as evaluate
from feie.pipeline.extractor.train_mma import TrainMmaOptions
from feie.pipeline.extractor.train_mma import run as train
from feie.pipeline.progress import Progress

NAN = np.nan
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
    "expression,valence,arousal"
)


def draw_face(path: Path, side: int = 112, value: int = 200) -> None:
    """A round face with eyes and a mouth, as a JPEG file."""
    image = np.full((side, side, 3), 40, np.uint8)
    centre = side // 2
    cv2.circle(image, (centre, centre), side // 3, (value, value // 2, value // 3), -1)
    for x in (centre - side // 8, centre + side // 8):
        cv2.circle(image, (x, centre - side // 10), side // 30, (0, 0, 0), -1)
    cv2.ellipse(image, (centre, centre + side // 8), (side // 8, side // 16), 0, 0, 180, 0, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def listing(root: Path, **options: object) -> Listing:
    config = TypeAdapter(DataConfig).validate_python(options)
    return read_listing(config, (root,))


def expressions(data: Listing) -> list[str]:
    return [EXPRESSIONS[i] if i >= 0 else "" for i in data.expression]


def unit(data: Listing, name: str) -> list[float]:
    return data.units[:, ACTION_UNITS.index(name)].tolist()


def landmarks_of(five: np.ndarray) -> np.ndarray:
    """68 landmarks whose five points are the ones given; the rest lie at their middle."""
    points = np.tile(five.mean(axis=0), (68, 1))
    points[36:42], points[42:48] = five[0], five[1]
    points[30], points[48], points[54] = five[2:]
    return points


@pytest.fixture
def affectnet(tmp_path: Path) -> Path:
    """The lists of 2017: byte-order mark, CRLF, a header only in the list for training."""
    folder = tmp_path / "AffectNet"
    lists = folder / "Manually_Annotated_file_lists"
    lists.mkdir(parents=True)
    points = landmarks_of(ARCFACE_TEMPLATE * 1.5 + 40)
    text = ";".join(f"{v:.2f}" for v in points.ravel())
    rows = [
        ("1/a.jpg", 0, 0.0, 0.1), ("1/b.JPG", 1, 0.8, 0.4), ("2/c.jpg", 2, -0.7, -2),
        ("2/d.jpg", 3, -2, -2), ("2/e.jpg", 4, -0.5, 0.7), ("3/f.jpg", 5, -0.6, 0.3),
        ("3/g.jpg", 6, -0.5, 0.6), ("3/h.jpg", 7, -0.4, 0.2), ("3/i.jpg", 8, 0.1, 0.1),
        ("3/j.jpg", 9, -2, -2), ("3/k.jpg", 10, -2, -2),
    ]  # fmt: skip
    lines = [f"{name},40,40,160,160,{text},{e},{v},{a}" for name, e, v, a in rows]
    (lists / "training.csv").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join([AFFECTNET_HEADER, *lines, ""]).encode()
    )
    (lists / "validation.csv").write_text(f"9/v.jpg,40,40,160,160,{text},1,0.5,0.5\n")
    for name, *_ in [*rows, ("9/v.jpg",)]:
        draw_face(folder / "Manually_Annotated_Images" / name, 240)
    return folder


def test_affectnet_lists(affectnet: Path) -> None:
    data = listing(affectnet.parent, reader="affectnet", data="AffectNet", split="train")
    assert expressions(data) == [
        "neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "", "", "",
    ]  # fmt: skip
    assert data.outside == {"contempt": 1, "none": 1, "uncertain": 1}
    assert data.dropped == {"no face on it": 1}
    np.testing.assert_allclose(data.valence_arousal[1], [0.8, 0.4])
    np.testing.assert_allclose(data.valence_arousal[2], [-0.7, NAN])
    assert np.isnan(data.valence_arousal[[3, 9]]).all()
    assert np.isnan(data.units).all()
    dropping = listing(
        affectnet.parent, reader="affectnet", data="AffectNet", split="train", outside="drop"
    )
    assert len(dropping) == 7
    assert dropping.outside == data.outside
    assert dropping.dropped["expression outside the seven"] == 3
    validation = listing(affectnet.parent, reader="affectnet", data="AffectNet", split="val")
    assert (list(validation.names), expressions(validation)) == (["9/v.jpg"], ["happiness"])
    both = listing(affectnet.parent, reader="affectnet", data="AffectNet")
    assert len(both) == 11
    with pytest.raises(DataError, match="no annotations of AffectNet for split 'test'"):
        listing(affectnet.parent, reader="affectnet", data="AffectNet", split="test")


def test_affectnet_faces_are_aligned_by_its_landmarks(affectnet: Path) -> None:
    image = np.zeros((240, 240, 3), np.uint8)
    for x, y in ARCFACE_TEMPLATE * 1.5 + 40:
        cv2.circle(image, (round(float(x)), round(float(y))), 3, (255, 255, 255), -1)
    path = affectnet / "Manually_Annotated_Images" / "1" / "a.jpg"
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes())
    data = listing(affectnet.parent, reader="affectnet", data="AffectNet", split="train")
    faces = FileFaces(data)
    read, readable = faces.read(np.arange(1))
    assert readable.all()
    for x, y in ARCFACE_TEMPLATE:
        assert read[0, round(float(y)), round(float(x))].min() > 200
    assert vars(faces.alignment) == {"aligned": 0, "landmarks": 1, "detected": 0, "fixed": 0}


def test_boxes_and_landmarks_of_another_picture_are_not_used(affectnet: Path) -> None:
    """A lab that cut its faces out keeps the list, whose pixels are those of the photographs."""
    draw_face(affectnet / "Manually_Annotated_Images" / "1" / "a.jpg", 120)
    faces = FileFaces(listing(affectnet.parent, reader="affectnet", data="AffectNet"))
    faces.read(np.arange(2))
    assert vars(faces.alignment) == {"aligned": 0, "landmarks": 1, "detected": 0, "fixed": 1}


class _Detector:
    """Finds the ArcFace template, enlarged, in every second picture."""

    name, sha256 = "stub", "0"
    options: ClassVar[dict[str, object]] = {}

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, rgb: np.ndarray) -> Faces:
        self.calls += 1
        count = self.calls % 2
        points = np.array([[100, 110], [156, 110], [128, 140], [105, 170], [150, 170]], np.float32)
        return Faces(
            np.zeros((count, 4), np.float32), np.ones(count, np.float32), points[None][:count]
        )


def test_a_detector_runs_once_an_image(tmp_path: Path) -> None:
    _many(tmp_path, 6, side=100)
    data = listing(tmp_path, reader="table", data="many.csv")
    detector = _Detector()
    faces = FileFaces(data, detector)
    first, _ = faces.read(np.arange(6))
    again, _ = faces.read(np.arange(6))
    assert detector.calls == 6
    np.testing.assert_array_equal(first, again)
    assert (faces.alignment.detected, faces.alignment.fixed) == (3, 3)
    fixed, _ = FileFaces(data).read(np.arange(6))
    assert [bool((a == b).all()) for a, b in zip(first, fixed, strict=True)] == [False, True] * 3


def test_affectnet_annotation_files(tmp_path: Path) -> None:
    """The later release writes numbers as text; numbers as numbers are read too."""
    notes = tmp_path / "A" / "train_set" / "annotations"
    notes.mkdir(parents=True)
    for i, (kind, e, v, a) in enumerate(
        [(str, 1, 0.25, 0.5), (float, 7, -2, -2), (str, 6, -0.5, 0.75)]
    ):
        draw_face(tmp_path / "A" / "train_set" / "images" / f"{i}.jpg", 224)
        points = landmarks_of(ARCFACE_TEMPLATE * 2)
        for name, value in (("exp", kind(e)), ("val", kind(v)), ("aro", kind(a)),
                            ("lnd", points.ravel())):  # fmt: skip
            np.save(notes / f"{i}_{name}.npy", np.array(value))
    (notes / "2_lnd.npy").unlink()
    data = listing(tmp_path, reader="affectnet", data="A", split="train")
    assert list(data.names) == [f"train_set/images/{i}.jpg" for i in range(3)]
    assert expressions(data) == ["happiness", "", "anger"]
    assert data.outside == {"contempt": 1}
    np.testing.assert_allclose(data.valence_arousal, [[0.25, 0.5], [NAN, NAN], [-0.5, 0.75]])
    assert data.landmarks is not None
    np.testing.assert_allclose(data.landmarks[0], ARCFACE_TEMPLATE * 2, rtol=1e-6)
    assert np.isnan(data.landmarks[2]).all()
    with pytest.raises(DataError, match="holds no annotations of AffectNet for split 'val'"):
        listing(tmp_path, reader="affectnet", data="A", split="val")
    flat = listing(tmp_path / "A", reader="affectnet", data="train_set")
    assert list(flat.names) == [f"images/{i}.jpg" for i in range(3)]
    with pytest.raises(DataError, match="give a partition"):
        listing(tmp_path / "A", reader="affectnet", data="train_set", split="train")
    np.save(notes / "1_exp.npy", np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"1_exp\.npy is no plain NumPy array"):
        listing(tmp_path, reader="affectnet", data="A", split="train")
    np.save(notes / "1_exp.npy", np.array("11"))
    with pytest.raises(DataError, match="expression 11; AffectNet has 0 to 10"):
        listing(tmp_path, reader="affectnet", data="A", split="train")


@pytest.fixture
def affwild2(tmp_path: Path) -> Path:
    folder = tmp_path / "Aff-Wild2"
    notes = folder / "6th ABAW Annotations"

    def write(challenge: str, split: str, video: str, lines: list[str], end: str = "\n") -> None:
        path = notes / challenge / split / f"{video}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((end.join(lines) + end).encode())

    units = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    classes = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    two = "10-60-1280x720_right"
    lines = ["\ufeffvalence,arousal", "0.1,0.2", "-5,-5", "-0.5,0.5", "1,-1", "", "0,0"]
    write("VA_Estimation_Challenge", "Train_Set", two, lines, "\r\n")
    write("EXPR_Recognition_Challenge", "Train_Set", two, [classes, "4", "-1", "7", "-1", "0"])
    write("AU_Detection_Challenge", "Train_Set", two,
          [units, "1,0,0,1,0,0,1,0,0,0,1,0", ",".join(["-1"] * 12)])  # fmt: skip
    write("EXPR_Recognition_Challenge", "Train_Set", "video 5 copy_left", [classes, "6", "6"])
    write("VA_Estimation_Challenge", "Validation_Set", "video 5 copy_left",
          ["valence,arousal", "0.3,0.3"])  # fmt: skip
    for video, frames in ((two, (1, 2, 3, 5, 6)), ("video 5 copy_left", (2, 3))):
        for frame in frames:
            draw_face(folder / "cropped_aligned" / video / f"{frame:05d}.jpg")
    (folder / "cropped_aligned" / two / ".DS_Store").write_text("")
    return folder


def test_affwild2_joins_its_challenges_frame_by_frame(affwild2: Path) -> None:
    data = listing(affwild2.parent, reader="aff-wild2", data="Aff-Wild2", split="train")
    two = "cropped_aligned/10-60-1280x720_right"
    assert list(data.names) == [
        f"{two}/00001.jpg", f"{two}/00003.jpg", f"{two}/00005.jpg", f"{two}/00006.jpg",
        "cropped_aligned/video 5 copy_left/00002.jpg",
    ]  # fmt: skip
    assert expressions(data) == ["happiness", "", "neutral", "", "surprise"]
    assert data.outside == {"other": 1}
    np.testing.assert_allclose(
        data.valence_arousal, [[0.1, 0.2], [-0.5, 0.5], [NAN, NAN], [0, 0], [NAN, NAN]]
    )
    assert unit(data, "AU12")[0] == unit(data, "AU25")[0] == 1
    assert unit(data, "AU04")[0] == 0
    assert np.isnan(data.units[0, ACTION_UNITS.index("AU05")])
    assert np.isnan(data.units[1:]).all()
    # Frame 2 is all -1 and -5; line 4 and the first of the other video have no image.
    assert data.dropped == {"frame without an image": 2, "frame without a label": 2}
    assert data.identity is not None
    assert len(set(data.identity[:4])) == 1
    assert data.identity[4] != data.identity[0]
    assert "1 of 2 videos of split 'train' belong to another split" in data.remarks[0]
    dropping = listing(
        affwild2.parent, reader="aff-wild2", data="Aff-Wild2", split="train", outside="drop"
    )
    assert len(dropping) == 4
    assert dropping.outside == {"other": 1}
    assert (FileFaces(data).read(np.arange(5))[1]).all()


def test_affwild2_says_what_is_wrong(affwild2: Path) -> None:
    def read(**options: object) -> Listing:
        return listing(affwild2.parent, reader="aff-wild2", data="Aff-Wild2", **options)

    with pytest.raises(DataError, match="no annotations of Aff-Wild2 for split 'test'"):
        read(split="test")
    with pytest.raises(DataError, match="1 of 1 annotated videos have no folder of images"):
        read(split="val", images="6th ABAW Annotations")
    path = affwild2 / "6th ABAW Annotations/EXPR_Recognition_Challenge/Train_Set"
    file = next(path.glob("video*.txt"))
    file.write_text("Neutral,Anger\n6\n8\n")
    with pytest.raises(DataError, match="expression 8; Aff-Wild2 has -1 to 7"):
        read(split="train")
    file.write_text("Neutral,Anger\n6\n8,1\n")
    with pytest.raises(DataError, match="do not hold 1 values"):
        read(split="train")
    file.write_text("Neutral,Anger\n6\nsix\n")
    with pytest.raises(DataError, match="no annotation of Aff-Wild2"):
        read(split="train")


def _emotionet_images(folder: Path) -> None:
    draw_face(folder / "images" / "N_0000000001_00001.jpg", 100)
    draw_face(folder / "images" / "N_0000000001" / "N_0000000001_00002.jpg", 100)


ADDRESS = "http://cbcsl.ece.ohio-state.edu/EmotioNet/Images/N_0000000001/N_0000000001_{:05d}.jpg"


@pytest.mark.parametrize("form", ["quoted", "tabs", "protocol"])
def test_emotionet_lists(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "EmotioNet"
    _emotionet_images(folder)
    if form == "tabs":
        units = [["999"] * 60 for _ in range(3)]
        units[0][0], units[0][11], units[1][11], units[0][42] = "1", "0", "1", "1"
        lines = ["\t".join([ADDRESS.format(i + 1), "http://x.org/y.jpg", *row])
                 for i, row in enumerate(units)]  # fmt: skip
        (folder / "dataFile_0001.txt").write_text("\n".join(lines) + "\n")
    elif form == "quoted":
        lines = [f"'{ADDRESS.format(i + 1)}', 'http://x.org/y.jpg', {row}"
                 for i, row in enumerate(["1, 1, 0, 1, 1", "999, 999, 1, 999, 1", "0, 0, 0, 0, 0"])]  # fmt: skip  # noqa: E501
        header = "'URL', 'URL orig', 'AU 1', 'AU 10', 'AU 12', 'AU 43', 'AU 51'"
        (folder / "EmotioNet_FACS_aws_2020_24600.csv").write_text("\n".join([header, *lines]))
    else:
        (folder / "annotations").mkdir()
        (folder / "annotations" / "train.csv").write_text(
            "name,AU1,AU12,age,gender,race\nN_0000000001_00001.jpg,1,0,20-29,Male,White\n"
            "N_0000000001/N_0000000001_00002.jpg,-1,1,20-29,Female,Asian\n"
            "N_0000000001_00003.jpg,0,0,20-29,Female,Asian\n"
        )
        (folder / "annotations" / "test.csv").write_text("name,AU1\nN_0000000001_00001.jpg,0\n")
    options = {"reader": "emotionet", "data": "EmotioNet"}
    if form == "protocol":
        with pytest.raises(DataError, match="a list for each split: say which"):
            listing(tmp_path, **options)
        options["split"] = "train"
    data = listing(tmp_path, **options)
    assert list(data.names) == [
        "N_0000000001_00001.jpg", "N_0000000001/N_0000000001_00002.jpg",
    ]  # fmt: skip
    np.testing.assert_array_equal(unit(data, "AU01"), [1, NAN])
    np.testing.assert_array_equal(unit(data, "AU12"), [0, 1])
    known = np.flatnonzero(~np.isnan(data.units).all(axis=0))
    assert [ACTION_UNITS[i] for i in known] == ["AU01", "AU12"]
    assert data.dropped == {"image was not downloaded": 1}
    assert (data.expression == -1).all()
    message = "no list for split 'val'" if form == "protocol" else "no splits of its own"
    with pytest.raises(DataError, match=message):
        listing(tmp_path, **options | {"split": "val"})


TABLE = """path;Valence;arousal;emotion;AU1;AU_12;x0;y0;x1;y1
a.jpg;0.5;;Happy;1;;10;10;90;90
sub/b.jpg;-2;-5;;999;0;;;;
./c.jpg;nan;0.1;contempt;-1;1;20;20;22;22
"""


def test_tables(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        draw_face(tmp_path / "pictures" / name, 100)
    (tmp_path / "t.csv").write_text(TABLE)
    frame = pd.read_csv(tmp_path / "t.csv", sep=";")
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        data = listing(tmp_path, reader="table", data=name, images="pictures")
        assert list(data.names) == ["a.jpg", "sub/b.jpg", "c.jpg"]
        assert expressions(data) == ["happiness", "", ""]
        assert data.outside == {"contempt": 1}
        np.testing.assert_allclose(data.valence_arousal, [[0.5, NAN], [NAN, NAN], [NAN, 0.1]])
        np.testing.assert_array_equal(unit(data, "AU01"), [1, NAN, NAN])
        np.testing.assert_array_equal(unit(data, "AU12"), [NAN, 0, 1])
        assert data.boxes is not None
        assert np.isnan(data.boxes[1]).all()
    assert data.identity is None
    frame.assign(identity=["Ann", "Bo", "Ann"]).to_parquet(tmp_path / "t.parquet")
    ann, bo, again = listing(
        tmp_path, reader="table", data="t.parquet", images="pictures"
    ).identity.tolist()  # type: ignore[union-attr]
    assert ann == again != bo
    whole, cut = (
        FileFaces(listing(tmp_path, reader="table", data="t.csv", images="pictures")).read(
            np.array([row])
        )[0]
        for row in (1, 0)
    )
    # The same picture, but its middle 80 pixels only.
    assert np.abs(whole.astype(int) - cut).mean() > 3


def test_expression_codes_of_tables(tmp_path: Path) -> None:
    draw_face(tmp_path / "a.jpg")

    def read(values: list[str], **options: object) -> Listing:
        lines = [f"a.jpg,{value}" for value in values]
        (tmp_path / "t.csv").write_text("\n".join(["image,label", *lines]))
        return listing(tmp_path, reader="table", data="t.csv", **options)

    assumed = read(["4", "0.0", "-1", "7", ""])
    assert (assumed.codes, assumed.expression.tolist()) == ("aff-wild2", [4, 0, -1, -1, -1])
    assert assumed.outside == {"7": 1}
    named = read(["1", "2"], classes=["Neutral", "Sad", "Contempt"])
    assert (named.codes, expressions(named)) == ("classes", ["sadness", ""])
    assert named.outside == {"contempt": 1}
    for values, message, options in (
        (["3"], "holds code 3, but its classes are only 1", {"classes": ["Neutral"]}),
        (["0.5"], "holds 0.5, which is no expression code", {}),
        (["grin"], "no label is one of", {}),
    ):
        with pytest.raises(DataError, match=message):
            read(values, **options)


def test_tables_say_what_is_wrong(tmp_path: Path) -> None:
    draw_face(tmp_path / "a.jpg")
    for content, message in (
        ("a,b\n1,2\n", "no column of image paths: call it 'path'"),
        ("path,valence\na.jpg,3\n", r"'valence' holds 3, outside \[-1, 1\]"),
        ("path,AU1\na.jpg,4\n", "divide by 5"),
        ("path,AU1\na.jpg,yes\n", "holds 'yes' in row 1, which is no number"),
        ("path,valence\n", "lists nothing"),
        ("", "is not a readable table"),
        ("path\nb.jpg\n", "1 of 1 images are not below"),
        ("path\n../a.jpg\n", "leads out of the folder"),
        ("path\nx/../../a.jpg\n", "leads out of the folder"),
        ("path\n/etc/passwd\n", "is no path below the folder"),
        ("path\nC:\\faces\\a.jpg\n", "is no path below the folder"),
        ("path,split\na.jpg,train\n", "say which split to take"),
    ):
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(DataError, match=message):
            listing(tmp_path, reader="table", data="t.csv")
    (tmp_path / "t.xlsx").write_text("")
    with pytest.raises(DataError, match="save it as CSV"):
        listing(tmp_path, reader="table", data="t.xlsx")
    with pytest.raises(DataError, match=r"data none\.csv is in none of these folders"):
        listing(tmp_path, reader="table", data="none.csv")


def test_one_partition_file_of_all_splits(affectnet: Path) -> None:
    """A later protocol may train on what was validation: both lists are read, the file decides."""
    file = affectnet / "partition.csv"
    file.write_text("image;split\r\n9/v;training\r\n1/a.jpg;train\r\n1/b.JPG;devel\r\n2/c;test\r\n")

    def read(**options: object) -> Listing:
        return listing(affectnet.parent, reader="affectnet", data="AffectNet",
                       partition="partition.csv", **options)  # fmt: skip

    data = read(split="train")
    assert sorted(data.names) == ["1/a.jpg", "9/v.jpg"]
    assert data.dropped["not in the partition"] == 9
    assert expressions(data) == ["neutral", "happiness"]
    assert list(read(split="val").names) == ["1/b.JPG"]
    with pytest.raises(DataError, match="say which split to take"):
        read()
    file.write_text("image,split\n1/a.jpg,train\n7/nobody.jpg,train\n")
    with pytest.raises(DataError, match=r"1 of 2 names join no image .*7/nobody\.jpg"):
        read(split="train")
    kept = read(split="train", tolerance=0.5)
    assert list(kept.names) == ["1/a.jpg"]
    assert "1 of 2 names join no image" in kept.remarks[0]
    file.write_text("image,split\n1/a.jpg,later\n")
    with pytest.raises(DataError, match="split 'later' is unknown"):
        read(split="train")
    draw_face(affectnet / "Manually_Annotated_Images" / "2" / "a.jpg")
    with (affectnet / "Manually_Annotated_file_lists" / "training.csv").open("a") as lists:
        lists.write("2/a.jpg,0,0,1,1,,1,0,0\r\n")
    file.write_text("image,split\na.jpg,train\n2/a.jpg,train\n")
    assert list(read(split="train").names) == ["1/a.jpg", "2/a.jpg"]
    file.write_text("image,split\na.jpg,train\n")
    with pytest.raises(DataError, match=r"'a\.jpg' is the name of several images"):
        read(split="train")


def test_partition_folders_bring_their_labels(tmp_path: Path) -> None:
    """The protocol of Hu et al.: one file a split and task, names and labels in it."""
    notes = tmp_path / "A" / "train_set" / "annotations"
    notes.mkdir(parents=True)
    for i in range(3):
        draw_face(tmp_path / "A" / "train_set" / "images" / f"{i}.jpg", 224)
        for kind, value in (("exp", 0), ("val", 0.9), ("aro", 0.9)):
            np.save(notes / f"{i}_{kind}.npy", np.array(value))
    labels = {
        "EXPR": ["name,expression,age", "train_set/0.jpg,Anger,20-29",
                 "train_set/1.jpg,Contempt,70+"],
        "VA": ["name,valence,arousal,age", "train_set/1.jpg,-0.5,0.25,70+",
               "train_set/2.jpg,0,-2,3-9"],
    }  # fmt: skip
    for task, (header, *rows) in labels.items():
        folder = tmp_path / "A" / "protocol" / task
        folder.mkdir(parents=True)
        (folder / "train.csv").write_text("\n".join([header, *rows]))
        (folder / "valid.csv").write_text("\n".join([header, rows[0]]))
    options = {"reader": "affectnet", "data": "A", "partition": ["protocol/EXPR", "protocol/VA"]}
    data = listing(tmp_path, split="train", **options)
    assert expressions(data) == ["anger", "", ""]
    assert list(data.other) == ["", "contempt", ""]
    # Image 0 is not in VA's list for training: its own 0.9 is not used.
    np.testing.assert_allclose(data.valence_arousal, [[NAN, NAN], [-0.5, 0.25], [0, NAN]])
    assert data.codes == "names"
    with pytest.raises(DataError, match="holds no file for split 'test'"):
        listing(tmp_path, split="test", **options)
    file = {**options, "partition": "protocol/EXPR/valid.csv"}
    assert len(listing(tmp_path, split="val", **file)) == 1
    with pytest.raises(DataError, match="looks like split 'val', but split 'train'"):
        listing(tmp_path, split="train", **file)


def test_a_partition_may_name_videos(affwild2: Path) -> None:
    (affwild2 / "videos.csv").write_text("video,split\nvideo 5 copy_left.mp4,val\n")
    data = listing(affwild2.parent, reader="aff-wild2", data="Aff-Wild2", split="val",
                   partition="videos.csv")  # fmt: skip
    assert [str(name).split("/")[1] for name in data.names] == ["video 5 copy_left"]
    assert data.remarks == ()
    np.testing.assert_allclose(data.units, np.full((1, 17), NAN))


def _many(tmp_path: Path, count: int, side: int = 112, broken: tuple[int, ...] = ()) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,expression,valence,arousal"]
    for i in range(count):
        draw_face(tmp_path / "m" / f"{i}.jpg", side, int(rng.integers(60, 255)))
        if i in broken:
            (tmp_path / "m" / f"{i}.jpg").write_bytes(b"\xff\xd8 not an image" * (i % 2))
        lines.append(f"m/{i}.jpg,{i % 7},{i / count:.3f},0.1")
    (tmp_path / "many.csv").write_text("\n".join(lines))


def _config(**changes: object) -> dict[str, Any]:
    return {
        "name": "tiny",
        "network": {"stem": [8, 8], "widths": [8, 16], "depths": [1, 1], "embedding": 8},
        "sources": {"many": {"reader": "table", "data": "many.csv", "proportion": 1}},
        "phases": [{"steps": 6, "size": 32, "batch": 16}],
        "log_every": 2,
        "validate_every": 3,
    } | changes


def _mixture(root: Path, **changes: object) -> tuple[Mixture, FileFaces]:
    config = MmaConfig.model_validate(_config(**changes))
    sources = {k: load_source(v, (root,), None, root) for k, v in config.sources.items()}
    faces = sources["many"].faces
    assert isinstance(faces, FileFaces)
    return Mixture(config, sources), faces


def test_a_broken_image_costs_only_itself(tmp_path: Path) -> None:
    _many(tmp_path, 40)
    whole, _ = _mixture(tmp_path)
    _many(tmp_path, 40, broken=(3, 8))
    mixture, faces = _mixture(tmp_path)
    for step in range(4):
        good, mended = whole.batch(step), mixture.batch(step)
        rows = np.round(good.valence_arousal[:, 0].numpy() * 40)
        hit = np.isin(rows, [3, 8])
        same = torch.from_numpy(~hit)
        assert torch.equal(good.faces[same], mended.faces[same])
        assert torch.equal(good.valence_arousal[same], mended.valence_arousal[same])
        drawn = np.round(mended.valence_arousal[hit, 0].numpy() * 40)
        assert not np.isin(drawn, [3, 8]).any()
    assert faces.unreadable.tolist() == [3, 8]
    # In another order and another process's state, every batch is the same.
    again, _ = _mixture(tmp_path)
    for step in (3, 0):
        for ours, theirs in zip(again.batch(step), mixture.batch(step), strict=True):
            assert torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    _many(tmp_path, 40, broken=tuple(range(0, 40, 4)))
    mixture, _ = _mixture(tmp_path)
    with pytest.raises(DataError, match=r"images tried cannot be read \(.*\.jpg"):
        list(map(mixture.batch, range(20)))
    _many(tmp_path, 4, broken=(0, 1, 2, 3))
    with pytest.raises(DataError, match="hardly any of its images can be read"):
        _mixture(tmp_path)[0].batch(0)


def test_images_are_never_held(tmp_path: Path) -> None:
    """Decoded, 150 pictures of 400x400 are 72 MB and their faces 6 MB; a batch is 0.6 MB."""
    _many(tmp_path, 150, side=400)
    mixture, faces = _mixture(tmp_path)
    mixture.batch(0)
    tracemalloc.start()
    for _ in in_order(mixture.batch, range(30), 2):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6
    assert faces.alignment.fixed > 100


def test_work_in_threads_comes_in_order() -> None:
    taken: list[int] = []

    def items() -> Any:
        for i in range(20):
            taken.append(i)
            yield i

    results = []
    for result in in_order(lambda i: i * i, items(), 3):
        results.append(result)
        assert len(taken) <= len(results) + 4
    assert results == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // (i - 2), range(9), 2))


def test_persons_do_not_cross_parts(tmp_path: Path) -> None:
    lines = ["path"]
    for i in range(60):
        lines += [f"p/Person_{chr(65 + i % 26)}{chr(65 + i // 26)}_{k:04d}.jpg" for k in (1, 2)]
    for line in lines[1:]:
        path = tmp_path / line
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = listing(tmp_path, reader="table", data="t.csv")
    sides = [
        {str(name)[:-9] for name in take_part(data, part).names}
        for part in (
            PartConfig(held_out=0.3, keep="train", by="person"),
            PartConfig(held_out=0.3, keep="held-out", by="person"),
            PartConfig(held_out=0.3, keep="train"),
            PartConfig(held_out=0.3, keep="held-out"),
        )
    ]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[0] | sides[1]) == 60
    assert not sides[2].isdisjoint(sides[3])


def test_intervals_resample_whole_videos() -> None:
    """Ten frames of each of 20 videos, alike within a video: the honest interval is wider."""
    rng = np.random.default_rng(0)
    videos = np.repeat(np.arange(20), 10)
    values = np.repeat(rng.normal(size=20), 10)

    def mean(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    single, whole = (bootstrap(mean, 200, 400, clusters=c) for c in (None, videos))
    assert single is not None
    assert whole is not None
    assert whole[1] - whole[0] > 2 * (single[1] - single[0])
    assert whole[0] < values.mean() < whole[1]


def test_configurations_name_their_readers(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for source, message in (
        ({"reader": "affectnot", "data": "x"}, "unknown reader; feie has pack, affectnet"),
        ({"reader": "table", "pack": "x"}, "data: Field required"),
        ({"pack": "x.h5", "split": "train"}, "split: Extra inputs"),
        ({"reader": "emotionet", "data": "x", "split": "all"}, "split: Input should be 'train'"),
    ):
        path.write_text(yaml.safe_dump(_config(sources={"a": source | {"proportion": 1}})))
        with pytest.raises(UsageError, match=message):
            read_config(path)
    pack = {"a": {"pack": "x.h5", "proportion": 1, "part": {"held_out": 0.2, "keep": "train"}}}
    dumped = MmaConfig.model_validate(_config(sources=pack)).model_dump(mode="json")
    # Runs that were begun before there were readers go on: nothing new is in their digest.
    assert "reader" not in dumped["sources"]["a"]
    assert dumped["sources"]["a"]["part"] == {"held_out": 0.2, "keep": "train"}
    config = MmaConfig.model_validate(_config())
    assert config_digest(MmaConfig.model_validate(config.model_dump())) == config_digest(config)
    (base,) = read_config(find_config(Path("mma-base")))
    assert [source.reader for source in base.sources.values()] == [
        "affectnet", "aff-wild2", "emotionet",
    ]  # fmt: skip


def test_the_page_shows_a_configuration_that_works(project: Path, tmp_path: Path) -> None:
    page = project / "docs" / "train-mma.md"
    if not page.is_file():
        pytest.skip("the source archive has no docs")
    blocks = [block.split("```")[0] for block in page.read_text().split("```yaml\n")[1:]]
    (tmp_path / "page.yaml").write_text(blocks[0])
    (config,) = read_config(tmp_path / "page.yaml")
    assert [source.reader for source in config.sources.values()] == [
        "affectnet", "aff-wild2", "emotionet", "table", "pack",
    ]  # fmt: skip
    partitioned = MmaConfig.model_validate(_config(sources=yaml.safe_load(blocks[1])))
    assert isinstance(partitioned.sources["affectnet"], AffectNetSource)
    assert partitioned.sources["affectnet"].partition == ("protocol/EXPR", "protocol/VA")


@pytest.fixture
def everything(tmp_path: Path, affectnet: Path, affwild2: Path) -> Path:
    """One folder with all four data sets and a pack, and a configuration that mixes them."""
    emotionet = tmp_path / "EmotioNet"
    _emotionet_images(emotionet)
    (emotionet / "list.csv").write_text(
        f"URL,AU 1,AU 12\n{ADDRESS.format(1)},1,999\n{ADDRESS.format(2)},0,1\n"
    )
    _many(tmp_path, 30, broken=(4, 14, 24))
    with h5py.File(tmp_path / "pack.h5", "w") as file:
        file["image"] = np.random.default_rng(0).integers(0, 255, (6, 112, 112, 3), np.uint8)
        file["expression"] = np.arange(6)
        file["au"] = np.full((6, 17), 0.7, np.float32)
    own = {"reader": "table", "data": "many.csv"}
    sources = {
        "affectnet": {"reader": "affectnet", "data": "AffectNet", "split": "train"},
        "aff-wild2": {"reader": "aff-wild2", "data": "Aff-Wild2", "split": "train"},
        "emotionet": {"reader": "emotionet", "data": "EmotioNet"},
        "own": own | {"valence_arousal": "expression", "balance": 0.5},
        "pack": {"pack": "pack.h5"},
    }
    config = _config(
        sources={name: source | {"proportion": 1} for name, source in sources.items()},
        validation={"affectnet": sources["affectnet"], "own": own},
    )
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def test_one_command_trains_on_all_of_them(everything: Path) -> None:
    """The number of threads that read changes nothing; the result is scored by every reader."""
    reports: list[Progress] = []
    results = [
        train(
            TrainMmaOptions(
                config=everything / "mix.yaml", data_root=(everything,), threads=1,
                out=everything / f"run-{workers}", workers=workers,
            ),
            reports.append,
        )
        for workers in (1, 3)
    ]  # fmt: skip
    assert results[0].weights.read_bytes() == results[1].weights.read_bytes()
    result = results[0]
    assert result.images["affectnet"]["images"] == 10
    assert 5 < result.images["affectnet"]["landmarks"] <= 10
    assert result.images["affectnet"]["outside"] == 3
    assert result.images["affectnet"]["left out: no face on it"] == 1
    assert result.images["emotionet"]["units"] == 2
    broken = result.unreadable["own"]
    assert broken
    assert set(broken) <= {"m/4.jpg", "m/14.jpg", "m/24.jpg"}
    assert set(result.validation) == {"affectnet", "own"}
    assert {"accuracy", "ccc_va"} <= set(result.validation["affectnet"])
    said = "\n".join(report.message for report in reports)
    assert f"unreadable images, replaced by others: {broken[0]}" in said
    assert "Aff-Wild2 (train): 2 left out: frame without a label" in said
    weights = str(result.weights)
    for options, count in (
        ({"reader": "affectnet", "data": everything / "AffectNet", "split": "val"}, 1),
        ({"reader": "aff-wild2", "data": everything / "Aff-Wild2", "split": "train"}, 5),
        ({"reader": "emotionet", "data": everything / "EmotioNet"}, 2),
        ({"reader": "table", "data": everything / "many.csv", "tolerance": 0.1}, 27),
        ({"data": everything / "pack.h5"}, 6),
    ):
        scores = evaluate(EvaluateMmaOptions(extractor=weights, repeats=5, **options))
        assert scores.n == count
        assert scores.aligned + scores.landmarks + scores.detected + scores.fixed == count
        if count == 27:
            assert scores.unreadable == ["m/4.jpg", "m/14.jpg", "m/24.jpg"]
    with pytest.raises(UsageError, match="--split is for data sets of image files"):
        evaluate(EvaluateMmaOptions(data=everything / "pack.h5", split="val"))


def test_the_command_scores_a_split_of_a_partition(everything: Path, untrained: Path) -> None:
    (everything / "AffectNet" / "p.csv").write_text("name,split\n1/a,val\n3/h,val\n3/k,val\n")
    command = [sys.executable, "-c", "from feie.cli import app; app()", "evaluate-mma"]
    command += ["--reader", "affectnet", "--data", everything / "AffectNet", "--split", "val",
                "--partition", "p.csv", "--weights", untrained, "--repeats", "5"]  # fmt: skip
    done = subprocess.run(
        [*command, "--tolerance", "0.4", "--json"], capture_output=True, text=True
    )
    result = json.loads(done.stdout)
    assert (result["n"], result["outside"], result["landmarks"]) == (2, {"contempt": 1}, 2)
    assert result["data"] == "AffectNet (val)"
    assert result["dropped"] == {"no face on it": 1, "not in the partition": 9}
    assert "1 of 3 names join no image" in done.stderr
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "1 of 3 names join no image" in refused.stderr
    assert "Traceback" not in refused.stderr
