"""Tables of one row a frame, CSV or Parquet, read column by column and never all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from feie.features.errors import VideoError
from feie.features.table_text import TableTextError, cure_of, dialect_of

SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".pq"})
_PARQUET = frozenset({".parquet", ".pq"})
_HEADER_BYTES = (1 << 16, 8 << 20)  # at first, and where no header ends in so many
_BLOCK_BYTES = 4 << 20  # a row must fit: the widest known, py-feat's with meshes, has 40 kB
_BATCH_ROWS = 65_536
# What C++, R, Excel and pandas write where there is no number.
_NOTHING = [
    *("", "NaN", "nan", "NAN", "NA", "N/A", "n/a", "null", "NULL", "None", "none"),
    *("-nan", "nan(ind)", "-nan(ind)", "1.#QNAN", "-1.#IND", "#N/A"),
]
_BAD_CELL = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?.*?invalid value '(.*)'", re.DOTALL)
_BAD_ROW = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+)")


@dataclass(frozen=True)
class Header:
    """The columns of a table.

    Attributes
    ----------
    names : tuple of str
        Stripped of blanks; an empty one is kept as it is.
    delimiter : str
        Between the cells of a CSV file; empty for Parquet.
    encoding : str
    lines : int
        Of a CSV file, up to the end of the header.
    decimal_comma : bool
    """

    names: tuple[str, ...]
    delimiter: str
    encoding: str = "utf8"
    lines: int = 1
    decimal_comma: bool = False


@dataclass(frozen=True)
class Columns:
    """Some rows of some columns.

    Attributes
    ----------
    numbers : dict of str to ndarray of float64, shape (rows,)
        NaN where a cell is empty.
    words : dict of str to ndarray of str objects, shape (rows,)
    rows : int
    """

    numbers: dict[str, NDArray[np.float64]]
    words: dict[str, NDArray[np.object_]]
    rows: int

    def take(self, rows: slice) -> Columns:
        """Give a run of the rows."""
        start, stop, _ = rows.indices(self.rows)
        return Columns(
            {name: values[rows] for name, values in self.numbers.items()},
            {name: values[rows] for name, values in self.words.items()},
            stop - start,
        )


def join(parts: Sequence[Columns]) -> Columns:
    """Lay the rows of several parts one after another; all have the same columns."""
    if len(parts) == 1:
        return parts[0]
    return Columns(
        {name: np.concatenate([p.numbers[name] for p in parts]) for name in parts[0].numbers},
        {name: np.concatenate([p.words[name] for p in parts]) for name in parts[0].words},
        sum(p.rows for p in parts),
    )


def read_header(path: Path) -> Header:
    """Read the names of a table's columns.

    Raises
    ------
    VideoError
        The file is empty, gone, no table, or begins with numbers.
    """
    if path.suffix.lower() in _PARQUET:
        with _reading(path):
            names = pa_parquet.read_schema(path).names
        return Header(tuple(str(name).strip() for name in names), "")
    with _reading(path), path.open("rb") as file:
        data = file.read(_HEADER_BYTES[0])
        if data.count(b"\n") < 2:
            data += file.read(_HEADER_BYTES[1])
        whole = not file.read(1)
    try:
        dialect = dialect_of(data, whole)
    except TableTextError as error:
        reason = "broken" if data.strip() else "empty"
        raise VideoError(reason, f"{path.name} {error}") from None
    if dialect.lacks_header:
        raise VideoError(
            "broken",
            f"{path.name} begins with numbers: its first line must name the columns",
        )
    encoding = "utf8" if dialect.encoding == "utf-8-sig" else dialect.encoding
    return Header(dialect.names, dialect.delimiter, encoding, dialect.lines, dialect.decimal_comma)


def read_batches(
    path: Path, header: Header, numbers: Sequence[str], words: Sequence[str] = ()
) -> Iterator[Columns]:
    """Read some columns, a few thousand rows at a time.

    Parameters
    ----------
    path : Path
    header : Header
        Of this file.
    numbers, words : sequence of str
        Columns to read as numbers and as text.

    Raises
    ------
    VideoError
        A column is not there or stands twice, a row is too short or too long, a cell holds no
        number; the message says which.
    """
    for name in (*numbers, *words):
        if header.names.count(name) != 1:
            how = "has no column" if name not in header.names else "has more than one column"
            raise VideoError("broken", f"{path.name} {how} {name}")
    batches = _parquet if not header.delimiter else _csv
    with _reading(path, header):
        for batch in batches(path, header, numbers, words):
            columns = {
                name: _as_numbers(path, name, column)
                for name, column in zip(numbers, batch.columns, strict=False)
            }
            texts = {
                name: _as_words(column)
                for name, column in zip(words, batch.columns[len(numbers) :], strict=True)
            }
            yield Columns(columns, texts, batch.num_rows)


def _csv(
    path: Path, header: Header, numbers: Sequence[str], words: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    places = [str(header.names.index(name)) for name in (*numbers, *words)]
    types = [pa.float64()] * len(numbers) + [pa.string()] * len(words)
    with pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(
            use_threads=False,
            block_size=_BLOCK_BYTES,
            # By place: names may repeat among the columns that nobody asks for.
            column_names=[str(i) for i in range(len(header.names))],
            skip_rows=header.lines,
            encoding=header.encoding,
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=header.delimiter, invalid_row_handler=_comments_skipped
        ),
        convert_options=pa_csv.ConvertOptions(
            include_columns=places,
            column_types=dict(zip(places, types, strict=True)),
            null_values=_NOTHING,
            strings_can_be_null=True,
            decimal_point="," if header.decimal_comma else ".",
        ),
    ) as reader:
        yield from reader


def _comments_skipped(row: pa_csv.InvalidRow) -> str:
    return "skip" if row.text.startswith("#") else "error"


def _parquet(
    path: Path, header: Header, numbers: Sequence[str], words: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with pa_parquet.ParquetFile(path) as file:
        stored = {name.strip(): name for name in file.schema_arrow.names}
        wanted = [stored[name] for name in (*numbers, *words)]
        for batch in file.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
            yield batch.select(wanted)


def _as_numbers(path: Path, name: str, column: pa.Array) -> NDArray[np.float64]:
    if not pa.types.is_floating(column.type):
        try:
            column = column.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise VideoError(
                "broken", f"{path.name}: column {name} holds {column.type}, not numbers"
            ) from None
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)


def _as_words(column: pa.Array) -> NDArray[np.object_]:
    words = column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
    return np.array([str(word).strip() for word in words], object)


@contextmanager
def _reading(path: Path, header: Header | None = None) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one sentence."""
    try:
        yield
    except VideoError:
        raise
    except OSError as error:
        # pyarrow's own OSErrors carry long messages and no number.
        why = error.strerror or "it is damaged"
        raise VideoError("broken", f"{path.name} cannot be read: {why}") from None
    except (pa.ArrowException, ValueError) as error:
        raise VideoError("broken", _explain(path.name, header, str(error))) from None


def _explain(name: str, header: Header | None, message: str) -> str:
    if header and (found := _BAD_CELL.search(message)):
        place, row, cell = found.groups()
        shown = cell if len(cell) <= 30 else f"{cell[:30]}…"
        where = f", row {row}" if row else ""
        return (
            f"{name}{where}: column {header.names[int(place)]} holds {shown!r}, which is no number"
            f"{cure_of(cell)}"
        )
    if found := _BAD_ROW.search(message):
        row, wanted, got = found.groups()
        where = f", row {row}" if row else ""
        return (
            f"{name}{where}: {got} cells under {wanted} column names; was the file cut off while "
            f"it was written?"
        )
    if "UTF8" in message or "codec can't decode" in message:
        return f"{name} has bytes that are no UTF-8; save it as UTF-8 (in Excel as “CSV UTF-8”)"
    return f"{name} is no readable table: {(message.splitlines() or ['?'])[0][:150]}"
