"""What is a video by its name: which files, and which images of a folder are frames of one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v"}
    | {".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm"}
    | {".wmv"}
)
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)

# ABAW numbers its crops 00001.jpg; other tools prefix the number with the word frame or image.
_PLAIN = re.compile(r"(?:frame|image|img)?[_-]?(\d+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)
# DCF, by which cameras name photographs: four capitals, digits or _, then four digits; and phones.
_CAMERA = re.compile(r"(?=.{0,3}[A-Z_])[0-9A-Z_]{4}\d{4}|(?:IMG|PXL|VID|DSC)[-_]\d{8}.*")
_PICTURES = re.compile(
    r"(?:photo|picture|pict?|foto|scan|screenshot|page|slide|plot|fig|figure)s?(?![a-z]).*",
    re.IGNORECASE,
)
_FEW = 25
"""Fewer images beside movies are photographs or previews."""

WHICH = (
    "frames of a video are images of one folder without movies, named alike up to a number, such "
    "as 00001.jpg or face_0001.png"
)


def frame_images(names: Iterable[str]) -> tuple[dict[str, int], str]:
    """Tell which files of a folder are frames of one video.

    Frames are images named by a number, alone or behind the word frame, image or img; where there
    are none, all images of the folder must be named alike up to a number at the end (``reg_img1``,
    ``S010_002_00000014``, ``frame_det_00_000001``). A camera's photographs (``IMG_0410.JPG``),
    single pictures by their word (``photo1.jpg``, ``slide2.png``), and images beside movies that
    are fewer than 25 or named as one of them, are none.

    Parameters
    ----------
    names : iterable of str
        All files of the folder.

    Returns
    -------
    frames : dict of str to int
        The number of each frame, by file name.
    passed_over : str
        Why numbered images are no frames; empty where there are none, or where they are.
    """
    split = [(name, *os.path.splitext(name)) for name in names]
    images = {n: stem for n, stem, suffix in split if _is_image(n, suffix)}
    plain = {n: int(m[1]) for n, stem in images.items() if (m := _PLAIN.fullmatch(stem))}
    frames = plain or _alike(images)
    if not frames:
        ends = sum(bool(_NUMBERED.fullmatch(stem)) for stem in images.values())
        many = len(images) >= _FEW and ends > len(images) // 2
        return {}, "differ in more than a number" if many else ""
    if all(_CAMERA.fullmatch(images[name]) for name in frames):
        return {}, "are named as a camera names photographs"
    if all(_PICTURES.fullmatch(images[name]) for name in frames):
        return {}, "are named as single pictures"
    movies = {stem for _, stem, suffix in split if suffix.lower() in VIDEO_SUFFIXES}
    if movies and (len(frames) < _FEW or any(images[name] in movies for name in frames)):
        return {}, "stand beside movies"
    return frames, ""


def _alike(images: dict[str, str]) -> dict[str, int]:
    """Give the numbers of images that are all named alike up to a number at the end."""
    found = {name: _NUMBERED.fullmatch(stem) for name, stem in images.items()}
    prefixes = {match[1] if match else None for match in found.values()}
    if len(found) < 2 or len(prefixes) != 1:
        return {}
    return {name: int(match[2]) for name, match in found.items() if match}


def _is_image(name: str, suffix: str) -> bool:
    return not name.startswith(".") and suffix.lower() in IMAGE_SUFFIXES
