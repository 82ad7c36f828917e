"""Label tables as people write them: CSV in its dialects, Parquet, Excel, JSON, as text cells."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError, one_line
from feie.features.table_text import TableTextError, decode, dialect_of, is_comment

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
    lines : tuple of int
        The line of the file that each row ends in; none where a file has no lines.
    """

    path: Path
    sha256: str
    cells: pd.DataFrame
    decimal_comma: bool
    lines: tuple[int, ...] = ()

    def line(self, row: int) -> int:
        """Give the line of a row, for messages: that of the file, or the header being line 1."""
        return self.lines[row] if self.lines else row + 2

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
    """Read a table by the suffix of its file.

    Parameters
    ----------
    path : Path
        ``.parquet``; ``.xlsx`` (the first sheet; needs ``feie[excel]``); ``.json`` or ``.jsonl``
        (a list of objects, or one a line, with the same names); or else CSV (comma, semicolon,
        tab or bar; any line ends; UTF-8 or UTF-16; comments and ``sep=`` above the header).

    Raises
    ------
    LabelError
        It is not there, not readable as such, or its rows do not fit its header.
    """
    data = _read_bytes(path)
    suffix = path.suffix.lower()
    lines: tuple[int, ...] = ()
    decimal_comma = False
    if suffix in _OTHERS:
        cells = _OTHERS[suffix](path, data)
    elif what := next((what for mark, what in _FOREIGN.items() if data.startswith(mark)), ""):
        raise LabelError(f"{path} is {what}: save the sheet as CSV (UTF-8), or as .xlsx")
    else:
        cells, lines, decimal_comma = _parse_csv(path, data)
    if not len(cells):
        raise LabelError(f"{path} has a header but no rows")
    stripped: pd.DataFrame = cells.apply(lambda column: column.str.strip())
    return Table(path, hashlib.sha256(data).hexdigest(), stripped, decimal_comma, lines)


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
    return _as_text(path, table)


def _parse_excel(path: Path, data: bytes) -> pd.DataFrame:
    try:
        import openpyxl  # noqa: F401  # what pandas reads with
    except ImportError:
        raise LabelError(
            f"{path} is an Excel workbook: install feie[excel], or save the sheet as CSV (UTF-8)"
        ) from None
    try:
        table = pd.read_excel(io.BytesIO(data), engine="openpyxl", dtype=object)
    except Exception as error:  # zipfile, XML and openpyxl raise many kinds
        raise LabelError(f"{path} is no readable Excel workbook: {one_line(error)}") from None
    return _as_text(path, table.dropna(how="all"))


def _parse_json(path: Path, data: bytes) -> pd.DataFrame:
    try:
        text, _ = decode(data)
        if path.suffix.lower() == ".json" and text.lstrip()[:1] in ("[", "{"):
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except TableTextError as error:
        raise LabelError(f"{path} {error}") from None
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is no readable JSON: {one_line(error)}") from None
    plain = isinstance(rows, list) and all(
        isinstance(row, dict) and not any(isinstance(v, list | dict) for v in row.values())
        for row in rows
    )
    if not plain or not rows:
        raise LabelError(
            f"{path} is no list of labels: it wants one object a video, as "
            f'[{{"id": "a", "split": "train", "Joy": 0.5}}, …]'
        )
    return _as_text(path, pd.DataFrame(rows, dtype=object))


def _as_text(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    header = [str(c).strip() for c in table.columns]
    _check_names(path, header)
    table = table.astype(object).where(table.notna(), "").astype(str)
    table.columns = pd.Index(header)
    return table


_OTHERS: dict[str, Callable[[Path, bytes], pd.DataFrame]] = {
    ".parquet": _parse_parquet,
    ".pq": _parse_parquet,
    ".xlsx": _parse_excel,
    ".xlsm": _parse_excel,
    ".json": _parse_json,
    ".jsonl": _parse_json,
    ".ndjson": _parse_json,
}
# What such files begin with, whatever they are called.
_FOREIGN = {
    b"PK\x03\x04": "no text but a zip archive, as Excel and LibreOffice write",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"PAR1": "a Parquet file (.parquet)",
}


def _parse_csv(path: Path, data: bytes) -> tuple[pd.DataFrame, tuple[int, ...], bool]:
    try:
        dialect = dialect_of(data)
        text, _ = decode(data)
    except TableTextError as error:
        raise LabelError(f"{path} {error}") from None
    delimiter = dialect.delimiter
    lines = io.StringIO("\n".join(text.split("\n")[dialect.above :]).removeprefix("#"))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        rows = [
            (dialect.above + reader.line_num, row)
            for row in reader
            if any(cell.strip() for cell in row) and not is_comment(row, len(dialect.names))
        ]
    except csv.Error as error:
        raise LabelError(
            f"{path}: row {dialect.above + reader.line_num} cannot be read "
            f"({error}): is there a quote that is not closed?"
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
    return table, tuple(number for number, _ in rows[1:]), delimiter != ","


def _check_names(path: Path, header: Sequence[str]) -> None:
    if len(header) > _MOST_COLUMNS:
        raise LabelError(
            f"{path} has {len(header)} columns; a table of labels has {_MOST_COLUMNS} at most: "
            "leave those out that are none"
        )
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise LabelError(f"{path} has more than one column {repeated[0]!r}")
