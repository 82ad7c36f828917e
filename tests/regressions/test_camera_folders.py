"""Numbered images by the names that tools give them, and photographs beside a camera's movies."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from feie.features.errors import UsageError
from feie.features.video.folder import FolderReader
from feie.features.video.sources import discover, fingerprint

SERIES = [
    "{:05}.jpg",
    "frame_det_00_{:06}.bmp",
    "out{:04}.png",
    "output_{:04}.png",
    "frames_{:04}.png",
    "frame.{:04}.png",
    "img-{:03}.jpeg",
    "S010_002_{:08}.png",
    "ll042t1aaaff{:03}.png",
    "reg_img{}.jpg",
    "face_{:04}.png",
    "aligned_{:04}.png",
    "thumb{:04}.jpg",
    "{:05}.jfif",
    "{:05}.jpe",
    "{:05}.tiff",
    "001-002-{}.webp",
]
PHOTOS = ["IMG_0410.JPG", "IMG_0411.JPG", "IMG_0413.JPG", "IMG_1386.JPG"]


def image(path: Path, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jfif": ".jpg", ".jpe": ".jpg"}.get(path.suffix, path.suffix)
    ok, data = cv2.imencode(kind, np.full((112, 112, 3), grey, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())


@pytest.mark.parametrize("series", SERIES)
def test_frames_by_the_names_that_tools_give(tmp_path: Path, series: str) -> None:
    for number in (1, 2, 4, 12):
        image(tmp_path / "subject" / series.format(number), 10 * number)
    found = discover(tmp_path)
    [source] = found.sources
    assert (source.video_id, source.kind) == ("subject", "frames")
    assert (found.ignored, found.passed_over) == ((), ())
    with FolderReader(source.path) as reader:
        frames = list(reader)
    greys = [None if f.image is None else round(float(f.image.mean())) for f in frames]
    assert greys == [10, 20, None, 40, *[None] * 7, 120]
    before = fingerprint(source)
    image(source.path / series.format(2), 99)
    assert fingerprint(source) != before


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([*PHOTOS, "IMG_0412.MOV"], "camera"),
        (PHOTOS, "camera"),
        (["DSCF0001.jpg", "DSCF0002.jpg"], "camera"),
        (["P1010001.jpg", "P1010002.jpg"], "camera"),
        (["IMG_20240101_120000.jpg", "IMG_20240101_120001.jpg"], "camera"),
        (["photo1.jpg", "photo2.jpg"], "single pictures"),
        (["1.jpg", "2.jpg", "1.mp4", "2.mp4"], "beside movies"),
        ([*(f"{i}.jpg" for i in range(40)), "7.mp4"], "beside movies"),
        (["face_0001.png", "face_0002.png", "talk.mp4"], "beside movies"),
        ([f"{kind}_{i:03}.png" for kind in "ab" for i in range(20)], "differ"),
    ],
)
def test_images_that_are_no_frames_are_named_and_passed_over(
    tmp_path: Path, names: list[str], why: str
) -> None:
    for name in names:
        (tmp_path / "card").mkdir(exist_ok=True)
        (tmp_path / "card" / name).write_bytes(b"x")
    (tmp_path / "other.mp4").write_bytes(b"x")
    found = discover(tmp_path)
    movies = sorted(n for n in names if Path(n).suffix.lower() in (".mov", ".mp4"))
    assert [s.path.name for s in found.sources] == [*movies, "other.mp4"]
    [told] = found.passed_over
    assert told.startswith("card: ")
    assert why in told
    assert "such as 00001.jpg" in told


def test_pictures_without_a_series_are_only_ignored(tmp_path: Path) -> None:
    for name in ("cover.jpg", "figure 1.png", "room2.png", "a.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found = discover(tmp_path)
    assert found.ignored == ("cover.jpg", "figure 1.png", "room2.png")
    assert found.passed_over == ()


def test_frames_beside_the_movie_they_were_cut_from(tmp_path: Path) -> None:
    for number in range(30):
        image(tmp_path / "a" / f"frame_{number:04}.png")
    (tmp_path / "a" / "whole.mp4").write_bytes(b"x")
    assert [s.kind for s in discover(tmp_path).sources] == ["frames", "video"]


def test_a_folder_that_cannot_be_listed_costs_itself(tmp_path: Path, monkeypatch) -> None:
    """By the call that lists, since root may list everything."""
    for name in ("a/x.mp4", "lost+found/y.mp4", "z.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    true = os.scandir

    def scandir(path):
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = discover(tmp_path)
    assert [s.video_id for s in found.sources] == ["a/x", "z"]
    assert found.unlisted == ("lost+found",)
    [told] = found.passed_over
    assert told == "lost+found: this folder cannot be listed: Permission denied"
    with pytest.raises(UsageError, match="cannot be listed"):
        discover(tmp_path / "lost+found")


def test_nothing_but_photographs_is_refused_with_the_names_that_count(tmp_path: Path) -> None:
    for name in PHOTOS:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"such as 00001\.jpg"):
        discover(tmp_path)
