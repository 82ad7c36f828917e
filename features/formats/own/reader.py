"""Reading our own dumps back for `feie import`: what every format of them shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from feie.features.errors import FeieError, UsageError, VideoError, one_line
from feie.features.files import file_sha256, read_json, refuse_links
from feie.features.formats.reading.imported import ImportedVideo, ReadOptions, Sample
from feie.features.formats.writing.names import is_below
from feie.features.formats.writing.plan import DUMP_VERSION, choose_columns
from feie.features.formats.writing.rows import GEOMETRY
from feie.features.schema import Schema
from feie.features.video.sources import Source, file_source

PROVENANCE = "provenance.json"
UNCHECKED = "its bytes could not be checked: there is no provenance with their SHA-256"

VideoRows = dict[str, NDArray[Any]]
"""Arrays of one video by their names in a store."""


class FileEntry(BaseModel):
    """What the provenance of a dump says of one file.

    Attributes
    ----------
    video : str
    rows : str
        Hash of the numbers in it.
    sha256 : str
        Of its bytes.
    bytes : int
    """

    model_config = ConfigDict(frozen=True, strict=True)

    video: str = ""
    rows: str = ""
    sha256: str
    bytes: int = Field(ge=0)


def file_entries(said: object) -> dict[str, FileEntry]:
    """Read the ``files`` of a provenance.

    Raises
    ------
    ValueError
        They are not as they were written.
    """
    return TypeAdapter(dict[str, FileEntry]).validate_python(said)


def provenance_of(path: Path) -> Path:
    """Name of the provenance beside a dump that is one file."""
    return path.with_name(f"{path.name}.{PROVENANCE}")


def refuse_altered(path: Path, entry: FileEntry | None, beside: Path) -> tuple[str, ...]:
    """Compare a file with the SHA-256 that was noted when it was written.

    Returns
    -------
    tuple of str
        A note that nothing could be compared, where that is so.

    Raises
    ------
    VideoError
        It has other bytes.
    """
    if entry is None:
        return (UNCHECKED,)
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None
    if digest != entry.sha256:
        raise VideoError(
            "altered",
            f"{path.name} is not as feie dump wrote it: its SHA-256 is not the one in "
            f"{beside.name}; dump it again",
        )
    return ()


@dataclass(frozen=True)
class Described:
    """What a dump says of itself.

    Attributes
    ----------
    schema : Schema
    embedding : int
    geometry : bool
    format : str
    ids : list of str
    offsets : list of int
        Where the rows of each video begin in files that hold all videos.
    rates : list of float or None
    sizes : list of (int, int)
        Width and height in pixels.
    origin : dict
        The provenance of the store.
    """

    schema: Schema
    embedding: int
    geometry: bool
    format: str
    ids: list[str]
    offsets: list[int]
    rates: list[float | None]
    sizes: list[tuple[int, int]]
    origin: Mapping[str, Any]

    def array_names(self) -> list[str]:
        """Names of the arrays of each video."""
        names = ["affect", "time", "valid"]
        names += GEOMETRY if self.geometry else ()
        return [*names, "embedding"] if self.embedding else names

    def frames(self, number: int) -> int:
        """Frames of a video."""
        return self.offsets[number + 1] - self.offsets[number]


def described(said: Mapping[str, Any], table: Mapping[str, Sequence[Any]]) -> Described:
    """Read what a dump says of itself.

    Parameters
    ----------
    said : dict
        `DumpPlan.description`.
    table : dict of str to sequence
        `DumpPlan.videos_table`.

    Raises
    ------
    VideoError
        It is none of feie's, or of a version that this feie does not know.
    """
    try:
        version = str(said["feie_dump"])
        if version.split(".")[0] != DUMP_VERSION.split(".")[0]:
            raise VideoError(
                "broken", f"a dump of version {version}; this feie reads {DUMP_VERSION}"
            )
        frames = np.array(table["frames"], np.int64)
        if (frames < 0).any() or len({*map(len, table.values())}) != 1:
            raise ValueError("its index of videos is damaged")
        rates = [None if rate is None or math.isnan(rate) else float(rate) for rate in table["fps"]]
        return Described(
            schema=Schema(
                tuple(said["columns"]),
                {name: (int(a), int(b)) for name, (a, b) in said["groups"].items()},
            ),
            embedding=int(said["embedding"]),
            geometry=bool(said["geometry"]),
            format=str(said["format"]),
            ids=[str(video_id) for video_id in table["id"]],
            offsets=[0, *np.cumsum(frames).tolist()],
            rates=rates,
            sizes=list(zip(map(int, table["width"]), map(int, table["height"]), strict=True)),
            origin=dict(said["store"]["provenance"]),
        )
    except VideoError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, FeieError) as error:
        raise VideoError(
            "broken", f"what the dump says of itself makes no sense: {one_line(error)}"
        ) from None


def assemble(
    what: Described,
    number: int,
    rows: VideoRows,
    options: ReadOptions,
    notes: tuple[str, ...] = (),
) -> ImportedVideo:
    """Give a video as it was in the store."""
    frames = what.frames(number)
    lengths = {name: len(array) for name, array in rows.items()}
    if set(lengths.values()) != {frames}:
        raise VideoError("broken", f"{frames} frames are announced, the arrays have {lengths}")
    schema, indices = choose_columns(what.schema, options.groups)
    values = rows["affect"]
    if values.shape[1:] != (len(what.schema),):
        raise VideoError("broken", f"{len(what.schema)} columns are announced, not {values.shape}")
    if len(indices) < len(what.schema):
        values = values[:, list(indices)]
    width, height = what.sizes[number]
    return ImportedVideo(
        video_id=what.ids[number],
        schema=schema,
        values=np.ascontiguousarray(values, np.float32),
        valid=rows["valid"].astype(np.bool_),
        time=rows["time"].astype(np.float64),
        fps=what.rates[number],
        width=width,
        height=height,
        face_score=rows.get("face_score"),
        bbox=rows.get("bbox"),
        landmarks=rows.get("landmarks"),
        embedding=rows.get("embedding"),
        notes=notes,
    )


def refuse_options(name: str, options: ReadOptions) -> None:
    """Refuse what means nothing to a dump.

    Raises
    ------
    UsageError
    """
    for option, given in (
        ("--group", options.group),
        ("--fps", options.fps),
        ("--all-faces", options.all_faces),
    ):
        if given:
            raise UsageError(
                f"{option} is for files that do not say it; a dump ({name}) knows its groups, "
                "times and videos"
            )


class FileReader(Protocol):
    """Reads a dump that is one file."""

    def describe(self, path: Path) -> Described:
        """Read what it says of itself; raises `VideoError` where that cannot be read."""

    def videos(self, path: Path, what: Described, wanted: list[int]) -> Iterator[VideoRows]:
        """Read videos by their numbers, which rise; raises `VideoError`."""


class OneFileFormat:
    """A dump that is one file; see `imported.Format`.

    Parameters
    ----------
    name, about : str
    known : callable
        Tells whether a file is such a dump.
    reader : FileReader
    """

    def __init__(
        self, name: str, about: str, known: Callable[[Path], bool], reader: FileReader
    ) -> None:
        self.name = name
        self.about = about
        self._known = known
        self._reader = reader

    def recognises(self, root: Path, sample: Sample) -> bool:
        """Tell by what the file says of itself."""
        return root.is_file() and self._known(root)

    def open(self, root: Path, options: ReadOptions) -> OneFileDump:
        """Open the file; see `Format.open`."""
        refuse_options(self.name, options)
        if not root.is_file():
            raise UsageError(f"{root} is no file; {self.name} is one: give its path")
        try:
            notes = refuse_altered(root, _entry_beside(root), provenance_of(root))
            what = self._reader.describe(root)
        except VideoError as error:
            raise UsageError(f"{root}: {error.message}") from None
        choose_columns(what.schema, options.groups)
        return OneFileDump(root, what, self._reader, options, notes)


def _entry_beside(path: Path) -> FileEntry | None:
    """Read what the provenance beside a dump says of its file; None where there is none."""
    beside = provenance_of(path)
    try:
        return file_entries(read_json(beside)["files"])[path.name]
    except FileNotFoundError:
        return None
    except KeyError:  # the file has been renamed together with its provenance
        return _only_entry(beside)
    except (OSError, ValueError, TypeError) as error:
        raise VideoError("broken", f"{beside.name} cannot be read: {one_line(error)}") from None


def _only_entry(beside: Path) -> FileEntry | None:
    entries = list(file_entries(read_json(beside).get("files", {})).values())
    return entries[0] if len(entries) == 1 else None


class OneFileDump:
    """See `imported.FeatureFiles`."""

    ignored: Sequence[str] = ()

    def __init__(
        self,
        path: Path,
        what: Described,
        reader: FileReader,
        options: ReadOptions,
        notes: tuple[str, ...],
    ) -> None:
        self._notes = notes
        self.files = [file_source(path, path.name)]
        self.origin = what.origin
        self._what = what
        self._reader = reader
        self._options = options

    def ids(self, file: Source) -> list[str]:
        """Give the ids that the file lists."""
        return list(self._what.ids)

    def read(self, file: Source, wanted: Collection[str]) -> Iterator[ImportedVideo]:
        """Read videos one at a time; see `FeatureFiles.read`."""
        names = set(wanted)
        numbers = [i for i, video_id in enumerate(self._what.ids) if video_id in names]
        found = self._reader.videos(file.path, self._what, numbers)
        for number, rows in zip(numbers, found, strict=True):
            yield assemble(self._what, number, rows, self._options, self._notes)


class FolderFormat:
    """A dump with a file a video, and ``provenance.json``; see `imported.Format`.

    Parameters
    ----------
    name, about : str
    dumped_as : str
        What ``feie dump --format`` calls it.
    decode : callable
        Reads the arrays of one video from its file; raises `VideoError`.
    """

    def __init__(
        self,
        name: str,
        about: str,
        dumped_as: str,
        decode: Callable[[Path, Described], VideoRows],
    ) -> None:
        self.name = name
        self.about = about
        self._dumped_as = dumped_as
        self._decode = decode

    def recognises(self, root: Path, sample: Sample) -> bool:
        """Tell by the provenance that lies in the folder."""
        try:
            said = read_json(root / PROVENANCE)
            return bool(said["feie_dump"] and said["format"] == self._dumped_as)
        except (OSError, ValueError, KeyError):
            return False

    def open(self, root: Path, options: ReadOptions) -> FolderDump:
        """Read the folder's index; see `Format.open`."""
        refuse_options(self.name, options)
        path = root / PROVENANCE
        try:
            said = read_json(path)
            table = said["videos_table"]
            names = [str(name) for name in table["file"]]
            what = described(said, {k: v for k, v in table.items() if k != "file"})
            entries = file_entries(said.get("files", {}))
        except FileNotFoundError:
            raise UsageError(
                f"{root} has no {PROVENANCE}: it is no complete dump of feie"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, VideoError) as error:
            raise UsageError(f"{path} cannot be read: {one_line(error)}") from None
        choose_columns(what.schema, options.groups)
        return FolderDump(root, what, names, entries, self._decode, options)


class FolderDump:
    """See `imported.FeatureFiles`."""

    ignored: Sequence[str] = ()

    def __init__(
        self,
        root: Path,
        what: Described,
        names: Sequence[str],
        entries: Mapping[str, FileEntry],
        decode: Callable[[Path, Described], VideoRows],
        options: ReadOptions,
    ) -> None:
        for name in filter(is_below, names):
            refuse_links(root, root / name)
        self._entries = entries
        self._provenance = root / PROVENANCE
        gone = [name for name in names if not (is_below(name) and (root / name).is_file())]
        if gone:
            raise UsageError(
                f"{root} lacks {gone[0]!r}, which its {PROVENANCE} lists ({len(gone)} such files); "
                "dump it again"
            )
        self.files = [file_source(root / name, name) for name in names]
        self.origin = what.origin
        self._numbers = {name: number for number, name in enumerate(names)}
        self._what = what
        self._decode = decode
        self._options = options

    def ids(self, file: Source) -> list[str]:
        """Give the id of the file's video."""
        return [self._what.ids[self._numbers[file.relative]]]

    def read(self, file: Source, wanted: Collection[str]) -> Iterator[ImportedVideo]:
        """Read the file's video; see `FeatureFiles.read`."""
        number = self._numbers[file.relative]
        if self._what.ids[number] in wanted:
            try:
                entry = self._entries.get(file.relative)
                notes = refuse_altered(file.path, entry, self._provenance)
                rows = self._decode(file.path, self._what)
                video = assemble(self._what, number, rows, self._options, notes)
            except VideoError:
                raise
            except (ValueError, TypeError, KeyError) as error:  # pyarrow's are ValueErrors
                raise VideoError(
                    "broken", f"{file.relative} cannot be read: {one_line(error)}"
                ) from None
            yield video
