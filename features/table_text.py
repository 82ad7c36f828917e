"""Text of tables as people and tools write it: encoding, lines above the header, cells.

Only what is certain is taken; of the rest, a sentence names the line and what to do.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SAMPLE_ROWS = 20
_SAMPLE_CHARACTERS = 1 << 20


class TableTextError(ValueError):
    """Text that is no table; the message goes on after the name of the file."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Attributes
    ----------
    encoding : str
        As Python calls it; a mark at the beginning is no part of the text.
    above : int
        Lines above the header: a comment, or Excel's ``sep=;``.
    lines : int
        Lines up to the header's end.
    delimiter : str
    names : tuple of str
        Cells of the header, stripped; an empty one is kept as it is.
    first : tuple of str
        Cells of the first row below, stripped; none without.
    decimal_comma : bool
        Whether numbers in the first rows have a comma for a decimal point.
    """

    encoding: str
    above: int
    lines: int
    delimiter: str
    names: tuple[str, ...]
    first: tuple[str, ...]
    decimal_comma: bool

    @property
    def lacks_header(self) -> bool:
        """Whether the first line is a row of values.

        pandas calls columns without names 0, 1, 2, …: numbers, but a header all the same.
        """
        numbers = [name for name in self.names if NUMBER.fullmatch(name)]
        if not numbers or numbers == [str(i) for i in range(len(numbers))]:
            return False
        if len(numbers) == len([name for name in self.names if name]):
            return True
        same = len(self.names) == len(self.first) and all(
            bool(NUMBER.fullmatch(name)) == bool(NUMBER.fullmatch(cell))
            for name, cell in zip(self.names, self.first, strict=True)
        )
        return same and not all(name.isdigit() for name in numbers)


def decode(data: bytes, whole: bool = True) -> tuple[str, str]:
    """Decode text, and say of which encoding it is: UTF-8, or UTF-16 by its mark or its zeros.

    Parameters
    ----------
    data : bytes
    whole : bool
        Whether this is the whole of the text; else its last character may be cut through.

    Raises
    ------
    TableTextError
        Of any other: which letters its bytes stand for would be a guess.
    """
    encoding = "utf-8-sig"
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise TableTextError("is no text table: neither UTF-8 nor UTF-16") from None
        line = data[: error.start].count(b"\n") + 1
        raise TableTextError(
            f"is no UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}; save it as "
            f"UTF-8 (in Excel as “CSV UTF-8”)"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n"), encoding


def dialect_of(data: bytes, whole: bool = True) -> Dialect:
    """Tell how a table is written by its first lines.

    The delimiter is the one that cuts the header and the rows below into as many cells; what
    stands in quotes counts for nothing.

    Parameters
    ----------
    data : bytes
        The file, or its beginning.
    whole : bool
        See `decode`.

    Raises
    ------
    TableTextError
        It has no line, or is no text.
    """
    text, encoding = decode(data, whole)
    lines = text[:_SAMPLE_CHARACTERS].split("\n")
    above, delimiter = 0, ""
    while above < len(lines):
        line = lines[above]
        if found := _SEPARATOR_LINE.fullmatch(line):
            delimiter = found[1]
        elif line.strip() and not (line.startswith("#") and _is_comment(lines, above)):
            break
        above += 1
    if above == len(lines):
        raise TableTextError("is empty" if not data else "has no line with text in it")
    body = "\n".join(lines[above:]).removeprefix("#")
    delimiter = delimiter or _delimiter(body)
    try:
        reader = csv.reader(io.StringIO(body), delimiter=delimiter, skipinitialspace=True)
        names = tuple(cell.strip() for cell in next(reader))
        header_lines = reader.line_num
    except (csv.Error, StopIteration):
        raise TableTextError("is no CSV file: its first line holds no names") from None
    rows = _rows(body, delimiter)[1:]
    return Dialect(
        encoding=encoding,
        above=above,
        lines=above + header_lines,
        delimiter=delimiter,
        names=names,
        first=tuple(cell.strip() for cell in rows[0]) if rows else (),
        decimal_comma=_decimal_comma(rows, delimiter),
    )


def cure_of(cell: str) -> str:
    """Say how a cell that is no number would be one; empty where nobody knows."""
    if cell.endswith("%"):
        return "; write a number without the percent sign"
    if DECIMAL_COMMA.fullmatch(cell):
        return "; write a point for the decimal comma"
    return ""


def is_comment(row: Sequence[str], width: int) -> bool:
    """Tell a row of cells that is a comment: it begins with # and fills no row."""
    filled = [cell for cell in row if cell.strip()]
    return bool(filled) and row[0].startswith("#") and len(filled) < width


def _is_comment(lines: Sequence[str], place: int) -> bool:
    """Tell a comment from a header that begins with #, which fits the numbers below it."""
    below = next((line for line in lines[place + 1 :] if line.strip()), "")
    if below.startswith("#"):
        return True
    delimiter = _delimiter(f"{lines[place]}\n{below}")
    header, row = (_rows(line, delimiter)[:1] for line in (lines[place], below))
    if not row or len(header[0]) < 2 or len(header[0]) != len(row[0]):
        return True
    return not any(NUMBER.fullmatch(cell.strip()) for cell in row[0])


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """Give the first rows that have anything in them."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row) and not (rows and is_comment(row, len(rows[0]))):
                rows.append(row)
            if len(rows) > _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # whoever reads the whole of it says so
    return rows


def _delimiter(text: str) -> str:
    plain = _QUOTED.sub("", text.partition("\n")[0])

    def fits(delimiter: str) -> tuple[float, int]:
        header, *rows = _rows(text, delimiter) or [[]]
        width = len(header)
        same = [len(row) == width or (not any(cell.strip() for cell in row[width:]) and
                len(row) > width) for row in rows]  # fmt: skip
        share = sum(same) / len(same) if same else 1.0
        return (share if width > 1 else 0.0), plain.count(delimiter)

    return max(_DELIMITERS, key=fits)


def _decimal_comma(rows: Sequence[Sequence[str]], delimiter: str) -> bool:
    cells = [cell.strip() for row in rows for cell in row]
    commas = any(DECIMAL_COMMA.fullmatch(cell) for cell in cells)
    points = any(NUMBER.fullmatch(cell) and "." in cell for cell in cells)
    return delimiter != "," and commas and not points
