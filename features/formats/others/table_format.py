"""Formats that are tables of one row a frame: a format only says what its columns mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from feie.features.errors import UsageError, VideoError
from feie.features.formats.reading import columns as tables
from feie.features.formats.reading.columns import Columns, Header
from feie.features.formats.reading.files import find_files
from feie.features.formats.reading.imported import ImportedVideo, ReadOptions, Sample
from feie.features.formats.reading.layout import Layout
from feie.features.formats.reading.rows import seconds, videos
from feie.features.video.numbering import VIDEO_SUFFIXES
from feie.features.video.sources import Source

Describe = Callable[[Sequence[str], str], Layout]
"""Says what the columns of a header mean, given the name for a group that has none."""


class TableFormat:
    """A format of tables; see `Format`.

    Parameters
    ----------
    name, about : str
    describe : Describe
    needs : tuple of str
        Columns that every table of this format has.
    known_by : callable
        Tells from the names of its columns whether a table that has those is of this format.
    group : callable
        Gives the name of a group of features that has none of its own, from the root.
    several : bool
        Of a table with a column of videos, rows are always told apart by it. Else a table of one
        video bears the name of its file, whatever that column says.
    faces : bool
        A table may hold several faces a frame.
    """

    def __init__(
        self,
        name: str,
        about: str,
        describe: Describe,
        *,
        needs: tuple[str, ...] = (),
        known_by: Callable[[Sequence[str]], bool] = lambda names: True,
        group: Callable[[Path], str] = lambda root: "",
        several: bool = False,
        faces: bool = False,
    ) -> None:
        self.name = name
        self.about = about
        self._describe = describe
        self._needs = needs
        self._known_by = known_by
        self._group = group
        self._several = several
        self._faces = faces

    def recognises(self, root: Path, sample: Sample) -> bool:
        """Tell by the names of the columns."""
        names = sample.header
        return bool(names) and set(self._needs) <= set(names) and self._known_by(names)

    def open(self, root: Path, options: ReadOptions) -> TableFiles:
        """Find the tables; see `Format.open`."""
        group = self._group(root)
        if options.group and not group:
            raise UsageError(
                f"--group names the features of formats that have no groups; those of "
                f"{self.name} are chosen with --groups"
            )
        if options.all_faces and not self._faces:
            raise UsageError(f"--all-faces: files of format {self.name} do not tell faces apart")
        files, ignored = find_files(root, tables.SUFFIXES)
        named = options.group or group

        def layout(names: Sequence[str], where: str) -> Layout:
            lacking = [name for name in self._needs if name not in names]
            if lacking:
                raise VideoError(
                    "broken",
                    f"{where} is no file of format {self.name}: it has no column {lacking[0]}; if "
                    f"the files of several tools lie together, give each tool's by themselves, and "
                    f"if they are of another one, name it with --format",
                )
            return self._describe(names, named)

        return TableFiles(files, ignored, layout, options, self._several)


class TableFiles:
    """Tables of one format; see `FeatureFiles`."""

    origin: Mapping[str, Any] = {}

    def __init__(
        self,
        files: Sequence[Source],
        ignored: Sequence[str],
        layout: Callable[[Sequence[str], str], Layout],
        options: ReadOptions,
        several: bool,
    ) -> None:
        self.files = files
        self.ignored = ignored
        self._layout = layout
        self._options = options
        self._several = several
        self._last: tuple[tuple[str, ...], Layout] | None = None
        self._first: int | None = None

    def ids(self, file: Source) -> list[str]:
        """Read the ids of a table's videos; only its column of videos is read, if it has one."""
        header = tables.read_header(file.path)
        column = self._layout_of(header, file).video
        if not column:
            return [file.video_id]
        return list(self._names(file, header, column).values())

    def read(self, file: Source, wanted: Collection[str]) -> Iterator[ImportedVideo]:
        """Read the videos of a table; see `FeatureFiles.read`."""
        header = tables.read_header(file.path)
        layout = self._layout_of(header, file)
        schema = layout.choose(self._options.groups, file.path.name)
        numbers, words = layout.needs(schema)
        batches = tables.read_batches(file.path, header, numbers, words)
        if not layout.video:
            rows = [*batches]
            if not rows:
                raise _no_rows(file)
            parts: Iterator[tuple[str, Columns]] = iter([(file.video_id, tables.join(rows))])
        else:
            names = self._names(file, header, layout.video)
            parts = _runs(batches, layout.video, names, file)
        for video_id, columns in parts:
            if video_id not in wanted:
                continue
            try:
                yield from videos(video_id, columns, layout, schema, self._options)
            except VideoError as error:
                message = f"{error.reason}: {file.relative}: {error.message}"
                yield ImportedVideo.failed(video_id, message)

    def _layout_of(self, header: Header, file: Source) -> Layout:
        # Thousands of files have one header, of hundreds of names that patterns are matched with.
        if self._last is None or self._last[0] != header.names:
            layout = self._layout(header.names, file.path.name)
            if layout.frame and layout.first is None:
                layout = replace(layout, first=self._first_frame())
            self._last = header.names, layout
        return self._last[1]

    def _first_frame(self) -> int:
        """Tell whether these tables count frames from 0 or from 1, where their tool does not say.

        From 1 where none holds a frame 0 and one a frame 1; where all begin later, by their times.
        """
        if self._first is None:
            least, begun = np.inf, 0.0
            for file in self.files:
                try:
                    header = tables.read_header(file.path)
                    found, at_zero = _beginning(
                        file, header, self._layout(header.names, file.path.name)
                    )
                except VideoError:
                    continue  # said when it is its turn to be read
                if found < least:
                    least, begun = found, at_zero
                if least <= 0:
                    break
            self._first = int(least == 1 or (least > 1 and abs(begun - 1) < 0.25))
        return self._first

    def _names(self, file: Source, header: Header, column: str) -> dict[str, str]:
        """Ids of a table's videos by what its column of videos says, in the table's order."""
        found: dict[str, None] = {}
        for batch in tables.read_batches(file.path, header, (), (column,)):
            found |= dict.fromkeys(batch.words[column].tolist())
        if not found:
            raise _no_rows(file)
        if not self._several and len(found) <= 1:
            return dict.fromkeys(found, file.video_id)
        if self._several:
            ids = {said: video_name(said) for said in found}
        else:
            ids = {said: "/".join(parts) for said, parts in _tails([*found]).items()}
        if len(set(ids.values())) < len(ids):
            raise VideoError(
                "broken", f"{file.relative}: column {column} gives two videos the same name"
            )
        return ids


def _beginning(file: Source, header: Header, layout: Layout) -> tuple[float, float]:
    """Give the least number of a frame in a table, and the number that the time 0 would have.

    Of a table of one video, from its first rows alone; the second is NaN without times.
    """
    least, at_zero = np.inf, np.nan
    wanted = [name for name in (layout.frame, layout.time) if name]
    if not layout.frame:
        return least, at_zero
    for batch in tables.read_batches(file.path, header, wanted):
        numbers = batch.numbers[layout.frame]
        least = min(least, numbers.min(initial=np.inf))
        if not layout.video:
            if layout.time and len(numbers) > 1:
                time = seconds(batch.numbers[layout.time], layout.unit)
                with np.errstate(all="ignore"):
                    at_zero = numbers[0] - time[0] * np.ptp(numbers) / np.ptp(time)
            break
    return least, at_zero


def _no_rows(file: Source) -> VideoError:
    return VideoError("empty", f"{file.relative} has a header and no row below it")


def video_name(path: str) -> str:
    """Give the id of a video from its path as some tool wrote it."""
    path = path.replace("\\", "/").removeprefix("./")
    stem, dot, suffix = path.rpartition(".")
    known = f".{suffix.lower()}" in VIDEO_SUFFIXES
    return stem if dot and known else path


def _tails(paths: Sequence[str]) -> dict[str, list[str]]:
    """Cut off the folders that all paths are in."""
    split = {path: video_name(path).split("/") for path in paths}
    while all(len(parts) > 1 for parts in split.values()) and (
        len({parts[0] for parts in split.values()}) == 1
    ):
        split = {path: parts[1:] for path, parts in split.items()}
    return split


def _runs(
    batches: Iterator[Columns], column: str, names: Mapping[str, str], file: Source
) -> Iterator[tuple[str, Columns]]:
    """Give the rows of one video after the other, however they fall into batches.

    Raises
    ------
    VideoError
        Rows of a video stand apart.
    """
    done: set[str] = set()
    now, parts = "", list[Columns]()
    for batch in batches:
        words = batch.words[column]
        cuts = np.flatnonzero(words[1:] != words[:-1]) + 1
        for start, stop in zip([0, *cuts], [*cuts, batch.rows], strict=True):
            if start == stop:
                continue
            said = words[start]
            if parts and said != now:
                yield names[now], tables.join(parts)
                done.add(now)
                parts = []
            if said in done:
                raise VideoError(
                    "broken",
                    f"{file.relative}: rows of {names[said]} stand apart; sort the table by "
                    f"{column}",
                )
            now = said
            parts.append(batch.take(slice(int(start), int(stop))))
    if parts:
        yield names[now], tables.join(parts)
