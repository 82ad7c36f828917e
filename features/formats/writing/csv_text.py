"""Tables of numbers as CSV text: many videos at a time, float32 to the last bit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from numpy.typing import NDArray

from feie.features.errors import VideoError, one_line
from feie.features.formats.writing.rows import VideoBatch

_NO_HEADER = pc_csv.WriteOptions(include_header=False, quoting_style="none")
# Arrow writes floats of this range without an exponent.
_PLAIN = (1e-3, 1e10)


def header_line(names: Sequence[str]) -> bytes:
    """Give the first line of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def encode_videos(
    header: bytes, columns: Sequence[pa.Array], offsets: NDArray[np.int64]
) -> Iterator[bytes]:
    """Write rows of several videos at once, and cut the text into one table a video.

    One call for some 200 videos takes half the time of one a video, and a tenth of pandas'
    `to_csv`. Floats get the fewest digits that give the same float32 or float64 again.

    Parameters
    ----------
    header : bytes
        First line of each table.
    columns : sequence of pyarrow.Array
        Of equal length; no text with quotes, commas or line ends. Nulls become blanks.
    offsets : ndarray of int64, shape (videos + 1,)
        Rows of video i are ``offsets[i] : offsets[i + 1]``.
    """
    table = pa.table(list(columns), names=[str(i) for i in range(len(columns))])
    sink = pa.BufferOutputStream()
    pc_csv.write_csv(table, sink, _NO_HEADER)
    text = sink.getvalue()
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    bounds = np.concatenate([[0], ends])[offsets]
    view = memoryview(text)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield header + view[start:stop]


def float_arrays(values: NDArray[np.float32], shown: NDArray[np.bool_]) -> list[pa.Array]:
    """Give each column of an array (n, c), null in the rows that are not shown."""
    bits = pa.py_buffer(np.packbits(shown, bitorder="little"))
    columns = np.ascontiguousarray(values.T, np.float32)
    return [
        pa.Array.from_buffers(pa.float32(), len(shown), [bits, pa.py_buffer(column)])
        for column in columns
    ]


def feature_arrays(batch: VideoBatch, shown: NDArray[np.bool_]) -> list[pa.Array]:
    """Give the affect vector's columns, then those of the embedding."""
    arrays = float_arrays(batch.affect, shown)
    if batch.embedding is not None:
        arrays += float_arrays(batch.embedding.astype(np.float32), shown)
    return arrays


def embedding_names(width: int) -> list[str]:
    """Name the columns of an embedding: ``emb000``, ``emb001`` and so on."""
    return [f"emb{i:03d}" for i in range(width)]


def milliseconds(time: NDArray[np.float64]) -> pa.Array:
    """Write seconds as decimal milliseconds that `seconds_of` turns into the same float64.

    Not all float64 are a thousandth of a float64, so that some take one or two digits more than
    a float64 needs.
    """
    with np.errstate(over="ignore"):
        thousandfold = time * 1000.0
    low, high = _PLAIN
    size = np.abs(thousandfold)
    plain = (size == 0) | ((size >= low) & (size < high))
    texts = pa.array(np.where(plain, thousandfold, 0.0)).cast(pa.string())
    inexact = np.flatnonzero(~plain | (seconds_of(texts) != time))
    if not len(inexact):
        return texts
    every = texts.to_pylist()
    for row in inexact.tolist():
        every[row] = format(Decimal(repr(float(time[row]))).scaleb(3), "f")
    return pa.array(every, pa.string())


def seconds_of(texts: pa.Array) -> NDArray[np.float64]:
    """Turn decimal milliseconds into the nearest float64 of seconds."""
    shifted = pc.binary_join_element_wise(texts, "e-3", "")
    return np.asarray(shifted.cast(pa.float64()))


def read_table(path: Path, types: Sequence[pa.DataType]) -> list[pa.Array]:
    """Read a table by the places of its columns; blanks are null.

    Raises
    ------
    VideoError
        It cannot be read, or has other columns.
    """
    names = [str(i) for i in range(len(types))]
    try:
        table = pc_csv.read_csv(
            path,
            read_options=pc_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            convert_options=pc_csv.ConvertOptions(
                column_types=dict(zip(names, types, strict=True)), null_values=["", "nan"]
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return [pa.array([], type=kind) for kind in types]
        raise VideoError("broken", f"{path.name}: {one_line(error)}") from None
    except OSError as error:
        raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None
    return [column.combine_chunks() for column in table.columns]


def float_rows(columns: Sequence[pa.Array], rows: int) -> NDArray[np.float32]:
    """Put columns side by side, shape (rows, columns); null becomes NaN."""
    values = np.empty((rows, len(columns)), np.float32)
    for place, column in enumerate(columns):
        values[:, place] = column.to_numpy(zero_copy_only=False)
    return values
