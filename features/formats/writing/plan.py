"""What a dump is to hold: which videos and columns, and what its files say of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feie.features.errors import UsageError
from feie.features.schema import Schema
from feie.features.store.reader import Store

DUMP_VERSION = "1.0"


@dataclass(frozen=True)
class PlannedVideo:
    """One video of a dump.

    Attributes
    ----------
    video_id : str
    start, frames : int
        Its rows in the store are ``start : start + frames``.
    fps : float
        Frames a second as the store has it; 0 or NaN where it does not know.
    width, height : int
        Pixels; 0 where the store does not know.
    with_face : int
        Frames with a face.
    """

    video_id: str
    start: int
    frames: int
    fps: float
    width: int
    height: int
    with_face: int


@dataclass(frozen=True)
class DumpPlan:
    """What a dump holds.

    Attributes
    ----------
    format : str
        What ``feie dump --format`` calls it.
    videos : tuple of PlannedVideo
        In the order in which the store holds them, so that each chunk is decoded once.
    schema : Schema
        Columns of the dump.
    indices : tuple of int
        Where these columns stand in the store's ``affect``.
    embedding : int
        Width of the embedding that goes along; 0 for none.
    geometry : bool
        Whether the detector's score, box and landmarks go along.
    missing : str
        What becomes of frames without a face, see `feie_muse`; ``"keep"`` elsewhere.
    selection : tuple of str
        Ids and patterns that chose the videos; empty for all.
    store : dict
        The store's ``spec_version``, ``fingerprint`` and ``provenance``.
    failed : dict of str to str
        Videos that have no numbers, and why.
    sheet : str
        The data sheet, for people.
    """

    format: str
    videos: tuple[PlannedVideo, ...]
    schema: Schema
    indices: tuple[int, ...]
    embedding: int
    geometry: bool
    missing: str
    selection: tuple[str, ...]
    store: Mapping[str, Any]
    failed: Mapping[str, str]
    sheet: str = ""

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(video.frames for video in self.videos)

    def description(self) -> dict[str, Any]:
        """Give what a file says of itself; the same for the same store and options."""
        return {
            "feie_dump": DUMP_VERSION,
            "format": self.format,
            "columns": list(self.schema.columns),
            "groups": {name: list(span) for name, span in self.schema.groups.items()},
            "embedding": self.embedding,
            "geometry": self.geometry,
            "missing": self.missing,
            "selection": _shown(self.selection),
            "videos": len(self.videos),
            "frames": self.frames,
            "failed": dict(self.failed),
            "store": dict(self.store),
        }

    def videos_table(self) -> dict[str, list[Any]]:
        """Give the index of the videos, a list a column."""
        return {
            "id": [video.video_id for video in self.videos],
            "frames": [
                video.with_face if self.missing == "drop" else video.frames for video in self.videos
            ],
            "fps": [None if math.isnan(video.fps) else video.fps for video in self.videos],
            "width": [video.width for video in self.videos],
            "height": [video.height for video in self.videos],
        }

    def offsets(self) -> list[int]:
        """Rows of video i, in files that hold all videos, are ``offsets[i] : offsets[i + 1]``."""
        return [0, *np.cumsum([video.frames for video in self.videos], dtype=np.int64).tolist()]

    def settings(self) -> dict[str, Any]:
        """Give what must be the same in all files of a folder that a later run goes on with."""
        made = self.store["provenance"]
        kept = ("format", "columns", "groups", "embedding", "geometry", "missing", "selection")
        said = {name: value for name, value in self.description().items() if name in kept}
        return {**said, "extractor": made["extractor"], "options": made["options"]}


def _shown(selection: Sequence[str]) -> list[str]:
    """Name a selection in full where it is short, by its hash where it is a list of ids."""
    if len(selection) <= 20:
        return list(selection)
    digest = hashlib.sha256(json.dumps(list(selection)).encode()).hexdigest()
    return [f"{len(selection)} ids and patterns, sha256:{digest}"]


def choose_columns(schema: Schema, subset: Collection[str]) -> tuple[Schema, tuple[int, ...]]:
    """Choose groups of columns.

    Returns
    -------
    schema : Schema
        The chosen columns, in stored order, with the groups that were named.
    indices : tuple of int
        Where they stand among all columns.

    Raises
    ------
    UsageError
        A group that the store lacks.
    """
    if not subset:
        return schema, tuple(range(len(schema)))
    chosen = schema.named(sorted(subset))
    indices = schema.indices(chosen)
    place = {column: at for at, column in enumerate(indices)}
    groups = {
        name: (place[start], place[stop - 1] + 1)
        for name, (start, stop) in schema.groups.items()
        if name in chosen
    }
    return Schema(tuple(schema.columns[i] for i in indices), groups), tuple(indices)


def planned_videos(store: Store, ids: Sequence[str]) -> tuple[PlannedVideo, ...]:
    """Look up videos of a store, in stored order."""
    if not ids:
        return ()
    rows = store.videos.loc[list(ids)].sort_values(["offset", "length"], kind="stable")
    with_face = np.rint(rows["faces"] * rows["length"])
    fields = zip(
        rows.index, rows["offset"], rows["length"], rows["fps"], rows["width"], rows["height"],
        with_face, strict=True,
    )  # fmt: skip
    return tuple(
        PlannedVideo(str(name), int(start), int(n), float(fps), int(w), int(h), int(faces))
        for name, start, n, fps, w, h, faces in fields
    )


def refuse_columns(schema: Schema, taken: Collection[str], format_name: str) -> None:
    """Refuse column names that a table of this format cannot hold.

    Raises
    ------
    UsageError
        A name is one of the format's own, or has control characters.
    """
    for name in schema.columns:
        if name in taken or not name.isprintable():
            raise UsageError(
                f"{format_name} has no room for a column called {name!r} "
                f"({'the format has one of its own' if name in taken else 'control characters'}); "
                "leave its group out with --subset, or use --format hdf5"
            )
