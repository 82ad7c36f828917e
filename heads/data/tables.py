"""Label tables as people write them: CSV in its dialects, or Parquet, as stripped text cells."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError

BLANKS = {"", "nan", "na", "n/a", "none", "null", "?"}
_MOST_COLUMNS = 10_000
_DECIMAL_COMMA = re.compile(r"-?[0-9]*,[0-9]+|-?[0-9]+")


@dataclass(frozen=True)
class Table:
    """A label file as text.

    Attributes
    ----------
    path : Path
    sha256 : str
        Hex digest of the file's bytes.
    cells : pandas.DataFrame
        Stripped text, at least one row, no two columns of one name.
    decimal_comma : bool
        Whether commas are free to be decimal signs: they do not separate the cells.
    """

    path: Path
    sha256: str
    cells: pd.DataFrame
    decimal_comma: bool

    def numbers(self, column: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Read a column as numbers.

        Returns
        -------
        ndarray of float64, shape (rows,)
            NaN for blank cells and for text.
        ndarray of bool, shape (rows,)
            Whether the cell is blank.
        """
        cells = self.cells[column]
        blank = cells.str.lower().isin(BLANKS)
        if self.decimal_comma and all(map(_DECIMAL_COMMA.fullmatch, cells[~blank])):
            cells = cells.str.replace(",", ".", regex=False)
        numbers = pd.to_numeric(cells.where(~blank, ""), errors="coerce")
        return numbers.to_numpy(np.float64), blank.to_numpy(np.bool_)


def read_table(path: Path) -> Table:
    """Read a CSV (comma, semicolon or tab; any line ends) or Parquet file.

    Raises
    ------
    LabelError
        It is not there, not readable as either, or its rows do not fit its header.
    """
    data = _read_bytes(path)
    if path.suffix.lower() in (".parquet", ".pq"):
        cells, delimiter = _parse_parquet(path, data), ","
    else:
        cells, delimiter = _parse_csv(path, data)
    if not len(cells):
        raise LabelError(f"{path} has a header but no rows")
    stripped: pd.DataFrame = cells.apply(lambda column: column.str.strip())
    return Table(path, hashlib.sha256(data).hexdigest(), stripped, delimiter != ",")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LabelError(f"there is no label file {path}; name one with --labels") from None
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}") from None


def _parse_parquet(path: Path, data: bytes) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(data))
    except Exception as error:  # pyarrow's errors share no base
        raise LabelError(f"{path} is no readable Parquet file: {error}") from None
    if all(name is not None and name not in table.columns for name in table.index.names):
        table = table.reset_index()  # a named index is a column that pandas took aside
    header = [str(c).strip() for c in table.columns]
    _check_names(path, header)
    table = table.astype(object).where(table.notna(), "").astype(str)
    table.columns = pd.Index(header)
    return table


def _parse_csv(path: Path, data: bytes) -> tuple[pd.DataFrame, str]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LabelError(f"{path} is neither a UTF-8 CSV nor a .parquet file") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.lstrip("\n ").partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise LabelError(
            f"{path}: row {reader.line_num} cannot be read ({error}): is there a quote that is "
            f"not closed?"
        ) from None
    if not rows:
        raise LabelError(f"{path} is empty")
    header = [cell.strip() for cell in rows[0][1]]
    kept = [i for i, name in enumerate(header) if name]
    for number, row in rows[1:]:
        if len(row) <= kept[-1] or any(cell.strip() for cell in row[len(header) :]):
            raise LabelError(
                f"{path}: row {number} has {len(row)} cells, the header has {len(header)}"
            )
    names = [header[i] for i in kept]
    _check_names(path, names)
    cells = [[row[i] for i in kept] for _, row in rows[1:]]
    table = pd.DataFrame(cells, columns=range(len(kept)), dtype=str)
    table.columns = pd.Index(names)
    return table, delimiter


def _check_names(path: Path, header: Sequence[str]) -> None:
    if len(header) > _MOST_COLUMNS:
        raise LabelError(
            f"{path} has {len(header)} columns; a table of labels has {_MOST_COLUMNS} at most: "
            "leave those out that are none"
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise LabelError(f"{path} has more than one column {repeated[0]!r}")
