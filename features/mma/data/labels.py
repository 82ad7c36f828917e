"""The labels of a pack, in whatever shape and type its file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.votes import voted
from feie.features.mma.vocabulary import (
    OUTSIDE,
    UNKNOWN,
    Codes,
    code_meaning,
    expression_name,
    numbers_in_range,
    unit_name,
)
from feie.features.schema import ACTION_UNITS, EXPRESSIONS

EXPRESSION_DATASETS = ("expression", "labels", "label", "emotion")
"""Names under which expressions are looked for, in order."""


class Expressions(NamedTuple):
    """Expressions of n images, see `Pack`, and where their meaning comes from."""

    code: NDArray[np.int64]
    other: list[str]
    codes: Codes


def text(value: object) -> str:
    """Give a label or name as text, whatever its encoding."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read_column(path: Path, file: h5py.File, name: str, count: int) -> NDArray[Any]:
    """Read a dataset of one value an image, (n,) or (n, 1), as (n,).

    Raises
    ------
    DataError
        No dataset, or another shape.
    """
    values = _read(path, file, name)
    if values.shape not in ((count,), (count, 1)):
        raise DataError(f"{path}: dataset {name!r} has shape {values.shape}, expected ({count},)")
    return values.reshape(count)


def read_expressions(path: Path, file: h5py.File, name: str, count: int) -> Expressions:
    """Read expressions: names, or codes that mean the names in the attribute ``classes``.

    Without that attribute, codes are taken in Aff-Wild2's order.

    Raises
    ------
    DataError
        Another shape, codes beyond the classes, or labels of which none is known.
    """
    values = read_column(path, file, name, count)
    classes = _names(file[name].attrs, "classes")
    code = np.full(count, -1, dtype=np.int64)
    other = [""] * count
    meaning: Codes = "names"
    for row, value in enumerate(values):
        label = _label(path, name, value)
        if label.isdecimal():
            meaning = "aff-wild2" if classes is None else "classes"
            label = code_meaning(_place(path, name), int(label), classes)
        if label in EXPRESSIONS:
            code[row] = EXPRESSIONS.index(label)
        elif label not in UNKNOWN:
            other[row] = label
    if any(other) and not (code >= 0).any() and OUTSIDE.isdisjoint(other):
        found = ", ".join(sorted(set(other) - {""})[:10])
        raise DataError(
            f"{path}: no expression label is one of {', '.join(EXPRESSIONS)}; found: {found}"
        )
    return Expressions(code, other, meaning)


def read_votes(
    path: Path, file: h5py.File, count: int
) -> tuple[NDArray[np.float32] | None, tuple[str, ...]]:
    """Read ``votes`` (n, k): how many people said what; its attribute ``classes`` names k.

    Raises
    ------
    DataError
        Another shape, negative or non-finite counts, no or repeated names of classes.
    """
    if "votes" not in file:
        return None, ()
    votes = _read(path, file, "votes")
    classes = _names(file["votes"].attrs, "classes")
    if not classes:
        raise DataError(f"{path}: dataset 'votes' needs an attribute 'classes' of k names")
    if votes.shape != (count, len(classes)) or votes.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: dataset 'votes' holds {votes.dtype} {votes.shape}, expected numbers "
            f"{(count, len(classes))}"
        )
    votes = votes.astype(np.float32)
    if not (np.isfinite(votes).all() and (votes >= 0).all()):
        raise DataError(f"{path}: dataset 'votes' holds negative or missing counts")
    names = tuple(expression_name(name) for name in classes)
    if len(set(names)) < len(names):
        raise DataError(f"{path}: dataset 'votes' names a class twice: {', '.join(classes)}")
    return votes, names


def label_by_votes(
    expressions: Expressions | None, votes: NDArray[np.float32], classes: tuple[str, ...]
) -> Expressions:
    """Give images without a label the most voted one, see `voted`."""
    if expressions is None:
        nothing = np.full(len(votes), -1, dtype=np.int64)
        expressions = Expressions(nothing, [""] * len(votes), "names")
    for row, label in enumerate(voted(votes, classes)):
        if expressions.code[row] >= 0 or expressions.other[row]:
            continue
        if label in EXPRESSIONS:
            expressions.code[row] = EXPRESSIONS.index(label)
        elif label not in UNKNOWN:
            expressions.other[row] = label
    return expressions


def _label(path: Path, name: str, value: object) -> str:
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        if not float(value).is_integer():
            raise DataError(f"{path}: dataset {name!r} holds {value:g}, which is no code")
        value = int(value)
    return expression_name(text(value))


def read_numbers(path: Path, file: h5py.File, name: str, count: int) -> NDArray[np.float32]:
    """Read valence or arousal (n,) in [-1, 1]: NaN where absent, NaN, -2 or -5.

    Raises
    ------
    DataError
        Another shape, type or range.
    """
    if name not in file:
        return np.full(count, np.nan, dtype=np.float32)
    return numbers_in_range(_place(path, name), read_column(path, file, name, count), "va")


def read_units(path: Path, file: h5py.File, count: int) -> NDArray[np.float32]:
    """Read action units (n, 17) in [0, 1]: NaN where absent, NaN, -1 or 999.

    They come from ``au`` (n, 17), or (n, k) with k names in its attribute ``columns``, or from
    one dataset a unit (``AU01`` or ``AU1``).

    Raises
    ------
    DataError
        Another shape, type or range, or unknown or repeated names.
    """
    if "au" not in file:
        return _single_units(path, file, count)
    values = _read(path, file, "au")
    columns = _names(file["au"].attrs, "columns")
    places = list(range(len(ACTION_UNITS)))
    if columns is not None:
        names = [unit_name(column) for column in columns]
        unknown = [c for c, known in zip(columns, names, strict=True) if known is None]
        if unknown:
            raise DataError(
                f"{path}: attribute 'columns' of 'au' names {', '.join(map(repr, unknown))}; "
                f"feie knows {', '.join(ACTION_UNITS)}"
            )
        places = [ACTION_UNITS.index(known) for known in names if known is not None]
        if len(set(places)) < len(places):
            raise DataError(f"{path}: attribute 'columns' of 'au' names an action unit twice")
    if values.shape != (count, len(places)):
        hint = "" if columns is not None else "; name fewer units in its attribute 'columns'"
        raise DataError(
            f"{path}: dataset 'au' has shape {values.shape}, expected {(count, len(places))}{hint}"
        )
    units = np.full((count, len(ACTION_UNITS)), np.nan, dtype=np.float32)
    units[:, places] = numbers_in_range(_place(path, "au"), values, "au")
    return units


def _single_units(path: Path, file: h5py.File, count: int) -> NDArray[np.float32]:
    units = np.full((count, len(ACTION_UNITS)), np.nan, dtype=np.float32)
    seen: dict[str, str] = {}
    for name in file:
        unit = unit_name(name)
        if unit is None:
            continue
        if unit in seen:
            raise DataError(f"{path}: datasets {seen[unit]!r} and {name!r} are one action unit")
        seen[unit] = name
        values = read_column(path, file, name, count)
        units[:, ACTION_UNITS.index(unit)] = numbers_in_range(_place(path, name), values, "au")
    return units


def _names(attributes: h5py.AttributeManager, name: str) -> tuple[str, ...] | None:
    if name not in attributes:
        return None
    return tuple(text(value) for value in np.atleast_1d(np.asarray(attributes[name])).ravel())


def _read(path: Path, file: h5py.File, name: str) -> NDArray[Any]:
    if not isinstance(file.get(name), h5py.Dataset):
        raise DataError(f"{path}: {name!r} is no dataset but a group or a broken link")
    return np.asarray(file[name][...])


def _place(path: Path, name: str) -> str:
    return f"{path}: dataset {name!r}"
