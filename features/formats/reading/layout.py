"""What the columns of a table of frames mean: one `Layout` a format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from feie.features.errors import VideoError
from feie.features.schema import Schema

TimeUnit = Literal["s", "ms", "auto"]


@dataclass(frozen=True)
class Layout:
    """Columns of a table and their meaning; an empty name: there is no such column.

    Attributes
    ----------
    groups : dict of str to tuple of str
        Every group of features that the table has, in its order.
    usual : tuple of str
        The groups that are read unless others are asked for.
    labels : dict of str to tuple of str
        Columns of words among the features, and the words that may stand there; each word
        becomes a column ``COLUMN=WORD`` of 0 and 1.
    time : str
        Time of a frame.
    unit : {"s", "ms", "auto"}
        Of `time`; auto: milliseconds where frames are one or more apart, else seconds.
    frame : str
        Number of a frame; where numbers are left out, there was no face.
    first : int or None
        Number of a video's first frame; None where tools differ in it, so that the files tell.
    found : str
        Whether there is a face: 1 or 0, true or false.
    score : str
        The detector's.
    person : str
        Whose face it is, where frames have several.
    video : str
        Which video the row is of, where tables hold several.
    box : tuple of str
        x, y, width, height in pixels; or empty.
    points : tuple of (str, ...)
        x and y of ArcFace's five points, each the mean of some columns: ten tuples, or none.
    size : tuple of str
        Width and height of the video in pixels; or empty.
    """

    groups: Mapping[str, tuple[str, ...]]
    usual: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    time: str = ""
    unit: TimeUnit = "s"
    frame: str = ""
    first: int | None = 0
    found: str = ""
    score: str = ""
    person: str = ""
    video: str = ""
    box: tuple[str, ...] = ()
    points: tuple[tuple[str, ...], ...] = ()
    size: tuple[str, ...] = ()

    def choose(self, groups: Sequence[str], where: str) -> Schema:
        """Give the columns that are read.

        Parameters
        ----------
        groups : sequence of str
            What was asked for; empty for the usual ones.
        where : str
            Whose columns they are, for the message.

        Raises
        ------
        VideoError
            There is no such group, or none at all.
        """
        chosen = tuple(groups) or self.usual
        lacking = [name for name in chosen if name not in self.groups]
        if lacking:
            there = f"it has {', '.join(self.groups)}" if self.groups else "it has none at all"
            raise VideoError("broken", f"{where} has no group {', '.join(lacking)}; {there}")
        if not chosen:
            raise VideoError("broken", f"{where} has no column of features")
        columns = {
            name: [part for column in self.groups[name] for part in self._parts(column)]
            for name in chosen
        }
        every = [column for members in columns.values() for column in members]
        if twice := [column for column, count in Counter(every).items() if count > 1]:
            raise VideoError("broken", f"{where} has more than one column {twice[0]}")
        return Schema.of(columns)

    def _parts(self, column: str) -> list[str]:
        words = self.labels.get(column)
        return [column] if words is None else [f"{column}={word}" for word in words]

    def needs(self, schema: Schema) -> tuple[list[str], list[str]]:
        """Give the columns to be read as numbers and as words, each once."""
        labels = [name for name in self.labels if self._parts(name)[0] in schema.columns]
        parts = {part for name in labels for part in self._parts(name)}
        facts = (self.time, self.frame, self.score, *self.box, *self.size)
        points = (name for columns in self.points for name in columns)
        features = (name for name in schema.columns if name not in parts)
        numbers = dict.fromkeys(name for name in (*features, *facts, *points) if name)
        words = dict.fromkeys(
            name for name in (*labels, self.found, self.person, self.video) if name
        )
        return list(numbers), list(words)


def matching(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Give the names that match a regular expression in full, in their order."""
    return tuple(name for name in names if re.fullmatch(pattern, name))


def grouped(names: Sequence[str], patterns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Sort names into groups by patterns; groups without a column are left out."""
    found = {group: matching(names, pattern) for group, pattern in patterns.items()}
    return {group: members for group, members in found.items() if members}


def points_of_68(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Say how ArcFace's five points follow from the 68 of the columns ``x_0`` … ``y_67``.

    Eyes are the mean of their six points, as is usual; nose 30, corners of the mouth 48 and 54.
    """
    places = (range(36, 42), range(42, 48), (30,), (48,), (54,))
    points = tuple(tuple(f"{axis}_{i}" for i in place) for place in places for axis in "xy")
    known = set(names)
    return points if all(name in known for columns in points for name in columns) else ()
