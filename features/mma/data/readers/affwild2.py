"""Aff-Wild2 with the annotations of the ABAW competitions: one text file a video and challenge."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.config import AffWild2Config, Split, find_data
from feie.features.mma.data.readers.listing import (
    Listing,
    name_array,
    nothing_else,
    person_code,
    safe_name,
)
from feie.features.mma.vocabulary import numbers_in_range, unit_name
from feie.features.schema import ACTION_UNITS, EXPRESSIONS

_FOLDERS = {
    "va": ("VA_Estimation_Challenge", "VA_Set"),
    "expr": ("EXPR_Classification_Challenge", "EXPR_Recognition_Challenge", "EXPR_Set"),
    "au": ("AU_Detection_Challenge", "AU_Set"),
}
_SPLITS: dict[Split, tuple[str, ...]] = {
    "train": ("Train_Set", "Training_Set"),
    "val": ("Validation_Set",),
    "test": ("Test_Set",),
}
_OTHER = 7
"""Code of the expression `other`."""
_FRAME = re.compile(r"(\d+)\.(?:jpe?g|png|bmp)", re.IGNORECASE)


@dataclass(frozen=True)
class _Video:
    """Labelled frames of a video that have an image; arrays are one row a frame."""

    names: NDArray[Any]
    expression: NDArray[np.int8]
    other: NDArray[Any]
    valence_arousal: NDArray[np.float32]
    units: NDArray[np.float16]


def read_affwild2(config: AffWild2Config, folder: Path, roots: tuple[Path, ...]) -> Listing:
    """Read the labels of every frame that has an image and at least one label.

    Line k of a video's file (after the header) is about image ``%05d`` of k, starting at 1.
    Valence and arousal of -5, expressions and action units of -1 are unknown; expression 7 is
    outside the seven. A video that several challenges annotate is joined frame by frame.

    Parameters
    ----------
    config : AffWild2Config
        `annotations` may name the folder that holds ``VA_Estimation_Challenge`` …; `images` the
        folder that holds one folder of aligned faces a video.
    folder : Path
        The data set.
    roots : tuple of Path
        Data roots.

    Raises
    ------
    DataError
        No annotations or images, or values that cannot be right.
    """
    base = folder
    if config.annotations is not None:
        base = find_data(config.annotations, (folder, *roots), "annotations")
    split = None if config.partition else config.split
    files = _annotation_files(base, split)
    if not files:
        raise DataError(
            f"{base} holds no annotations of Aff-Wild2"
            + (f" for split {split!r}" if split else "")
            + ": expected e.g. VA_Estimation_Challenge/Train_Set/<video>.txt"
        )
    root, image_folders = _image_folders(config, folder, roots)
    videos: list[_Video] = []
    identity: list[NDArray[np.int64]] = []
    without_images = without_label = imageless = 0
    for video, kinds in sorted(files.items()):
        frames = _frames(root, image_folders, video)
        if not frames:
            imageless += 1
            continue
        read, lines, bare = _read_video(video, kinds, frames)
        without_images += lines
        without_label += bare
        videos.append(read)
        identity.append(np.full(len(read.names), person_code(video), dtype=np.int64))
    if not videos or imageless > config.tolerance * len(files):
        raise DataError(
            f"{config.title}: {imageless} of {len(files)} annotated videos have no folder of "
            f"images in {', '.join(image_folders) or root}; say where they are with images, or "
            f"raise tolerance ({config.tolerance:g})"
        )
    dropped = {
        "frame without an image": without_images,
        "frame without a label": without_label,
        "video without images": imageless,
    }
    return Listing(
        title=config.title,
        root=root,
        names=np.concatenate([video.names for video in videos]),
        expression=np.concatenate([video.expression for video in videos]),
        other=np.concatenate([video.other for video in videos]),
        codes="classes",
        valence_arousal=np.concatenate([video.valence_arousal for video in videos]),
        units=np.concatenate([video.units for video in videos]),
        identity=np.concatenate(identity),
        dropped={reason: count for reason, count in dropped.items() if count},
        remarks=_crossing(base, files.keys(), split),
    )


def _challenges(base: Path) -> Iterable[tuple[str, Path]]:
    """Find the folders of the challenges, at most two folders down."""
    folders = [base, *(path for path in sorted(base.iterdir()) if path.is_dir())]
    for kind, names in _FOLDERS.items():
        found = [folder / name for folder in folders for name in names]
        yield from ((kind, path) for path in found if path.is_dir())


def _annotation_files(base: Path, split: Split | None) -> dict[str, dict[str, Path]]:
    """Give for every video its file in each challenge."""
    splits = _SPLITS.values() if split is None else [_SPLITS[split]]
    files: dict[str, dict[str, Path]] = {}
    for kind, folder in _challenges(base):
        for name in (name for names in splits for name in names):
            if (folder / name).is_dir():
                for path in sorted((folder / name).glob("*.txt")):
                    known = files.setdefault(safe_name(path.stem, str(path)), {})
                    if known.setdefault(kind, path) != path:
                        raise DataError(
                            f"{path} and {known[kind]} annotate the same video: say with "
                            "annotations which release to take"
                        )
    return files


def _crossing(base: Path, videos: Iterable[str], split: Split | None) -> tuple[str, ...]:
    """Say how many videos are in this split of one challenge and in another of the next."""
    if split is None:
        return ()
    chosen = set(videos)
    elsewhere = {
        video
        for other in _SPLITS
        if other != split
        for video in _annotation_files(base, other)
        if video in chosen
    }
    if not elsewhere:
        return ()
    return (
        f"{len(elsewhere)} of {len(chosen)} videos of split {split!r} belong to another split of "
        "another challenge; a partition can keep them out",
    )


def _image_folders(
    config: AffWild2Config, folder: Path, roots: tuple[Path, ...]
) -> tuple[Path, list[str]]:
    """Give the root of all images and the folders below it that hold a folder a video."""
    if config.images is not None:
        return find_data(config.images, (folder, *roots), "images"), [""]
    found = [
        path
        for above in (folder, *(p for p in sorted(folder.iterdir()) if p.is_dir()))
        for path in sorted(above.glob("cropped_aligned*"))
        if path.is_dir()
    ]
    inner = [path / path.name if (path / path.name).is_dir() else path for path in found]
    if not inner:
        raise DataError(
            f"{folder} holds no folder cropped_aligned: say with images where the aligned faces are"
        )
    return folder, [path.relative_to(folder).as_posix() for path in inner]


def _frames(root: Path, folders: list[str], video: str) -> dict[int, str]:
    """Give the names of a video's images by their numbers."""
    frames: dict[int, str] = {}
    for folder in folders:
        place = f"{folder}/{video}" if folder else video
        try:
            entries = sorted(os.listdir(root / place))
        except OSError:
            continue
        for entry in entries:
            match = _FRAME.fullmatch(entry)
            if match:
                frames.setdefault(int(match[1]), f"{place}/{entry}")
    return frames


def _read_video(
    video: str, kinds: dict[str, Path], frames: dict[int, str]
) -> tuple[_Video, int, int]:
    """Join the challenges of a video; tell how many lines have no image and images no label."""
    numbers = np.array(sorted(frames), dtype=np.int64)
    count = len(numbers)
    tables = {kind: _read_lines(path, kind) for kind, path in kinds.items()}
    lines = max(len(values) for _, values in tables.values())
    columns: dict[str, NDArray[np.float64]] = {}
    for kind, (header, values) in tables.items():
        picked = np.full((count, values.shape[1]), np.nan)
        inside = (numbers >= 1) & (numbers <= len(values))
        picked[inside] = values[numbers[inside] - 1]
        columns[kind] = picked
        if kind == "au":
            columns[kind] = _placed(kinds[kind], header, picked)
    code, other = _expression(kinds.get("expr"), columns.get("expr"), count)
    pair = np.full((count, 2), np.nan, dtype=np.float32)
    if "va" in columns:
        header = [name.strip().lower() for name in tables["va"][0]]
        order = [0, 1] if header != ["arousal", "valence"] else [1, 0]
        pair = numbers_in_range(str(kinds["va"]), columns["va"][:, order], "va")
    units = np.full((count, len(ACTION_UNITS)), np.nan, dtype=np.float16)
    if "au" in columns:
        units = numbers_in_range(str(kinds["au"]), columns["au"], "au").astype(np.float16)
    known = (code >= 0) | (other != "")
    known |= ~np.isnan(pair).all(axis=1) | ~np.isnan(units).all(axis=1)
    names = name_array(frames[int(number)] for number in numbers[known])
    read = _Video(names, code[known], other[known], pair[known], units[known])
    met = int(((numbers >= 1) & (numbers <= lines)).sum())
    return read, lines - met, count - int(known.sum())


def _read_lines(path: Path, kind: str) -> tuple[list[str], NDArray[np.float64]]:
    """Read the header and the values of a file, NaN where a line is blank.

    Raises
    ------
    DataError
        Lines that are not so many numbers.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    header, *lines = (line.strip() for line in text.splitlines()) if text.strip() else [""]
    while lines and not lines[-1]:
        lines.pop()
    width = {"va": 2, "expr": 1}.get(kind, len(header.split(",")))
    if any(line.count(",") != width - 1 for line in lines if line):
        raise DataError(f"{path} has lines that do not hold {width} values")
    blank = ",".join(["nan"] * width)
    try:
        values = np.loadtxt([line or blank for line in lines], delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(f"{path} is no annotation of Aff-Wild2: {error}") from error
    return header.split(","), values.reshape(len(lines), width)


def _placed(path: Path, header: list[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put action units into the schema's columns by their names in the header."""
    names = [unit_name(name) for name in header]
    places = [ACTION_UNITS.index(name) for name in names if name is not None]
    if len(places) != values.shape[1]:
        raise DataError(f"{path}: its first line names no {values.shape[1]} action units: {header}")
    placed = np.full((len(values), len(ACTION_UNITS)), np.nan)
    placed[:, places] = values
    return placed


def _expression(
    path: Path | None, values: NDArray[np.float64] | None, count: int
) -> tuple[NDArray[np.int8], NDArray[Any]]:
    code, other = np.full(count, -1, dtype=np.int8), nothing_else(count)
    if values is not None:
        told = np.nan_to_num(values[:, 0], nan=-1.0)
        wrong = ~np.isin(told, np.arange(-1, _OTHER + 1))
        if wrong.any():
            raise DataError(f"{path} holds expression {told[wrong][0]:g}; Aff-Wild2 has -1 to 7")
        inside = (told >= 0) & (told < len(EXPRESSIONS))
        code[inside] = told[inside].astype(np.int8)
        other[told == _OTHER] = "other"
    return code, other
