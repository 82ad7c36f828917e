"""One safetensors file: the arrays of all videos one after another, and their offsets.

The format is a length, a JSON header and the bytes of the tensors. It is written here and not by
its library, because that takes all tensors in memory at once.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from feie.features.errors import VideoError, one_line
from feie.features.files import json_object, new_file
from feie.features.formats.own.hdf5 import array_shapes
from feie.features.formats.own.reader import Described, OneFileFormat, VideoRows, described
from feie.features.formats.writing.format import OneFile
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import VideoBatch

_NAMES = {"f8": "F64", "i8": "I64", "f4": "F32", "f2": "F16", "b1": "BOOL"}
_LONGEST_HEADER = 100_000_000  # what readers of the format accept


class SafetensorsWriter:
    """See `FileWriter`."""

    def __init__(self, path: Path, plan: DumpPlan) -> None:
        shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            name: ((plan.frames, *shape), np.dtype(np.bool_) if name == "valid" else dtype)
            for name, (shape, dtype) in array_shapes(plan).items()
        }
        shapes["offset"] = ((len(plan.videos) + 1,), np.dtype(np.int64))
        header: dict[str, Any] = {
            "__metadata__": {
                "feie": json.dumps(plan.description()),
                "columns": json.dumps(list(plan.schema.columns)),
                "videos": json.dumps(plan.videos_table()),
                "README": plan.sheet,
            }
        }
        self._places: dict[str, int] = {}
        at = 0
        # The widest types first, so that each tensor is aligned.
        for name, (shape, dtype) in sorted(shapes.items(), key=lambda item: -item[1][1].itemsize):
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            header[name] = {
                "dtype": _NAMES[dtype.str[1:]],
                "shape": list(shape),
                "data_offsets": [at, at + size],
            }
            self._places[name] = at
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > _LONGEST_HEADER:
            raise VideoError("too-large", "so many videos do not fit the header of safetensors")
        self._file = new_file(path)
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._places = {name: 8 + len(text) + place for name, place in self._places.items()}
        self._file.truncate(8 + len(text) + at)
        self._put("offset", np.array(plan.offsets(), np.int64))

    def _put(self, name: str, values: np.ndarray[Any, Any]) -> None:
        self._file.seek(self._places[name])
        self._file.write(values.tobytes())
        self._places[name] += values.nbytes

    def write(self, batch: VideoBatch) -> None:
        """See `FileWriter.write`."""
        for name, values in batch.arrays().items():
            self._put(name, values)

    def close(self) -> None:
        """See `FileWriter.close`."""
        self._file.close()


class _Reader:
    """See `dump_reader.FileReader`."""

    def describe(self, path: Path) -> Described:
        try:
            with safe_open(path, "numpy") as file:
                said = file.metadata() or {}
                return described(json_object(said["feie"]), json_object(said["videos"]))
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None

    def videos(self, path: Path, what: Described, wanted: list[int]) -> Iterator[VideoRows]:
        try:
            with safe_open(path, "numpy") as file:
                parts = {name: file.get_slice(name) for name in what.array_names()}
                for number in wanted:
                    rows = what.offsets[number], what.offsets[number + 1]
                    yield {name: _slice(part, *rows) for name, part in parts.items()}
        except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
            raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None


def _slice(part: Any, start: int, stop: int) -> NDArray[Any]:
    if start < stop:
        return np.asarray(part[start:stop])
    # The library takes no empty slice at the end.
    dtype = next(code for code, name in _NAMES.items() if name == part.get_dtype())
    return np.empty((0, *part.get_shape()[1:]), dtype)


def _known(path: Path) -> bool:
    try:
        with safe_open(path, "numpy") as file:
            return "feie" in (file.metadata() or {}) and "videos" in (file.metadata() or {})
    except (OSError, ValueError, SafetensorError):
        return False


DUMP = OneFile(
    name="safetensors",
    suffix=".safetensors",
    layout=(
        "One safetensors file. Rows of all videos lie one after another; those of video i are",
        "`offset[i]` to `offset[i + 1]`.",
        "",
        "- tensors `affect` F32 (frames, columns), `time` F64 (frames, seconds), `valid` BOOL",
        "  (frames), `offset` I64 (videos + 1)",
        "- metadata, JSON: `columns`, `videos` (id, frames, fps, width, height, a list each),",
        "  `feie` (provenance); and `README`, this text",
    ),
    geometry=True,
    create=SafetensorsWriter,
)
FORMAT = OneFileFormat("feie-safetensors", "one safetensors file of feie dump", _known, _Reader())
