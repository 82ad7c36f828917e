"""A data set of image files: what is labelled how, without the images themselves."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.labelled import Labelled
from feie.features.schema import ACTION_UNITS

Names = NDArray[Any]
"""Names of images, as NumPy strings of variable length: some 40 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Listing(Labelled):
    """Labels of image files in memory, and where the files are.

    Attributes
    ----------
    root : Path
        Folder that the names are relative to.
    boxes : ndarray (n, 4) float32 or None
        Face boxes x0, y0, x1, y1 in px; NaN where there is none.
    landmarks : ndarray (n, 5, 2) float32 or None
        px, in ArcFace's order; NaN where there are none.
    dropped : dict of str to int
        Images that the data set names and that are left out, by reason.
    dropped_outside : dict of str to int
        Of these, the ones left out because of a label outside the seven expressions.
    remarks : tuple of str
        What the reader noticed, in sentences.
    """

    root: Path
    boxes: NDArray[np.float32] | None = None
    landmarks: NDArray[np.float32] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_outside: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def path(self, row: int) -> Path:
        """Where an image is."""
        return self.root / str(self.names[row])

    @property
    def clusters(self) -> NDArray[np.int64] | None:
        """Persons or videos: their images are alike, and single ones would say too much."""
        return self.identity

    @property
    def outside(self) -> dict[str, int]:
        """Labels outside the seven expressions, kept or dropped, and how often each occurs."""
        counts = super().outside
        for label, count in self.dropped_outside.items():
            counts[label] = counts.get(label, 0) + count
        return dict(sorted(counts.items()))

    def drop(self, rows: NDArray[np.bool_], reason: str) -> Listing:
        """Leave out some images and count them."""
        if not rows.any():
            return self
        kept = self.select(np.flatnonzero(~rows))
        count = self.dropped.get(reason, 0) + int(rows.sum())
        return replace(kept, dropped={**self.dropped, reason: count})


def name_array(names: Iterable[str]) -> Names:
    """Store names compactly.

    Raises
    ------
    DataError
        A name that is not UTF-8.
    """
    listed = list(names)
    try:
        return np.array(listed, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        wrong = next(name for name in listed if not name.isprintable())
        raise DataError(f"the file name {wrong!r} is not UTF-8: rename it") from error


def person_code(person: str) -> int:
    """Give the number that stands for a person or video, the same in every subset of the data."""
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:7], "big")


def unknown(count: int, columns: int) -> NDArray[np.float32]:
    """Labels (count, columns) of which none is known; takes no memory and cannot be written."""
    return np.broadcast_to(np.float32(np.nan), (count, columns))


def nothing_else(count: int) -> NDArray[Any]:
    """Give the labels outside the seven of images that have none."""
    return np.full(count, "", dtype=object)


def unlabelled(count: int) -> dict[str, Any]:
    """Give the label fields of a `Labelled` of which nothing is known."""
    return {
        "expression": np.full(count, -1, dtype=np.int8),
        "other": nothing_else(count),
        "codes": None,
        "valence_arousal": unknown(count, 2),
        "units": unknown(count, len(ACTION_UNITS)),
    }


def safe_name(name: str, where: str) -> str:
    """Check that a name that a data set gives lies below the folder of its images.

    Parameters
    ----------
    name : str
        Relative path, with slashes of either kind.
    where : str
        Who says so, for the error.

    Returns
    -------
    str
        The path with forward slashes.

    Raises
    ------
    DataError
        No name, an absolute path, or one that leads upwards.
    """
    plain = re.sub(r"^(\./)+", "", name.strip().replace("\\", "/"))
    parts = plain.split("/")
    if not plain or "\0" in plain or parts[0] == "" or re.match(r"[A-Za-z]:", plain):
        raise DataError(f"{where} names {name!r}, which is no path below the folder of the images")
    if ".." in parts:
        raise DataError(f"{where} names {name!r}, which leads out of the folder of the images")
    return plain


def present(root: Path, names: Sequence[str] | Names) -> NDArray[np.bool_]:
    """Tell which files are there; every folder is listed once, no file is opened."""
    folders: dict[str, frozenset[str]] = {}
    found = np.empty(len(names), dtype=np.bool_)
    for row, name in enumerate(names):
        folder, _, file = str(name).rpartition("/")
        if folder not in folders:
            try:
                folders[folder] = frozenset(os.listdir(root / folder))
            except OSError:
                folders[folder] = frozenset()
        found[row] = file in folders[folder]
    return found


def without_missing(listing: Listing, tolerance: float) -> Listing:
    """Leave out images whose files are not there.

    Raises
    ------
    DataError
        Their share is larger than tolerated.
    """
    missing = ~present(listing.root, listing.names)
    count = int(missing.sum())
    if count > tolerance * len(listing):
        some = ", ".join(str(listing.names[i]) for i in np.flatnonzero(missing)[:3])
        raise DataError(
            f"{listing.title}: {count} of {len(listing)} images are not below {listing.root} "
            f"({some}, …); say where they are with images, or raise tolerance ({tolerance:g})"
        )
    return listing.drop(missing, "image is not there")


def without_outside(listing: Listing) -> Listing:
    """Leave out images whose expression is none of the seven, and keep their counts."""
    outside = listing.outside
    rows = np.array([bool(label) for label in listing.other], dtype=np.bool_)
    kept = listing.drop(rows, "expression outside the seven")
    return replace(kept, dropped_outside=outside)
