"""EmotioNet: addresses of images and action units, in the forms in which they are handed out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.config import EmotioNetConfig, find_data
from feie.features.mma.data.readers.listing import Listing, name_array, present, safe_name
from feie.features.mma.data.readers.partition import SPLITS
from feie.features.mma.data.readers.tables import (
    image_names,
    labels_of,
    read_table,
    read_text_table,
    texts,
)

UNITS = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU09", "AU12", "AU17", "AU20", "AU25", "AU26")
"""The eleven action units of EmotioNet that the paper uses."""

_FACS = 60
_DEPTH = 3


def read_emotionet(config: EmotioNetConfig, folder: Path, roots: tuple[Path, ...]) -> Listing:
    """Read EmotioNet's eleven action units; 999 and -1 are unknown.

    Read are lists with a header (``URL``, ``AU 1``, …; or ``name``, ``AU1``, …) and the
    tab-separated lists without one (address, original address, AU 1 to 60). An image is looked
    for under the last one, two or three parts of its address. Addresses that were never
    downloaded are counted and left out: many no longer answer. Where the lists are called after
    splits (``train.csv``, ``valid.csv``, ``test.csv``), the one of the split is taken.

    Parameters
    ----------
    config : EmotioNetConfig
        `annotations` may name a list, or a folder of lists; without it, every ``.csv`` and
        ``dataFile*.txt`` of the folder. `images` may name the folder of images (``images``,
        ``Images``, ``imgs``, or the folder itself).
    folder : Path
        The data set.
    roots : tuple of Path
        Data roots.

    Raises
    ------
    DataError
        No list, none of its images, or values that cannot be right.
    """
    base = folder
    if config.annotations is not None:
        base = find_data(config.annotations, (folder, *roots), "annotations")
    paths = [base] if base.is_file() else _lists(config, base, (folder, *roots))
    frame = pd.concat([_read_list(path) for path in paths], ignore_index=True)
    where = str(paths[0]) if len(paths) == 1 else str(base)
    if config.images is not None:
        root = find_data(config.images, (folder, *roots), "images")
    else:
        places = (folder / name for name in ("images", "Images", "imgs"))
        root = next((place for place in places if place.is_dir()), folder)
    names, found = _files(root, frame["name"].tolist(), where)
    if not found.any():
        raise DataError(
            f"none of the {len(frame)} images of {where} is below {root}, e.g. {names[0]}: "
            "say where they are with images"
        )
    told = {SPLITS.get(path.stem.lower()) for path in paths}
    if config.split is not None and not config.partition and told != {config.split}:
        raise DataError("EmotioNet has no splits of its own: give a partition, or no split")
    labels = labels_of(frame, where, units=UNITS)
    listing = Listing(
        title=config.title, root=root, names=name_array(names), **labels.fields(), remarks=()
    )
    listing = listing.drop(~found, "image was not downloaded")
    twice = pd.Series(list(listing.names), dtype=object).duplicated()
    return listing.drop(twice.to_numpy(dtype=np.bool_), "listed twice")


def _lists(config: EmotioNetConfig, base: Path, roots: tuple[Path, ...]) -> list[Path]:
    partitions = {find_data(name, roots, "partition").resolve() for name in config.partition}
    for place in (base, base / "annotations", base / "labels"):
        found = sorted([*place.glob("*.csv"), *place.glob("dataFile*.txt")])
        found = [path for path in found if path.resolve() not in partitions]
        if not found:
            continue
        splits = [SPLITS.get(path.stem.lower()) for path in found]
        if config.partition or not any(splits):
            return found
        if config.split is None:
            raise DataError(f"{place} holds a list for each split: say which split to take")
        chosen = [path for path, told in zip(found, splits, strict=True) if told == config.split]
        if chosen:
            return chosen
        raise DataError(f"{place} holds no list for split {config.split!r}")
    raise DataError(f"{base} holds no list of EmotioNet (.csv or dataFile_*.txt)")


def _read_list(path: Path) -> pd.DataFrame:
    """Read a list as ``name`` and its columns of action units."""
    if not path.is_file():
        raise DataError(f"no list of EmotioNet at {path}")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip().strip("'\"").lower()
    if first.startswith("http"):
        header = ["name", "address", *(f"AU{number}" for number in range(1, _FACS + 1))]
        try:
            frame = read_text_table(path, header)
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is not a readable list of EmotioNet: {error}") from error
        names = texts(frame["name"])
    else:
        frame = read_table(path)
        names = image_names(frame, str(path))
    units = [c for c in frame.columns if re.match(r"[\s'\"]*AU", str(c), re.IGNORECASE)]
    if not units:
        raise DataError(f"{path} has no columns of action units (AU1, 'AU 1', …)")
    plain = {c: re.sub(r"[\s'\"]", "", str(c)) for c in units}
    return frame[units].rename(columns=plain).assign(name=names)


def _files(root: Path, addresses: list[str], where: str) -> tuple[list[str], NDArray[np.bool_]]:
    """Give the path of each image below the root, and whether it is there."""
    parts = []
    for address in addresses:
        plain = re.sub(r"^[a-z]+://[^/]*/|[?#].*$", "", address, flags=re.IGNORECASE)
        parts.append(safe_name(plain, where).split("/"))
    names = ["/".join(part[-1:]) for part in parts]
    found = present(root, names)
    for depth in range(2, _DEPTH + 1):
        rows = [int(i) for i in np.flatnonzero(~found) if len(parts[i]) >= depth]
        tails = ["/".join(parts[i][-depth:]) for i in rows]
        there = present(root, tails)
        for row, tail, is_there in zip(rows, tails, there, strict=True):
            if is_there:
                names[row], found[row] = tail, True
    return names, found
