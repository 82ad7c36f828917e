"""One tidy Parquet table: a row a frame, a column a number."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feie.features.errors import VideoError, one_line
from feie.features.files import json_object
from feie.features.formats.own.reader import Described, OneFileFormat, VideoRows, described
from feie.features.formats.writing.csv_text import float_arrays, float_rows
from feie.features.formats.writing.format import OneFile
from feie.features.formats.writing.plan import DumpPlan, refuse_columns
from feie.features.formats.writing.rows import VideoBatch

_META = ("video_id", "frame", "time", "valid")
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
GEOMETRY_NAMES = {
    "face_score": ("face_score",),
    "bbox": ("face_x0", "face_y0", "face_x1", "face_y1"),
    "landmarks": tuple(f"{point}_{axis}" for point in _POINTS for axis in "xy"),
}
_EMBEDDING = "embedding"


def table_schema(plan: DumpPlan) -> pa.Schema:
    """Give names and types of the table's columns, and what the file says of itself."""
    fields = [
        ("video_id", pa.dictionary(pa.int32(), pa.string())),
        ("frame", pa.int32()),
        ("time", pa.float64()),
        ("valid", pa.bool_()),
        *((name, pa.float32()) for name in plan.schema.columns),
    ]
    if plan.geometry:
        fields += [(name, pa.float32()) for names in GEOMETRY_NAMES.values() for name in names]
    if plan.embedding:
        fields.append((_EMBEDDING, pa.list_(pa.float32(), plan.embedding)))
    said = {
        "feie": json.dumps(plan.description()),
        "feie_videos": json.dumps(plan.videos_table()),
        "README": plan.sheet,
    }
    return pa.schema(fields, metadata=said)


class ParquetWriter:
    """See `FileWriter`; a row group a batch."""

    def __init__(self, path: Path, plan: DumpPlan) -> None:
        self._schema = table_schema(plan)
        known = ["video_id", "frame", "time"]
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            compression_level=1,
            # Floats of a network hardly ever repeat.
            use_dictionary=["video_id"],
            write_statistics=known,
        )

    def write(self, batch: VideoBatch) -> None:
        """See `FileWriter.write`."""
        self._writer.write_table(pa.table(_columns(batch), schema=self._schema))

    def close(self) -> None:
        """See `FileWriter.close`."""
        self._writer.close()


def _columns(batch: VideoBatch) -> list[pa.Array]:
    lengths = np.diff(batch.offsets)
    numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    ids = pa.array([video.video_id for video in batch.videos], pa.string())
    frame = np.arange(len(batch.time)) - np.repeat(batch.offsets[:-1], lengths)
    columns = [
        pa.DictionaryArray.from_arrays(pa.array(numbers), ids),
        pa.array(frame.astype(np.int32)),
        pa.array(batch.time),
        pa.array(batch.valid),
        *float_arrays(batch.affect, batch.valid),
    ]
    for name in GEOMETRY_NAMES:
        values = getattr(batch, name)
        if values is not None:
            flat = values.reshape(len(values), len(GEOMETRY_NAMES[name]))
            columns += [pa.array(column, from_pandas=True) for column in flat.T]
    if batch.embedding is not None:
        flat = pa.array(batch.embedding.astype(np.float32).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, batch.embedding.shape[1]))
    return columns


class _Groups:
    """Rows of a table by ranges; the row group that was read last is kept."""

    def __init__(self, file: pq.ParquetFile, columns: list[str]) -> None:
        self._file = file
        self._columns = columns
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = [0, *np.cumsum(rows, dtype=np.int64).tolist()]
        self._number = -1
        self._table: pa.Table | None = None

    def read(self, start: int, stop: int) -> pa.Table:
        parts = [self._load(max(0, bisect_right(self._starts, start) - 1), start, stop)]
        at = start + parts[0].num_rows
        while at < stop:
            parts.append(self._load(bisect_right(self._starts, at) - 1, at, stop))
            at += parts[-1].num_rows
        return pa.concat_tables(parts)

    def _load(self, number: int, start: int, stop: int) -> pa.Table:
        if number >= self._file.num_row_groups:
            if start == stop:
                return self._file.schema_arrow.empty_table().select(self._columns)
            raise ValueError(f"it ends at row {start}")
        if number != self._number or self._table is None:
            self._table = self._file.read_row_group(number, columns=self._columns)
            self._number = number
        first = self._starts[number]
        return self._table.slice(start - first, min(stop, self._starts[number + 1]) - start)


class _Reader:
    """See `dump_reader.FileReader`."""

    def describe(self, path: Path) -> Described:
        try:
            said = pq.read_schema(path).metadata or {}
            return described(json_object(said[b"feie"]), json_object(said[b"feie_videos"]))
        except (OSError, KeyError, ValueError, TypeError) as error:  # pyarrow's are ValueErrors
            raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None

    def videos(self, path: Path, what: Described, wanted: list[int]) -> Iterator[VideoRows]:
        geometry = GEOMETRY_NAMES if what.geometry else {}
        names = ["time", "valid", *what.schema.columns]
        names += [name for group in geometry.values() for name in group]
        names += [_EMBEDDING] if what.embedding else []
        try:
            with pq.ParquetFile(path) as file:
                if file.metadata.num_rows != what.offsets[-1]:
                    raise ValueError(
                        f"it has {file.metadata.num_rows} rows, its index more or less"
                    )
                groups = _Groups(file, names)
                for number in wanted:
                    table = groups.read(what.offsets[number], what.offsets[number + 1])
                    yield _rows(table.combine_chunks(), what, geometry)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None


def _rows(table: pa.Table, what: Described, geometry: Mapping[str, tuple[str, ...]]) -> VideoRows:
    def floats(names: tuple[str, ...]) -> NDArray[np.float32]:
        return float_rows([table[name] for name in names], table.num_rows)

    rows: VideoRows = {
        "affect": floats(what.schema.columns),
        "time": table["time"].to_numpy(),
        "valid": table["valid"].to_numpy(),
    }
    for name, columns in geometry.items():
        shape: tuple[Any, ...] = {"face_score": (-1,), "landmarks": (-1, 5, 2)}.get(name, (-1, 4))
        rows[name] = floats(columns).reshape(shape)
    if what.embedding:
        flat = table[_EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        rows["embedding"] = flat.reshape(-1, what.embedding).astype(np.float16)
    return rows


def _known(path: Path) -> bool:
    try:
        return b"feie_videos" in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):
        return False


def _check(plan: DumpPlan) -> None:
    taken = {*_META, _EMBEDDING, *(n for names in GEOMETRY_NAMES.values() for n in names)}
    refuse_columns(plan.schema, taken, "a tidy table")


DUMP = OneFile(
    name="parquet",
    suffix=".parquet",
    layout=(
        "One tidy Parquet table, a row a frame.",
        "",
        "- `video_id`, `frame` (from 0), `time` (seconds), `valid` (a face was found), then the",
        "  columns as float32; null where no face was found",
        "- `embedding`, if there: a list of float32 a row",
        "- key-value metadata of the file: `feie` (provenance, JSON), `feie_videos` (id, frames,",
        "  fps, width, height, a list each), `README` (this text)",
    ),
    geometry=True,
    batch_rows=131_072,
    check=_check,
    create=ParquetWriter,
)
FORMAT = OneFileFormat("feie-parquet", "a tidy Parquet table of feie dump", _known, _Reader())
