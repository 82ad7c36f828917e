"""The arrays of a store: names, types, dimensions, units. `features/SPEC.md` is the prose of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.dtype import VariableLengthUTF8

from feie.features.schema import Schema

SPEC_VERSION = "1.1"

OK, FAILED, SUPERSEDED = "ok", "failed", "superseded"
STATUSES = (OK, FAILED, SUPERSEDED)

_WIDE_ROWS = 16_384  # 26 columns: 1.7 MB a chunk before compression
_WIDE_VALUES = 1 << 22  # of very wide features, such as 1,024 of speech, fewer rows a chunk
_NARROW_ROWS = 65_536
_VIDEO_ROWS = 4_096


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store: `shape` is what follows the growing first dimension."""

    name: str
    dtype: Any
    dims: tuple[str, ...]
    shape: tuple[int, ...] = ()
    rows: int = _NARROW_ROWS
    attributes: Mapping[str, Any] = field(default_factory=dict)


def rows_within(columns: int, most: int, values: int) -> int:
    """Give the rows that hold some number of values together; a power of two, `most` at most."""
    return min(most, 1 << max(values // max(columns, 1), 1).bit_length() - 1)


def frame_arrays(schema: Schema, embedding_dim: int = 0) -> tuple[ArraySpec, ...]:
    """Specify the arrays with one row a frame.

    Parameters
    ----------
    schema : Schema
        Columns of ``affect``.
    embedding_dim : int
        Width of ``embedding``; 0 leaves the array out.
    """
    arrays: tuple[ArraySpec, ...] = (
        ArraySpec(
            "affect",
            np.float32,
            ("frame", "column"),
            (len(schema),),
            rows_within(len(schema), _WIDE_ROWS, _WIDE_VALUES),
            {
                "columns": list(schema.columns),
                "groups": {name: list(span) for name, span in schema.groups.items()},
                "long_name": "affect vector; NaN where valid is false",
            },
        ),
        ArraySpec(
            "time",
            np.float64,
            ("frame",),
            attributes={"units": "s", "long_name": "presentation time stamp"},
        ),
        ArraySpec("valid", np.bool_, ("frame",), attributes={"long_name": "a face was found"}),
        ArraySpec(
            "face_score",
            np.float32,
            ("frame",),
            attributes={"long_name": "detector's score; NaN without one"},
        ),
        ArraySpec(
            "bbox",
            np.float32,
            ("frame", "corner"),
            (4,),
            attributes={"units": "pixel", "order": ["x0", "y0", "x1", "y1"]},
        ),
        ArraySpec(
            "landmarks",
            np.float32,
            ("frame", "point", "xy"),
            (5, 2),
            _WIDE_ROWS,
            {
                "units": "pixel",
                "order": ["left eye", "right eye", "nose", "left mouth", "right mouth"],
                "long_name": "ArcFace's five points, left and right as seen in the image",
            },
        ),
    )
    if embedding_dim:
        arrays += (
            ArraySpec(
                "embedding", np.float16, ("frame", "feature"), (embedding_dim,), _WIDE_ROWS // 4
            ),
        )
    return arrays


VIDEO_ARRAYS: tuple[ArraySpec, ...] = (
    ArraySpec("id", str, ("video",), attributes={"cf_role": "trajectory_id"}),
    ArraySpec(
        "offset",
        np.int64,
        ("video_bound",),
        attributes={"long_name": "rows of video i are offset[i]:offset[i+1] of the frame arrays"},
    ),
    ArraySpec(
        "length",
        np.int64,
        ("video",),
        attributes={"sample_dimension": "frame", "long_name": "number of frames"},
    ),
    ArraySpec("fps", np.float64, ("video",), attributes={"units": "s-1"}),
    ArraySpec("width", np.int32, ("video",), attributes={"units": "pixel"}),
    ArraySpec("height", np.int32, ("video",), attributes={"units": "pixel"}),
    ArraySpec("source", str, ("video",), attributes={"long_name": "path below the root"}),
    ArraySpec("size", np.int64, ("video",), attributes={"units": "byte"}),
    ArraySpec("mtime_ns", np.int64, ("video",), attributes={"units": "ns"}),
    ArraySpec("fingerprint", str, ("video",), attributes={"long_name": "hash of the source"}),
    ArraySpec("faces", np.float32, ("video",), attributes={"long_name": "share of valid frames"}),
    ArraySpec("status", str, ("video",), attributes={"flag_values": list(STATUSES)}),
    ArraySpec("message", str, ("video",), attributes={"long_name": "why a video failed"}),
)


def create_array(group: zarr.Group, spec: ArraySpec) -> zarr.Array[Any]:
    """Create one empty array as the specification wants it."""
    is_text = spec.dtype is str
    dtype: Any = VariableLengthUTF8() if is_text else np.dtype(spec.dtype)
    is_float = not is_text and np.issubdtype(np.dtype(spec.dtype), np.floating)
    rows = spec.rows if spec.dims[0] == "frame" else _VIDEO_ROWS
    return group.create_array(
        spec.name,
        shape=(0, *spec.shape),
        chunks=(rows, *spec.shape),
        dtype=dtype,
        fill_value=np.nan if is_float else None,
        # The checksum is what lets `feie verify` and any plain zarr reader notice a flipped bit.
        compressors=[BloscCodec(cname="lz4", shuffle="bitshuffle"), Crc32cCodec()],
        dimension_names=spec.dims,
        attributes=dict(spec.attributes),
    )


def create_store(group: zarr.Group, schema: Schema, embedding_dim: int) -> None:
    """Lay out an empty store in a new group; attributes other than these are the writer's."""
    for spec in frame_arrays(schema, embedding_dim):
        create_array(group, spec)
    videos = group.create_group("video")
    for spec in VIDEO_ARRAYS:
        create_array(videos, spec)
    offset = videos["offset"]
    assert isinstance(offset, zarr.Array)
    offset.append(np.zeros(1, np.int64))
