"""MuSe's feature folders: one CSV a video, `timestamp` (ms), `segment_id`, then features."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feie.features.formats.own.reader import Described, FolderFormat, VideoRows
from feie.features.formats.writing.csv_text import (
    embedding_names,
    encode_videos,
    feature_arrays,
    float_rows,
    header_line,
    milliseconds,
    read_table,
    seconds_of,
)
from feie.features.formats.writing.format import Folder
from feie.features.formats.writing.plan import DumpPlan, refuse_columns
from feie.features.formats.writing.rows import VideoBatch

_META = ("timestamp", "segment_id")
_NOT_IN_CSV = re.compile(r'[\x00-\x1f\x7f",%]')


def encode(batch: VideoBatch, plan: DumpPlan) -> Iterator[bytes]:
    """Write a table a video; see `Folder.encode`."""
    names = [*_META, *plan.schema.columns, *embedding_names(plan.embedding)]
    batch, shown = _without_gaps(batch, plan.missing)
    segments = [_segment(video.video_id) for video in batch.videos]
    columns = [
        milliseconds(batch.time),
        pa.array(np.repeat(np.array(segments, object), np.diff(batch.offsets)), pa.string()),
        *feature_arrays(batch, shown),
    ]
    return encode_videos(header_line(names), columns, batch.offsets)


def _segment(video_id: str) -> str:
    """Give the id as a text that needs no quotes in a CSV file; nobody finds a video by it."""
    return _NOT_IN_CSV.sub(lambda found: quote(found[0], safe=""), video_id)


def _without_gaps(batch: VideoBatch, missing: str) -> tuple[VideoBatch, NDArray[np.bool_]]:
    """Fill the rows without a face, or drop them; and say which rows are to be shown."""
    valid = batch.valid
    if missing == "keep":
        return batch, valid
    if missing == "drop":
        counted = np.concatenate([[0], np.cumsum(valid)])
        dropped = VideoBatch(
            batch.videos,
            counted[batch.offsets],
            affect=batch.affect[valid],
            time=batch.time[valid],
            valid=valid[valid],
            embedding=None if batch.embedding is None else batch.embedding[valid],
        )
        return dropped, dropped.valid
    source = np.where(valid, np.arange(len(valid)), -1)
    if missing == "hold":
        _hold(source, batch.offsets)
    filled = replace(
        batch,
        affect=_taken(batch.affect, source),
        embedding=None if batch.embedding is None else _taken(batch.embedding, source),
    )
    return filled, np.ones(len(valid), np.bool_)


def _hold(source: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
    """Put the last row with a face, else the first of its video, in place of -1."""
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        rows = source[start:stop]
        with_face = np.flatnonzero(rows >= 0)
        if len(with_face):
            rows[: with_face[0]] = rows[with_face[0]]
            np.maximum.accumulate(rows, out=rows)


def _taken(array: NDArray[Any], source: NDArray[np.int64]) -> NDArray[Any]:
    taken = array[source]
    taken[source < 0] = 0
    return taken


def decode(path: Path, what: Described) -> VideoRows:
    """Read a table of `encode`."""
    columns, width = len(what.schema), what.embedding
    floats = [pa.float32()] * (columns + width)
    stamps, _, *numbers = read_table(path, [pa.string(), pa.string(), *floats])
    values = float_rows(numbers, len(stamps))
    rows: VideoRows = {
        "affect": values[:, :columns],
        "time": seconds_of(stamps),
        "valid": ~np.isnan(values[:, 0]),
    }
    if width:
        rows["embedding"] = values[:, columns:].astype(np.float16)
    return rows


def _check(plan: DumpPlan) -> None:
    refuse_columns(plan.schema, {*_META, *embedding_names(plan.embedding)}, "a MuSe table")


DUMP = Folder(
    name="muse",
    suffix=".csv",
    layout=(
        "A feature folder as the scripts of the MuSe challenges read it: one CSV a video, named by",
        "its id. Two columns of metadata, then the features, one row a frame.",
        "",
        "- `timestamp`: milliseconds; `segment_id`: the video's id",
        "- `emb000` and so on, if there: the extractor's embedding",
        "",
        "MuSe's loaders hand rows to the network as they are: blank cells become NaN there, and so",
        "does the loss. Dump with `--missing drop`, `hold` or `zero` for them.",
    ),
    missing=True,
    check=_check,
    encode=encode,
)
FORMAT = FolderFormat("feie-muse", "a MuSe feature folder of feie dump", "muse", decode)
