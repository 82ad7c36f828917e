"""One HDF5 file with a group a video, as `file["videos/clips/a/affect"]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feie.features.formats.own.hdf5 import (
    UNITS,
    is_hdf5_dump,
    opened,
    read_description,
    write_description,
)
from feie.features.formats.own.reader import Described, OneFileFormat, VideoRows
from feie.features.formats.writing.format import OneFile
from feie.features.formats.writing.hdf5_file import DiskFile
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import GEOMETRY, VideoBatch
from feie.features.hdf5 import member

# An id's part of such a name would meet the arrays of the video that bears the parts before it.
_ARRAYS = frozenset({"affect", "time", "valid", "embedding", *GEOMETRY})


def group_name(video_id: str) -> str:
    """Give the path of a video's group below ``videos``: nearly always its id."""
    return "/".join(_part(part) for part in video_id.split("/"))


def _part(part: str) -> str:
    text = part.replace("%", "%25")
    if text in _ARRAYS or text in {".", ".."}:
        return f"%{ord(text[0]):02X}{text[1:]}"
    return text or "%"


class Hdf5GroupsWriter:
    """See `FileWriter`."""

    def __init__(self, path: Path, plan: DumpPlan) -> None:
        self._disk = DiskFile(path)
        self._file = self._disk.hdf5()
        write_description(self._file, plan)
        self._videos = self._file.create_group("videos")

    def write(self, batch: VideoBatch) -> None:
        """See `FileWriter.write`."""
        for video in batch:
            said = video.videos[0]
            group = self._videos.require_group(group_name(said.video_id))
            group.attrs["id"] = said.video_id
            group.attrs["fps"] = said.fps
            for name, values in video.arrays().items():
                data = values.astype(np.uint8) if name == "valid" else values
                made = group.create_dataset(name, data=data)
                if name in UNITS:
                    made.attrs["units"] = UNITS[name]
        self._disk.refuse_error()

    def close(self) -> None:
        """See `FileWriter.close`."""
        self._file.close()
        self._disk.close()
        self._disk.refuse_error()


class _Reader:
    """See `dump_reader.FileReader`."""

    def describe(self, path: Path) -> Described:
        with opened(path) as file:
            return read_description(file)

    def videos(self, path: Path, what: Described, wanted: list[int]) -> Iterator[VideoRows]:
        with opened(path) as file:
            for number in wanted:
                group = f"videos/{group_name(what.ids[number])}"
                names = what.array_names()
                yield {name: np.asarray(member(file, f"{group}/{name}")) for name in names}


DUMP = OneFile(
    name="hdf5-groups",
    suffix=".h5",
    layout=(
        'One HDF5 file with a group a video: `file["videos"]["clips/a"]["affect"]`.',
        "",
        "- `affect` float32 (frames, columns); names of the columns in `/columns`",
        "- `time` float64 (frames), seconds; `valid` uint8 (frames), 1 = a face was found",
        "- attributes of the group: `id`, `fps`; the index of all videos is in `/video`",
        "- `/feie`: provenance as JSON; `/README`: this text",
        "- a part of an id that is `.`, `..` or the name of an array is percent-encoded in the",
        "  name of the group, and so is the percent sign",
    ),
    geometry=True,
    create=Hdf5GroupsWriter,
)
FORMAT = OneFileFormat(
    "feie-hdf5-groups",
    "one HDF5 file of feie dump, a group a video",
    lambda path: is_hdf5_dump(path, "hdf5-groups"),
    _Reader(),
)
