"""Which rows of a table belong to one person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import VideoError
from feie.features.formats.reading.columns import Columns
from feie.features.formats.reading.layout import Layout


def people(
    columns: Columns,
    layout: Layout,
    place: NDArray[np.int64],
    valid: NDArray[np.bool_],
    *,
    apart: bool,
) -> list[NDArray[np.int64]]:
    """Tell the people of a video apart: by name, or else by where their faces are.

    Parameters
    ----------
    columns : Columns
    layout : Layout
    place : ndarray of int64, shape (rows,)
        Frame of each row.
    valid : ndarray of bool, shape (rows,)
        Rows with a face.
    apart : bool
        Tell those apart, too, who are never in one frame. Else they pass for one, as trackers
        give a face that was lost for a moment a new name.

    Returns
    -------
    list of ndarray of int64
        Rows of each person, the one with the most faces first. Never empty.

    Raises
    ------
    VideoError
        A frame stands twice, and nothing says of whom each row is.
    """
    rows = np.arange(len(place))
    alone = len(np.unique(place)) == len(place)
    if alone and not apart:
        return [rows]
    if layout.person:
        names = columns.words[layout.person]
        # A frame without a face has nobody's name.
        found = [rows[(names == name) & valid] for name in dict.fromkeys(names[valid].tolist())]
        split = found or [rows[:0]]
        if all(len(np.unique(place[part])) == len(part) for part in split):
            return _by_frames(split)
    if alone:
        return [rows]
    if not layout.box:
        twice = place[np.flatnonzero(np.diff(np.sort(place)) == 0)[0]]
        raise VideoError(
            "broken",
            f"frame {twice} from the start stands twice"
            + (f" for one {layout.person}" if layout.person else ""),
        )
    return _by_frames(_by_place(columns, layout, place, valid))


def main_person(
    persons: Sequence[NDArray[np.int64]], valid: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Give the rows of the person with the most frames."""
    return max(persons, key=lambda rows: int(valid[rows].sum()))


def _by_frames(parts: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    return sorted(parts, key=len, reverse=True)


def _by_place(
    columns: Columns, layout: Layout, place: NDArray[np.int64], valid: NDArray[np.bool_]
) -> list[NDArray[np.int64]]:
    """Follow faces from frame to frame as stage one does."""
    from feie.features.faces.detection import Faces
    from feie.features.faces.track import Tracks

    x, y, width, height = (columns.numbers[name].astype(np.float32) for name in layout.box)
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    seen = np.flatnonzero(valid & np.isfinite(boxes).all(axis=1))
    seen = seen[np.argsort(place[seen], kind="stable")]
    tracks = Tracks()
    found: dict[int, list[int]] = {}
    previous = -1
    for rows in np.split(seen, np.flatnonzero(np.diff(place[seen])) + 1):
        if not len(rows):
            continue
        for _ in range(min(int(place[rows[0]]) - previous - 1, 15)):
            tracks.assign(Faces.none())
        previous = int(place[rows[0]])
        count = len(rows)
        faces = Faces(boxes[rows], np.ones(count, np.float32), np.empty((count, 5, 2), np.float32))
        for row, number in zip(rows, tracks.assign(faces), strict=True):
            found.setdefault(number, []).append(int(row))
    return [np.array(rows, np.int64) for rows in found.values()] or [np.empty(0, np.int64)]
