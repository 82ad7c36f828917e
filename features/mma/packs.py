"""Reading packs: HDF5 files of face images as JPEG with whatever labels they carry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.schema import ACTION_UNITS, EXPRESSIONS, VALENCE_AROUSAL

_SYNONYMS = {
    "angry": "anger",
    "disgusted": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}
_UNKNOWN = frozenset({"", "unknown", "none", "nan", "-1"})


@dataclass(frozen=True)
class Pack:
    """Images and labels of one pack, labels in the vocabulary of the affect vector.

    Attributes
    ----------
    path : Path
        The file that was read.
    names : list of str
        One name an image.
    jpeg : list of ndarray uint8
        The encoded images.
    expression : ndarray (n,) int64
        Index into `EXPRESSIONS`; -1 where unknown or outside the seven.
    other : list of str
        The label of an image whose expression is outside the seven (contempt, …), else "".
    valence_arousal : ndarray (n, 2) float32
        In [-1, 1]; NaN where unknown.
    units : ndarray (n, 17) float32
        Action-unit activations in [0, 1]; NaN where unknown.
    identity : ndarray (n,) int64 or None
        Who is seen, where the pack says so.
    """

    path: Path
    names: list[str]
    jpeg: list[NDArray[np.uint8]]
    expression: NDArray[np.int64]
    other: list[str]
    valence_arousal: NDArray[np.float32]
    units: NDArray[np.float32]
    identity: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.jpeg)

    @property
    def outside(self) -> dict[str, int]:
        """Labels outside the seven expressions, and how often each occurs."""
        return dict(sorted(Counter(label for label in self.other if label).items()))

    def select(self, rows: NDArray[np.int64]) -> Pack:
        """Give the pack of some rows, in the order asked for."""
        return Pack(
            path=self.path,
            names=[self.names[i] for i in rows],
            jpeg=[self.jpeg[i] for i in rows],
            expression=self.expression[rows],
            other=[self.other[i] for i in rows],
            valence_arousal=self.valence_arousal[rows],
            units=self.units[rows],
            identity=None if self.identity is None else self.identity[rows],
        )


def read_pack(path: Path) -> Pack:
    """Read a pack into memory (images stay encoded).

    Parameters
    ----------
    path : Path
        HDF5 file with ``jpeg`` (n, variable-length uint8) and any of: ``expression`` (n,) as
        names or as integer codes in Aff-Wild2's order (0 neutral, 1 anger, 2 disgust, 3 fear,
        4 happiness, 5 sadness, 6 surprise, 7 other, -1 unknown); ``name`` (n,); ``valence``,
        ``arousal`` (n,); ``au`` (n, 17) or one dataset an action unit (``AU01`` …);
        ``identity`` (n,).

    Raises
    ------
    DataError
        No such file, not HDF5, no images, or labels whose number or values cannot be right.
    """
    if not path.is_file():
        raise DataError(f"no pack at {path}: give the path of an HDF5 file of faces")
    try:
        with h5py.File(path, "r") as file:
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
            if "name" not in file or "au" not in file:
                found = ", ".join(sorted(file)) or "nothing"
                raise DataError(f"{path} needs the datasets 'name' and 'au'; found: {found}")
            names = [_text(value) for value in file["name"][:]]
            units = _units(path, file, len(names))
    except OSError as error:
        raise DataError(f"{path} is not a readable HDF5 file: {error}") from error
    return dict(zip(names, units, strict=True))


def _read(path: Path, file: h5py.File) -> Pack:
    if "jpeg" not in file or not isinstance(file["jpeg"], h5py.Dataset):
        found = ", ".join(sorted(file)) or "nothing"
        raise DataError(f"{path} holds no dataset 'jpeg' (one encoded image a row), only: {found}")
    jpeg = [np.asarray(row, dtype=np.uint8).reshape(-1) for row in file["jpeg"][:]]
    if not jpeg:
        raise DataError(f"{path} holds no images: its dataset 'jpeg' is empty")
    count = len(jpeg)
    if "expression" in file:
        expression, other = _expressions(path, _column(path, file, "expression", (count,)))
    else:
        expression, other = np.full(count, -1, dtype=np.int64), [""] * count
    names = [str(i) for i in range(count)]
    if "name" in file:
        names = [_text(value) for value in _column(path, file, "name", (count,))]
    identity = None
    if "identity" in file:
        identity = _identities(_column(path, file, "identity", (count,)))
    return Pack(
        path=path,
        names=names,
        jpeg=jpeg,
        expression=expression,
        other=other,
        valence_arousal=np.stack(
            [_numbers(path, file, name, count, -1.0) for name in VALENCE_AROUSAL], axis=1
        ),
        units=_units(path, file, count),
        identity=identity,
    )


def _column(path: Path, file: h5py.File, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    values = np.asarray(file[name][...])
    if values.shape != shape:
        raise DataError(f"{path}: dataset {name!r} has shape {values.shape}, expected {shape}")
    return values


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _identities(values: NDArray[Any]) -> NDArray[np.int64]:
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.int64)
    _, codes = np.unique([_text(value) for value in values], return_inverse=True)
    return codes.astype(np.int64)


def _expressions(path: Path, values: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    codes = np.full(len(values), -1, dtype=np.int64)
    other = [""] * len(values)
    for row, value in enumerate(values):
        label = _text(value).strip().lower()
        label = _SYNONYMS.get(label, label)
        if label in EXPRESSIONS:
            codes[row] = EXPRESSIONS.index(label)
        elif label.isdecimal() and int(label) < len(EXPRESSIONS):
            codes[row] = int(label)
        elif label not in _UNKNOWN:
            other[row] = label
    if any(other) and not (codes >= 0).any():
        found = ", ".join(sorted(set(other) - {""})[:10])
        raise DataError(
            f"{path}: no expression label is one of {', '.join(EXPRESSIONS)}; found: {found}"
        )
    return codes, other


def _numbers(
    path: Path, file: h5py.File, name: str, count: int, lowest: float
) -> NDArray[np.float32]:
    """Read a column of numbers in [lowest, 1]; NaN where unknown or absent."""
    if name not in file:
        return np.full(count, np.nan, dtype=np.float32)
    return _in_range(path, name, _column(path, file, name, (count,)), lowest)


def _in_range(path: Path, name: str, values: NDArray[Any], lowest: float) -> NDArray[np.float32]:
    if not np.issubdtype(values.dtype, np.number):
        raise DataError(f"{path}: dataset {name!r} holds {values.dtype}, not numbers")
    numbers = values.astype(np.float32)
    wrong = ~np.isnan(numbers) & ((numbers < lowest) | (numbers > 1.0))
    if wrong.any():
        raise DataError(
            f"{path}: dataset {name!r} holds {numbers[wrong][0]:g}, outside [{lowest:g}, 1]; "
            "write NaN where a value is unknown"
        )
    return numbers


def _units(path: Path, file: h5py.File, count: int) -> NDArray[np.float32]:
    if "au" in file:
        shape = (count, len(ACTION_UNITS))
        return _in_range(path, "au", _column(path, file, "au", shape), 0.0)
    return np.stack([_numbers(path, file, name, count, 0.0) for name in ACTION_UNITS], axis=1)
