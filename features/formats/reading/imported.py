"""What a reader of somebody's feature files gives, and what `feie import` asks of a reader."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import Schema
from feie.features.video.sources import Source


@dataclass(frozen=True)
class ImportedVideo:
    """What a file says about one video; n frames, c columns.

    Attributes
    ----------
    video_id : str
        As it will stand in the store, see SPEC.md, S13.
    schema : Schema
        Names of the columns as the file has them, and their groups.
    values : ndarray of float32, shape (n, c)
        NaN rows where there is no face.
    valid : ndarray of bool, shape (n,)
        Where it is true, the row of `values` is finite.
    time : ndarray of float64, shape (n,), or None
        Seconds; None where the file does not say.
    fps : float or None
        Frames a second; None where the file does not say.
    face_score : ndarray of float32, shape (n,), or None
        The detector's score; NaN where there is none.
    bbox : ndarray of float32, shape (n, 4), or None
        x0, y0, x1, y1 in pixels.
    landmarks : ndarray of float32, shape (n, 5, 2), or None
        ArcFace's five points in pixels.
    embedding : ndarray of float16, shape (n, d), or None
    width, height : int
        Of the video in pixels; 0 where the file does not say.
    notes : tuple of str
        What was decided for the user: kinds of sentences, the same words for every video that
        they are true of, so that they can be counted.
    failure : str
        Why there is no such video, of which then n is 0: ``reason: message`` as `VideoError` says
        it. Empty for all others.
    """

    video_id: str
    schema: Schema
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    time: NDArray[np.float64] | None = None
    fps: float | None = None
    face_score: NDArray[np.float32] | None = None
    bbox: NDArray[np.float32] | None = None
    landmarks: NDArray[np.float32] | None = None
    embedding: NDArray[np.float16] | None = None
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    failure: str = ""

    @classmethod
    def failed(cls, video_id: str, failure: str) -> ImportedVideo:
        """Give a video that cannot be read, and why."""
        nothing = np.empty((0, 0), np.float32)
        return cls(video_id, Schema((), {}), nothing, np.empty(0, np.bool_), failure=failure)


@dataclass(frozen=True)
class ReadOptions:
    """What changes the numbers that a reader gives.

    Attributes
    ----------
    groups : tuple of str
        Groups of columns to read, of those that the format names; empty for its usual ones.
    group : str
        Name of the one group of a format whose columns have any names; empty for its usual one.
    fps : float or None
        Frames a second; takes the place of what the files say of time.
    all_faces : bool
        Keep every face as a video of its own, ``ID#1``, ``ID#2``, …, not only the main one.
    """

    groups: tuple[str, ...] = ()
    group: str = ""
    fps: float | None = None
    all_faces: bool = False


class FeatureFiles(Protocol):
    """Files of one format below a root, opened for reading; see `Format.open`.

    Attributes
    ----------
    files : sequence of Source
        Each holds one video or more; sorted by path.
    ignored : sequence of str
        Files below the root that are passed over.
    origin : dict
        What the files say of what made the numbers, where they do: ``extractor``, ``detector``
        and ``options`` as in a store's provenance (SPEC.md, S5).
    """

    files: Sequence[Source]
    ignored: Sequence[str]
    origin: Mapping[str, Any]

    def ids(self, file: Source) -> Sequence[str]:
        """Ids of the videos in a file, in the file's order; values need not be read for it.

        Raises
        ------
        VideoError
            The file cannot be read at all.
        """

    def read(self, file: Source, wanted: Collection[str]) -> Iterator[ImportedVideo]:
        """Read the wanted videos of a file, one at a time: never the whole of a large file.

        A video that cannot be read is given as `ImportedVideo.failed`, and the rest follow.

        Raises
        ------
        VideoError
            The file cannot be read any further; what it had given before counts.
        UsageError
            The options do not fit these files; no other file would fare better.
        """


class Format(Protocol):
    """A file format: how to tell it and how to read it.

    Attributes
    ----------
    name : str
        What ``feie import --format`` calls it.
    about : str
        What writes such files, in a few words.
    """

    name: str
    about: str

    def recognises(self, root: Path, sample: Sample) -> bool:
        """Tell whether a root holds this format; formats are asked in the registry's order."""

    def open(self, root: Path, options: ReadOptions) -> FeatureFiles:
        """Find the files of this format at or below a root.

        Raises
        ------
        UsageError
            There are none, two videos have one id, or an option means nothing to this format.
        """


@dataclass(frozen=True)
class Sample:
    """A first look at a root.

    Attributes
    ----------
    first : Path
        Its first data file in the order of names; the root itself where that is a file.
    header : tuple of str
        Column names, where that file is a table; stripped of blanks.
    fault : str
        Why no table here can be read; empty for all others.
    """

    first: Path
    header: tuple[str, ...] = field(default=())
    fault: str = ""
