"""Reading packs: HDF5 files of face images with whatever labels they carry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.hdf5 import refuse_foreign
from feie.features.mma.data import labels
from feie.features.mma.data.labelled import Labelled
from feie.features.schema import VALENCE_AROUSAL

IMAGE_DATASETS = ("jpeg", "images", "image", "data")
"""Names under which images are looked for, in order."""


@dataclass(frozen=True, kw_only=True)
class Pack(Labelled):
    """Images and labels of one pack.

    Attributes
    ----------
    images : list of ndarray uint8
        Encoded (bytes,), or decoded (h, w) grey or (h, w, 3) RGB where the pack has them so.
    """

    images: list[NDArray[np.uint8]]


def read_pack(path: Path) -> Pack:
    """Read a pack into memory (images stay as they are stored).

    Parameters
    ----------
    path : Path
        HDF5 file with ``jpeg`` (or ``images``, ``image``, ``data``): encoded images (n,) as
        variable-length uint8, bytes or opaque values, or decoded ones as uint8 (n, h, w) grey or
        (n, h, w, 3) RGB; and any of: ``expression`` (or ``labels``, ``label``, ``emotion``)
        (n,), names or codes into its attribute ``classes``, without which codes are taken in
        Aff-Wild2's order (0 neutral, 1 anger, 2 disgust, 3 fear, 4 happiness, 5 sadness,
        6 surprise, 7 other; -1 and NaN unknown); ``name`` (n,); ``valence``, ``arousal`` (n,),
        unknown where NaN, -2 or -5; ``au`` (n, 17), or (n, k) with the attribute ``columns``, or
        one dataset an action unit (``AU01`` …), unknown where NaN, -1 or 999; ``identity`` (n,);
        ``votes`` (n, k), how many people said what, with the names of the k classes in its
        attribute ``classes``; they also label images that have no expression.

    Raises
    ------
    DataError
        No such file, not HDF5, no images, or labels whose number or values cannot be right.
    """
    if not path.is_file():
        raise DataError(f"no pack at {path}: give the path of an HDF5 file of faces")
    try:
        with h5py.File(path, "r") as file:
            _refuse_foreign(path, file)
            return _read(path, file)
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from error


def read_units(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a teacher's action units: ``name`` (n,) and ``au`` (n, 17), NaN where it is unsure.

    Raises
    ------
    DataError
        No such file, or not these two datasets.
    """
    if not path.is_file():
        raise DataError(f"no action units at {path}")
    try:
        with h5py.File(path, "r") as file:
            _refuse_foreign(path, file)
            if not all(isinstance(file.get(name), h5py.Dataset) for name in ("name", "au")):
                found = ", ".join(sorted(file)) or "nothing"
                raise DataError(f"{path} needs the datasets 'name' and 'au'; found: {found}")
            count = len(file["name"]) if file["name"].shape else 0
            names = [labels.text(v) for v in labels.read_column(path, file, "name", count)]
            units = labels.read_units(path, file, count)
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from error
    return dict(zip(names, units, strict=True))


def _refuse_foreign(path: Path, file: h5py.File) -> None:
    try:
        refuse_foreign(file)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _read(path: Path, file: h5py.File) -> Pack:
    images = _images(path, file)
    count = len(images)
    label = next((name for name in labels.EXPRESSION_DATASETS if name in file), None)
    expressions = None if label is None else labels.read_expressions(path, file, label, count)
    names = [str(i) for i in range(count)]
    if "name" in file:
        names = [labels.text(value) for value in labels.read_column(path, file, "name", count)]
    identity = None
    if "identity" in file:
        identity = _identities(labels.read_column(path, file, "identity", count))
    votes, vote_classes = labels.read_votes(path, file, count)
    if votes is not None:
        expressions = labels.label_by_votes(expressions, votes, vote_classes)
    return Pack(
        title=str(path),
        names=names,
        images=images,
        expression=np.full(count, -1, np.int64) if expressions is None else expressions.code,
        other=[""] * count if expressions is None else expressions.other,
        codes=None if expressions is None else expressions.codes,
        valence_arousal=np.stack(
            [labels.read_numbers(path, file, name, count) for name in VALENCE_AROUSAL], axis=1
        ),
        units=labels.read_units(path, file, count),
        identity=identity,
        votes=votes,
        vote_classes=vote_classes,
    )


def _images(path: Path, file: h5py.File) -> list[NDArray[np.uint8]]:
    name = next((n for n in IMAGE_DATASETS if isinstance(file.get(n), h5py.Dataset)), None)
    if name is None:
        found = ", ".join(sorted(file)) or "nothing"
        raise DataError(f"{path} holds no dataset 'jpeg' (one encoded image a row), only: {found}")
    dataset = file[name]
    if not dataset.shape or not len(dataset):
        raise DataError(f"{path} holds no images: its dataset {name!r} is empty")
    if dataset.ndim < 3:
        return [_encoded(path, name, row) for row in dataset[:]]
    if dataset.dtype != np.uint8 or dataset.ndim > 4 or dataset.shape[3:] not in ((), (1,), (3,)):
        raise DataError(
            f"{path}: dataset {name!r} holds {dataset.dtype} {dataset.shape}; decoded images are "
            "uint8 of shape (n, h, w) or (n, h, w, 3)"
        )
    if 0 in dataset.shape:
        raise DataError(f"{path} holds no images: its dataset {name!r} has shape {dataset.shape}")
    return list(dataset[:])


def _encoded(path: Path, name: str, row: object) -> NDArray[np.uint8]:
    """Give an encoded image as bytes, however the file types them."""
    if isinstance(row, np.void):
        row = row.tobytes()
    if isinstance(row, bytes):
        return np.frombuffer(row, dtype=np.uint8)
    values = np.asarray(row)
    if not values.size:
        return np.empty(0, dtype=np.uint8)
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.dtype.itemsize != 1:
        raise DataError(
            f"{path}: dataset {name!r} holds rows of {values.dtype}; encoded images are "
            "variable-length uint8"
        )
    return values.view(np.uint8)


def _identities(values: NDArray[Any]) -> NDArray[np.int64]:
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    _, codes = np.unique([labels.text(value) for value in values], return_inverse=True)
    return codes.astype(np.int64)
