"""CSV files laid out as OpenFace's, with names that say what the numbers are.

OpenFace's ``AU12_r`` is an intensity from 0 to 5 and its ``AU12_c`` a decision. feie has
probabilities, so they are called ``AU12_p``: a reader that looks for intensities finds none, which
is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from feie.features.formats.own.reader import Described, FolderFormat, VideoRows
from feie.features.formats.writing.csv_text import (
    embedding_names,
    encode_videos,
    feature_arrays,
    float_arrays,
    float_rows,
    header_line,
    read_table,
)
from feie.features.formats.writing.format import Folder
from feie.features.formats.writing.plan import DumpPlan, refuse_columns
from feie.features.formats.writing.rows import VideoBatch
from feie.features.schema import ACTION_UNITS, VA_EXPR8, Schema

_META = ("frame", "face_id", "timestamp", "confidence", "success")
_PROBABILITIES = frozenset({*ACTION_UNITS, *VA_EXPR8.group("expr")})


def column_names(schema: Schema) -> list[str]:
    """Give the names of columns in the file: probabilities end in ``_p``."""
    return [f"{name}_p" if name in _PROBABILITIES else name for name in schema.columns]


def encode(batch: VideoBatch, plan: DumpPlan) -> Iterator[bytes]:
    """Write a table a video; see `Folder.encode`."""
    names = [*_META, *column_names(plan.schema), *embedding_names(plan.embedding)]
    rows = len(batch.time)
    starts = np.repeat(batch.offsets[:-1], np.diff(batch.offsets))
    assert batch.face_score is not None  # DUMP.score
    columns = [
        pa.array(np.arange(rows) - starts + 1),
        pa.array(np.zeros(rows, np.int8)),
        pa.array(batch.time),
        *float_arrays(batch.face_score[:, None], ~np.isnan(batch.face_score)),
        pa.array(batch.valid.astype(np.int8)),
        *feature_arrays(batch, batch.valid),
    ]
    return encode_videos(header_line(names), columns, batch.offsets)


def decode(path: Path, what: Described) -> VideoRows:
    """Read a table of `encode`."""
    columns, width = len(what.schema), what.embedding
    floats = [pa.float32()] * (columns + width)
    meta = [pa.int64(), pa.int64(), pa.float64(), pa.float32(), pa.int8()]
    _, _, time, score, success, *numbers = read_table(path, [*meta, *floats])
    values = float_rows(numbers, len(time))
    rows: VideoRows = {
        "affect": values[:, :columns],
        "time": time.to_numpy(zero_copy_only=False),
        "valid": success.to_numpy(zero_copy_only=False) == 1,
        "face_score": float_rows([score], len(time))[:, 0],
    }
    if width:
        rows["embedding"] = values[:, columns:].astype(np.float16)
    return rows


def _check(plan: DumpPlan) -> None:
    taken = {*_META, *embedding_names(plan.embedding)}
    # A store may hold both AU12 and, of another tool, AU12_p.
    names = column_names(plan.schema)
    taken |= {name for name in plan.schema.columns if names.count(name) > 1}
    refuse_columns(plan.schema, taken, "an OpenFace table")


DUMP = Folder(
    name="openface",
    suffix=".csv",
    layout=(
        "One CSV a video, laid out as OpenFace 2's: the rows of all frames, numbered from 1.",
        "",
        "- `frame`, `face_id` (always 0), `timestamp` (seconds), `confidence` (the detector's",
        "  score; blank without one), `success` (1 = a face was found)",
        "- `AU12_p` and the like, `happiness_p` and the like: **probabilities in [0, 1]**. They",
        "  are not OpenFace's `_r`, intensities from 0 to 5, nor its `_c`, decisions.",
        "- `valence`, `arousal`: in [-1, 1]",
        "- `emb000` and so on, if there: the extractor's embedding",
    ),
    score=True,
    check=_check,
    names=column_names,
    encode=encode,
)
FORMAT = FolderFormat(
    "feie-openface",
    "OpenFace-like tables of feie dump, probabilities as AU12_p",
    "openface",
    decode,
)
