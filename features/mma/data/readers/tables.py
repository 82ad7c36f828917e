"""Tables of images and labels (CSV, TSV, space-separated text, Parquet), and what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import DataError
from feie.features.mma.data.readers.listing import nothing_else, unknown
from feie.features.mma.vocabulary import (
    OUTSIDE,
    UNKNOWN,
    Codes,
    code_meaning,
    expression_name,
    numbers_in_range,
    unit_name,
)
from feie.features.schema import ACTION_UNITS, EXPRESSIONS, VALENCE_AROUSAL

PATH_COLUMNS = (
    "path", "name", "image", "img", "file", "filename", "filepath", "imagepath", "imagename",
    "imgpath", "imageid", "subdirectoryfilepath", "url", "video",
)  # fmt: skip
"""Headers of a column of image names, in order; case, spaces, quotes and underscores do not
count."""

_EXPRESSION_COLUMNS = ("expression", "emotion", "label")
_BLANK = frozenset({"", "nan", "na", "n/a", "<na>", "none", "null", "-", "?"})


class FrameLabels(NamedTuple):
    """Labels of a table's rows, see `Labelled`; `found` tells whether it has any label column."""

    expression: NDArray[np.int8]
    other: NDArray[Any]
    codes: Codes | None
    valence_arousal: NDArray[np.floating[Any]]
    units: NDArray[np.floating[Any]]
    found: bool

    def fields(self) -> dict[str, Any]:
        """Give them as fields of a `Labelled`."""
        content = self._asdict()
        del content["found"]
        return content


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; text stays text.

    Parameters
    ----------
    path : Path
        ``.parquet``, or text with one header line whose columns are parted by tabs, commas,
        semicolons or spaces; a byte-order mark and either kind of line end are fine.

    Raises
    ------
    DataError
        No such file, not a table, or an empty one.
    """
    if not path.is_file():
        raise DataError(f"no table at {path}: give the path of a CSV or Parquet file")
    if path.suffix.lower() in (".xlsx", ".xls"):
        raise DataError(f"{path} is a spreadsheet: save it as CSV")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        else:
            frame = read_text_table(path)
    except (ValueError, OSError) as error:  # of pandas and pyarrow: parser, decoding, no columns
        raise DataError(f"{path} is not a readable table: {error}") from error
    if frame.empty:
        raise DataError(f"{path} lists nothing")
    return frame


def read_text_table(path: Path, header: list[str] | None = None) -> pd.DataFrame:
    """Read a text table as strings, with the header of its first line or the one that is given."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    parting = next((mark for mark in "\t,;" if mark in first), r"\s+")
    frame: pd.DataFrame = pd.read_csv(
        path,
        sep=parting,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
        skipinitialspace=True,
        header=0 if header is None else None,
        names=header,
    )
    return frame


def column(frame: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """Find the first of some columns that a table has."""
    known = {re.sub(r"[\s'\"_-]", "", str(c)).lower(): str(c) for c in reversed(frame.columns)}
    return next((known[name] for name in names if name in known), None)


def texts(values: pd.Series[Any]) -> list[str]:
    """Give a column as text without quotes and spaces around it."""
    return [str(value).strip().strip("'\"").strip() for value in values]


def image_names(frame: pd.DataFrame, where: str) -> list[str]:
    """Give the names of the images that a table lists.

    Raises
    ------
    DataError
        No column that could hold them.
    """
    name = column(frame, PATH_COLUMNS)
    if name is None:
        found = ", ".join(map(str, frame.columns[:10]))
        raise DataError(f"{where} has no column of image paths: call it 'path' (found: {found})")
    return texts(frame[name])


def numbers(values: pd.Series[Any], where: str) -> NDArray[np.float64]:
    """Give a column as numbers, NaN where it is blank.

    Raises
    ------
    DataError
        Something else than numbers in it.
    """
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    plain = pd.Series(texts(values), dtype=object)
    blank = plain.str.lower().isin(_BLANK).to_numpy(dtype=np.bool_)
    given = pd.to_numeric(plain.where(~blank, "nan"), errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.isnan(given) & ~blank
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{where} holds {plain[row]!r} in row {row + 1}, which is no number")
    return given


def expressions(
    values: pd.Series[Any], where: str, classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int8], NDArray[Any], Codes]:
    """Give expression indices, labels outside the seven, and where their meaning comes from.

    Parameters
    ----------
    values : Series
        Names or codes; blank or negative is unknown.
    where : str
        File and column, for errors.
    classes : tuple of str or None
        What codes mean; None takes Aff-Wild2's order.

    Raises
    ------
    DataError
        A number that is no code, or labels of which none is known.
    """
    plain = pd.Series(texts(values), dtype=object)
    places, labels = pd.factorize(plain)
    code = np.full(len(labels), -1, dtype=np.int8)
    other = nothing_else(len(labels))
    codes: Codes = "names"
    for row, value in enumerate(map(str, labels)):
        label = expression_name(value)
        if re.fullmatch(r"-?\d+(\.0*)?", label):
            number = int(float(label))
            if number < 0:
                continue
            codes = "aff-wild2" if classes is None else "classes"
            label = code_meaning(where, number, classes)
        elif re.fullmatch(r"-?\d*\.\d+", label):
            raise DataError(f"{where} holds {value}, which is no expression code")
        if label in EXPRESSIONS:
            code[row] = EXPRESSIONS.index(label)
        elif label not in UNKNOWN and label not in _BLANK:
            other[row] = label
    if any(other) and not (code >= 0).any() and OUTSIDE.isdisjoint(other):
        some = ", ".join(sorted(set(other) - {""})[:10])
        raise DataError(f"{where}: no label is one of {', '.join(EXPRESSIONS)}; found: {some}")
    return code[places], other[places], codes


def labels_of(
    frame: pd.DataFrame,
    where: str,
    classes: tuple[str, ...] | None = None,
    units: tuple[str, ...] = ACTION_UNITS,
) -> FrameLabels:
    """Read every label column that a table has.

    Parameters
    ----------
    frame : DataFrame
        Any of ``valence``, ``arousal``, ``expression``, ``AU01`` (``AU1``, ``AU 1``) …
    where : str
        The file, for errors.
    classes : tuple of str, optional
        What expression codes mean.
    units : tuple of str
        Action units to read; others are left alone.

    Raises
    ------
    DataError
        Values that cannot be labels.
    """
    count = len(frame)
    valence_arousal = unknown(count, 2)
    found = False
    for place, name in enumerate(VALENCE_AROUSAL):
        header = column(frame, (name,))
        if header is not None:
            valence_arousal = valence_arousal if found else valence_arousal.copy()
            valence_arousal[:, place] = _checked(frame, header, where, "va")
            found = True
    activations: NDArray[np.floating[Any]] = unknown(count, len(ACTION_UNITS))
    named = {unit_name(str(header)): str(header) for header in reversed(frame.columns)}
    annotated = [unit for unit in units if unit in named]
    if annotated:
        activations = np.full((count, len(ACTION_UNITS)), np.nan, dtype=np.float16)
        for unit in annotated:
            values = _checked(frame, named[unit], where, "au")
            activations[:, ACTION_UNITS.index(unit)] = values
        found = True
    header = column(frame, _EXPRESSION_COLUMNS)
    if header is None:
        code, other, codes = np.full(count, -1, dtype=np.int8), nothing_else(count), None
    else:
        code, other, codes = expressions(frame[header], f"{where}: {header!r}", classes)
        found = True
    return FrameLabels(code, other, codes, valence_arousal, activations, found)


def boxes_of(frame: pd.DataFrame, where: str) -> NDArray[np.float32] | None:
    """Read face boxes: ``x0, y0, x1, y1``, or ``face_x, face_y, face_width, face_height``."""
    corners, sizes = ("x0", "y0", "x1", "y1"), ("facex", "facey", "facewidth", "faceheight")
    for headers in (corners, sizes):
        found = [column(frame, (name,)) for name in headers]
        given = [name for name in found if name is not None]
        if len(given) == 4:
            box = np.stack([numbers(frame[name], f"{where}: {name!r}") for name in given], axis=1)
            if headers is sizes:
                box[:, 2:] += box[:, :2]
            return box.astype(np.float32)
    return None


def _checked(
    frame: pd.DataFrame, header: str, where: str, kind: Literal["va", "au"]
) -> NDArray[np.float32]:
    place = f"{where}: {header!r}"
    return numbers_in_range(place, numbers(frame[header], place), kind)
