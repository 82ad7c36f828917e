"""One HDF5 file: the arrays of all videos one after another, and their offsets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from feie.features.errors import VideoError, one_line
from feie.features.files import json_object
from feie.features.formats.own.reader import Described, OneFileFormat, VideoRows, described
from feie.features.formats.writing.format import OneFile
from feie.features.formats.writing.hdf5_file import DiskFile
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import GEOMETRY, VideoBatch
from feie.features.hdf5 import member

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises where bytes have changed."""

_TEXT = h5py.string_dtype()

SHAPES: dict[str, tuple[int, ...]] = {
    "time": (),
    "valid": (),
    "face_score": (),
    "bbox": (4,),
    "landmarks": (5, 2),
}
UNITS = {"time": "s", "bbox": "pixel", "landmarks": "pixel"}


def array_shapes(plan: DumpPlan) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Give what follows the rows in each array of a dump's videos, and its type."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "affect": ((len(plan.schema),), np.dtype(np.float32)),
        "time": ((), np.dtype(np.float64)),
        "valid": ((), np.dtype(np.uint8)),
    }
    if plan.geometry:
        found |= {name: (SHAPES[name], np.dtype(np.float32)) for name in GEOMETRY}
    if plan.embedding:
        found["embedding"] = ((plan.embedding,), np.dtype(np.float16))
    return found


def write_description(file: h5py.File, plan: DumpPlan) -> None:
    """Write what the file says of itself, and the index of the videos."""
    file.create_dataset("feie", data=json.dumps(plan.description()), dtype=_TEXT)
    file.create_dataset("README", data=plan.sheet, dtype=_TEXT)
    file.create_dataset("columns", data=list(plan.schema.columns), dtype=_TEXT)
    index = file.create_group("video")
    table = plan.videos_table()
    index.create_dataset("id", data=table["id"], dtype=_TEXT, shape=(len(plan.videos),))
    index.create_dataset("offset", data=np.array(plan.offsets(), np.int64))
    fps = [np.nan if rate is None else rate for rate in table["fps"]]
    index.create_dataset("fps", data=np.array(fps, np.float64))
    for name in ("width", "height"):
        index.create_dataset(name, data=np.array(table[name], np.int32))


class Hdf5Writer:
    """See `FileWriter`; the arrays lie in one piece each, so that any row is one read away."""

    def __init__(self, path: Path, plan: DumpPlan) -> None:
        self._disk = DiskFile(path)
        self._file = self._disk.hdf5()
        write_description(self._file, plan)
        for name, (shape, dtype) in array_shapes(plan).items():
            made = self._file.create_dataset(name, shape=(plan.frames, *shape), dtype=dtype)
            if name in UNITS:
                made.attrs["units"] = UNITS[name]
        self._at = 0

    def write(self, batch: VideoBatch) -> None:
        """See `FileWriter.write`."""
        stop = self._at + len(batch.time)
        for name, values in batch.arrays().items():
            self._file[name][self._at : stop] = values
        self._at = stop
        self._disk.refuse_error()

    def close(self) -> None:
        """See `FileWriter.close`."""
        self._file.close()
        self._disk.close()
        self._disk.refuse_error()


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a dump for reading.

    Raises
    ------
    VideoError
        It is no readable HDF5 file, or something in it is not as it was written.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGE as error:
        raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None


def read_description(file: h5py.File) -> Described:
    """Read what `write_description` wrote."""
    frames = np.diff(np.asarray(member(file, "video/offset"), np.int64))
    table = {
        "id": member(file, "video/id").asstr()[:].tolist(),
        "frames": frames.tolist(),
        **{n: np.asarray(member(file, f"video/{n}")).tolist() for n in ("fps", "width", "height")},
    }
    return described(json_object(_text(file)), table)


def _text(file: h5py.File) -> str:
    """Give what the file says of itself."""
    found = member(file, "feie")
    if not isinstance(found, h5py.Dataset) or found.shape != ():
        raise ValueError("its data set feie is no text")
    return str(found.asstr()[()])


class _Reader:
    """See `dump_reader.FileReader`."""

    def describe(self, path: Path) -> Described:
        with opened(path) as file:
            return read_description(file)

    def videos(self, path: Path, what: Described, wanted: list[int]) -> Iterator[VideoRows]:
        names = what.array_names()
        with opened(path) as file:
            for number in wanted:
                rows = slice(what.offsets[number], what.offsets[number + 1])
                yield {name: np.asarray(member(file, name)[rows]) for name in names}


def is_hdf5_dump(path: Path, format_name: str) -> bool:
    """Tell whether a file is a dump of this format."""
    try:
        with h5py.File(path, "r") as file:
            return bool(json_object(_text(file))["format"] == format_name)
    except DAMAGE:
        return False


DUMP = OneFile(
    name="hdf5",
    suffix=".h5",
    layout=(
        "One HDF5 file. Rows of all videos lie one after another; those of video i are",
        "`video/offset[i]` to `video/offset[i + 1]`.",
        "",
        "- `affect` float32 (frames, columns); names of the columns in `columns`",
        "- `time` float64 (frames), seconds; `valid` uint8 (frames), 1 = a face was found",
        "- `video/id`, `video/offset`, `video/fps`, `video/width`, `video/height`",
        "- `feie`: provenance as JSON; `README`: this text",
    ),
    geometry=True,
    create=Hdf5Writer,
)
FORMAT = OneFileFormat(
    "feie-hdf5",
    "one HDF5 file of feie dump",
    lambda path: is_hdf5_dump(path, "hdf5"),
    _Reader(),
)
