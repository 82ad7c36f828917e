"""Partition files: which images belong to which split, by protocols that came after the data.

Two forms are read. *One file* with a column of image names and a column ``split`` (``partition``,
``set``, ``subset``). *One file a split*, as the protocol of Hu et al. gives them: a folder with
``train.csv``, ``valid.csv`` and ``test.csv``, or one of these files itself. A file with label
columns brings the labels too: the data set's own are then not used at all, because the protocol
may have put an image's expression into one split and its valence into another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.config import Split
from feie.features.mma.data.readers.listing import Listing, unlabelled
from feie.features.mma.data.readers.tables import (
    FrameLabels,
    column,
    image_names,
    labels_of,
    read_table,
    texts,
)

SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "trn": "train", "train_set": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "validation_set": "val",
    "test": "test", "testing": "test", "tst": "test", "test_set": "test",
}  # fmt: skip
_SPLIT_COLUMNS = ("split", "partition", "set", "subset", "usage", "fold")
_SUFFIXES = frozenset(
    {"jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff",
     "mp4", "avi", "mov", "mkv", "webm", "txt"}
)  # fmt: skip
"""What a name may lose: of images, and of videos and their annotations."""

_TABLES = (".csv", ".tsv", ".txt", ".parquet")


@dataclass(frozen=True)
class Partition:
    """What one file says of one split: names, and labels where it has them."""

    path: Path
    names: list[str]
    labels: FrameLabels | None


def read_partition(path: Path, split: Split | None) -> Partition:
    """Read the images of a split.

    Parameters
    ----------
    path : Path
        A file, or a folder with one file a split.
    split : {"train", "val", "test"} or None
        Which; a file without a split column may go without.

    Raises
    ------
    DataError
        No such file or split, or a file of another split than the one asked for.
    """
    path = _of_split(path, split) if path.is_dir() else path
    frame = in_split(read_table(path), path, split)
    names = image_names(frame, str(path))
    labels = labels_of(frame, str(path))
    return Partition(path, names, labels if labels.found else None)


def in_split(frame: pd.DataFrame, path: Path, split: Split | None) -> pd.DataFrame:
    """Give the rows of a table that belong to a split, by its split column or its file's name.

    Raises
    ------
    DataError
        The table has a split column and none is asked for, or nothing of it, or unknown names in
        it, or the file's name tells another split.
    """
    header = column(frame, _SPLIT_COLUMNS)
    if header is None:
        told = SPLITS.get(path.stem.lower())
        if split is not None and told not in (None, split):
            raise DataError(f"{path} looks like split {told!r}, but split {split!r} is asked for")
        return frame
    if split is None:
        raise DataError(f"{path} has a column {header!r}: say which split to take")
    told_rows = [value.lower() for value in texts(frame[header])]
    unknown = sorted(set(told_rows) - SPLITS.keys() - {""})
    if unknown:
        known = ", ".join(SPLITS)
        raise DataError(f"{path}: split {unknown[0]!r} is unknown; feie knows {known}")
    rows = np.array([SPLITS.get(told) == split for told in told_rows], dtype=np.bool_)
    if not rows.any():
        raise DataError(f"{path} has no image in split {split!r}")
    return frame[rows].reset_index(drop=True)


def take_partition(listing: Listing, partitions: Iterable[Partition], tolerance: float) -> Listing:
    """Keep the images that some partitions name, with the labels that the partitions give.

    A name may be the image's whole path or as much of its end as is unambiguous, with or without
    suffix; folders called ``images`` do not count. The name of a folder (a video) stands for all
    images in it.

    Parameters
    ----------
    listing : Listing
        Every image of the data set.
    partitions : iterable of Partition
        One or more; an image may be in several.
    tolerance : float
        Largest share of names that may join no image.

    Raises
    ------
    DataError
        More names join nothing, or a name joins several images.
    """
    chosen = np.zeros(len(listing), dtype=np.bool_)
    keys = [_key(str(name)) for name in listing.names]
    fields: dict[str, Any] = {}
    remarks = listing.remarks
    for partition in partitions:
        joined, missing = _join(keys, partition)
        if missing:
            said = (
                f"{partition.path}: {len(missing)} of {len(partition.names)} names join no image "
                f"of {listing.title} ({', '.join(missing[:3])})"
            )
            if len(missing) > tolerance * len(partition.names):
                example = listing.names[0] if len(listing) else "none"
                raise DataError(
                    f"{said}; its images are called like {example}; raise tolerance "
                    f"({tolerance:g}) if this is meant"
                )
            remarks = (*remarks, said)
        rows = np.flatnonzero(joined >= 0)
        chosen[rows] = True
        if partition.labels is not None:
            _lay(fields or _blank(fields, len(listing)), rows, joined[rows], partition.labels)
    changed = replace(listing, **fields, remarks=remarks)
    return changed.drop(~chosen, "not in the partition")


def _of_split(folder: Path, split: Split | None) -> Path:
    if split is None:
        raise DataError(f"{folder} is a folder of partition files: say which split to take")
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _TABLES and SPLITS.get(path.stem.lower()) == split:
            return path
    raise DataError(f"{folder} holds no file for split {split!r}, e.g. {split}.csv")


def _key(name: str) -> str:
    """Give what counts of a name: no suffix, no folder called images, forward slashes."""
    parts = name.replace("\\", "/").split("/")
    stem, dot, suffix = parts[-1].rpartition(".")
    if dot and suffix.lower() in _SUFFIXES:
        parts[-1] = stem
    return "/".join(part for part in parts if part not in ("", ".", "images"))


def _tail(key: str, length: int) -> str:
    return "/".join(key.split("/")[-length:])


def _join(keys: list[str], partition: Partition) -> tuple[NDArray[np.int64], list[str]]:
    """Give for every image its row in the partition, or -1; and the names that join nothing."""
    wanted: dict[str, int] = {_key(name): row for row, name in enumerate(partition.names)}
    joined = np.full(len(keys), -1, dtype=np.int64)
    met: set[str] = set()
    # The longest names first: what they mean is not for shorter ones to take.
    for length in sorted({key.count("/") + 1 for key in wanted}, reverse=True):
        for row, key in enumerate(keys):
            place = wanted.get(_tail(key, length))
            if place is None or joined[row] >= 0:
                continue
            name = _tail(key, length)
            if name in met:
                raise DataError(
                    f"{partition.path}: {partition.names[place]!r} is the name of several images; "
                    "give their folders too"
                )
            met.add(name)
            joined[row] = place
    left = {key: row for key, row in wanted.items() if key not in met}
    if left:
        folders: set[str] = set()
        lengths = sorted({key.count("/") + 1 for key in left})
        for row, key in enumerate(keys):
            folder = key.rpartition("/")[0]
            for length in lengths:
                place = left.get(_tail(folder, length))
                if joined[row] < 0 and place is not None:
                    joined[row] = place
                    folders.add(_tail(folder, length))
        met |= folders
    return joined, [partition.names[row] for key, row in wanted.items() if key not in met]


def _blank(fields: dict[str, Any], count: int) -> dict[str, Any]:
    fields.update(unlabelled(count))
    for name in ("valence_arousal", "units"):
        fields[name] = fields[name].astype(np.float16 if name == "units" else np.float32)
    return fields


def _lay(
    fields: dict[str, Any], rows: NDArray[np.int64], places: NDArray[np.int64], labels: FrameLabels
) -> None:
    """Put a partition's labels where it knows them."""
    known = (labels.expression[places] >= 0) | (labels.other[places] != "")
    fields["expression"][rows[known]] = labels.expression[places[known]]
    fields["other"][rows[known]] = labels.other[places[known]]
    fields["codes"] = labels.codes or fields["codes"]
    for name in ("valence_arousal", "units"):
        new, old = getattr(labels, name)[places], fields[name][rows]
        fields[name][rows] = np.where(np.isnan(new), old, new)
