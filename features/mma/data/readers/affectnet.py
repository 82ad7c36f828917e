"""AffectNet: the lists of 2017 (CSV), and the release with one annotation file an image (.npy)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.config import AffectNetConfig, Split, find_data
from feie.features.mma.data.readers.listing import Listing, name_array, safe_name, unknown
from feie.features.mma.data.readers.tables import numbers, texts
from feie.features.mma.vocabulary import numbers_in_range
from feie.features.schema import ACTION_UNITS, EXPRESSIONS

CLASSES = (
    "neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger",
    "contempt", "none", "uncertain", "non-face",
)  # fmt: skip
"""What AffectNet's expression codes 0 to 10 mean."""

_COLUMNS = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
            "facial_landmarks", "expression", "valence", "arousal"]  # fmt: skip
_LISTS: dict[Split, str] = {"train": "training.csv", "val": "validation.csv"}
_SETS: dict[Split, str] = {"train": "train_set", "val": "val_set"}
_IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images",
                  "Manually_Annotated", "images")  # fmt: skip
_CHUNK = 20_000
_NON_FACE = CLASSES.index("non-face")
_CODES = np.array([EXPRESSIONS.index(c) if c in EXPRESSIONS else -1 for c in CLASSES], np.int8)
_OTHERS = np.array(["" if c in EXPRESSIONS else c for c in CLASSES], dtype=object)
_FIVE = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))
"""Of the 68 landmarks, those whose mean is an eye, an eye, the nose, a corner, a corner."""


class _Part(NamedTuple):
    """Some images: their names, codes, valence and arousal, boxes and landmarks."""

    names: list[str]
    code: NDArray[np.int64]
    valence_arousal: NDArray[np.float32]
    boxes: NDArray[np.float32] | None
    landmarks: NDArray[np.float32]


def read_affectnet(config: AffectNetConfig, folder: Path, roots: tuple[Path, ...]) -> Listing:
    """Read AffectNet's labels.

    Expression 0 neutral, 1 happiness, 2 sadness, 3 surprise, 4 fear, 5 disgust, 6 anger; 7
    contempt, 8 none and 9 uncertain are outside the seven; 10 is no face and always left out.
    Valence and arousal of -2 are unknown. With a partition all sets are read and it decides.

    Parameters
    ----------
    config : AffectNetConfig
        `annotations` may name a CSV, or the folder of ``training.csv`` and ``validation.csv``,
        or of ``<id>_exp.npy`` …; `images` the folder that holds the images.
    folder : Path
        The data set.
    roots : tuple of Path
        Data roots.

    Raises
    ------
    DataError
        No annotations in either form, or values that cannot be right.
    """
    split = None if config.partition else config.split
    base = folder
    if config.annotations is not None:
        base = find_data(config.annotations, (folder, *roots), "annotations")
    lists = _lists(base, split)
    if lists:
        root = _images_of_lists(config, folder, roots)
        parts = [part for path in lists for part in _read_list(path)]
    else:
        root, parts = _read_sets(config, folder, base, roots, split)
    return _listing(config, root, parts)


def _listing(config: AffectNetConfig, root: Path, parts: list[_Part]) -> Listing:
    code = np.concatenate([part.code for part in parts])
    boxes = [part.boxes for part in parts if part.boxes is not None]
    listing = Listing(
        title=config.title,
        root=root,
        names=np.concatenate([name_array(part.names) for part in parts]),
        expression=_CODES[code],
        other=_OTHERS[code],
        codes="classes",
        valence_arousal=np.concatenate([part.valence_arousal for part in parts]),
        units=unknown(len(code), len(ACTION_UNITS)),
        boxes=np.concatenate(boxes) if boxes else None,
        landmarks=np.concatenate([part.landmarks for part in parts]),
    )
    return listing.drop(code == _NON_FACE, "no face on it")


def _lists(base: Path, split: Split | None) -> list[Path]:
    if base.is_file():
        return [base]
    wanted = list(_LISTS.values()) if split is None else [_LISTS[split]] if split in _LISTS else []
    folders = [base, *sorted(path for path in base.iterdir() if path.is_dir())]
    found = [next((f / name for f in folders if (f / name).is_file()), None) for name in wanted]
    return [path for path in found if path is not None]


def _images_of_lists(config: AffectNetConfig, folder: Path, roots: tuple[Path, ...]) -> Path:
    if config.images is not None:
        return find_data(config.images, (folder, *roots), "images")
    return next((folder / n for n in _IMAGE_FOLDERS if (folder / n).is_dir()), folder)


def _read_list(path: Path) -> Iterator[_Part]:
    """Read a CSV piece by piece: its landmarks as text would fill the memory."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    # validation.csv of 2017 came without a header.
    headed = first.lower().startswith(("subdirectory", '"subdirectory'))
    try:
        chunks = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            header=0 if headed else None,
            names=None if headed else _COLUMNS,
            chunksize=_CHUNK,
        )
        for chunk in chunks:
            missing = [name for name in _COLUMNS if name not in chunk]
            if missing:
                raise DataError(f"{path} is no list of AffectNet: it lacks {', '.join(missing)}")
            yield _read_chunk(path, chunk)
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable list of AffectNet: {error}") from error


def _read_chunk(path: Path, chunk: pd.DataFrame) -> _Part:
    box = np.stack([numbers(chunk[c], f"{path}: {c!r}") for c in _COLUMNS[1:5]], axis=1)
    box[:, 2:] += box[:, :2]
    return _Part(
        [safe_name(name, str(path)) for name in texts(chunk[_COLUMNS[0]])],
        _expression_codes(path, numbers(chunk["expression"], f"{path}: 'expression'")),
        _numbers(path, np.stack([numbers(chunk[c], f"{path}: {c!r}") for c in _COLUMNS[7:]], 1)),
        box.astype(np.float32),
        np.stack([_five(_split_points(text)) for text in chunk["facial_landmarks"]]),
    )


def _expression_codes(path: Path, values: NDArray[np.float64]) -> NDArray[np.int64]:
    wrong = ~np.isin(values, np.arange(len(CLASSES)))
    if wrong.any():
        raise DataError(f"{path} holds expression {values[wrong][0]:g}; AffectNet has 0 to 10")
    return values.astype(np.int64)


def _numbers(path: Path, values: NDArray[np.float64]) -> NDArray[np.float32]:
    return numbers_in_range(f"{path}: valence or arousal", values, "va")


def _split_points(text: str) -> NDArray[np.float64]:
    try:
        return np.array([float(v) for v in text.split(";")], dtype=np.float64)
    except ValueError:
        return np.empty(0)


def _five(points: NDArray[Any]) -> NDArray[np.float32]:
    """Give five landmarks of 68 (x0, y0, x1, y1, …); NaN where these are not 68."""
    if points.size != 136:
        return np.full((5, 2), np.nan, dtype=np.float32)
    pairs = points.reshape(68, 2).astype(np.float32)
    return np.stack([pairs[start:stop].mean(axis=0) for start, stop in _FIVE])


def _read_sets(
    config: AffectNetConfig,
    folder: Path,
    base: Path,
    roots: tuple[Path, ...],
    split: Split | None,
) -> tuple[Path, list[_Part]]:
    """Read ``train_set`` and ``val_set``, or one set that lies in the folder itself."""
    wanted = list(_SETS.values()) if split is None else [_SETS[split]] if split in _SETS else []
    sets = [name for name in wanted if _has_annotations(base / name / "annotations")]
    if sets:
        return folder, [
            _read_annotations(base / name / "annotations", f"{name}/images", folder / name)
            for name in sets
        ]
    flat = base if _has_annotations(base) else base / "annotations"
    if not _has_annotations(flat):
        asked = "" if split is None else f" for split {split!r}"
        raise DataError(
            f"{folder} holds no annotations of AffectNet{asked}: neither training.csv and "
            "validation.csv nor train_set/annotations/*_exp.npy and val_set/annotations/*_exp.npy"
        )
    if split is not None:
        raise DataError(f"{flat} does not say which images are split {split!r}: give a partition")
    if config.images is None:
        return folder, [_read_annotations(flat, "images", folder)]
    images = find_data(config.images, (folder, *roots), "images")
    return images, [_read_annotations(flat, "", images)]


def _has_annotations(folder: Path) -> bool:
    return folder.is_dir() and any(entry.name.endswith("_exp.npy") for entry in os.scandir(folder))


def _read_annotations(folder: Path, prefix: str, above: Path) -> _Part:
    suffix = "_exp.npy"
    found = sorted(e.name[: -len(suffix)] for e in os.scandir(folder) if e.name.endswith(suffix))
    images = above / prefix.rpartition("/")[2]
    files = (
        {Path(entry.name).stem: entry.name for entry in os.scandir(images)}
        if (images.is_dir())
        else {}
    )
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda name: _read_one(folder, name), found, chunksize=256))
    values = np.array([row[:3] for row in rows], dtype=np.float64)
    start = f"{prefix}/" if prefix else ""
    return _Part(
        [start + files.get(name, f"{name}.jpg") for name in found],
        _expression_codes(folder, values[:, 0]),
        _numbers(folder, values[:, 1:]),
        None,
        np.stack([row[3] for row in rows]),
    )


def _read_one(folder: Path, name: str) -> tuple[float, float, float, NDArray[np.float32]]:
    expression, valence, arousal = (
        _scalar(folder / f"{name}_{kind}.npy") for kind in ("exp", "val", "aro")
    )
    points = _array(folder / f"{name}_lnd.npy")
    return expression, valence, arousal, _five(np.empty(0) if points is None else points.ravel())


def _scalar(path: Path) -> float:
    """Read a single number, which the files hold as a number or as text."""
    values = _array(path)
    if values is None:
        return float("nan")
    try:
        return float(values.item())
    except ValueError as error:
        raise DataError(f"{path} holds no single number") from error


def _array(path: Path) -> NDArray[Any] | None:
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no plain NumPy array: {error}") from error
    return values
