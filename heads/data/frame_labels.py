"""Valence and arousal of every frame: ABAW's text files, or a table with a row a frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError
from feie.heads.config import SplitName
from feie.heads.data.labels import (
    ID_NAMES,
    SPLIT_NAMES,
    find_column,
    make_split,
    normalise_id,
    read_split,
)
from feie.heads.data.tables import read_table

TARGETS = ("valence", "arousal")
MISSING = -5.0
"""What ABAW writes where a frame was not annotated."""
_CHALLENGES = ("VA_Estimation_Challenge", "VA_Set")
_FOLDERS: dict[SplitName, tuple[str, ...]] = {
    "train": ("Train_Set", "Training_Set"),
    "val": ("Validation_Set",),
    "test": ("Test_Set",),
}
_TIMES = ("time", "timestamp", "seconds", "timeseconds")


@dataclass(frozen=True)
class FrameLabels:
    """Labels of the frames of some videos.

    Attributes
    ----------
    path : Path
    sha256 : str
        Hex digest of the bytes.
    ids : tuple of str
        A video each.
    split : ndarray of str, shape (videos,)
    by : {"frame", "time"}
        What `places` are: numbers of frames from 0, or seconds.
    places : tuple of ndarray
        Of each labelled frame, ascending, a video each.
    values : tuple of ndarray of float64, shape (labels, 2)
        Valence and arousal in [-1, 1]; NaN where a frame was not annotated.
    notes : tuple of str
    split_made : bool
        Whether the split is ours because the file has none.
    """

    path: Path
    sha256: str
    ids: tuple[str, ...]
    split: NDArray[np.str_]
    by: Literal["frame", "time"]
    places: tuple[NDArray[np.float64], ...]
    values: tuple[NDArray[np.float64], ...]
    notes: tuple[str, ...]
    split_made: bool = False

    def rows_of(self, split: SplitName) -> list[int]:
        """Rows of the videos of a split.

        Raises
        ------
        LabelError
            There are none.
        """
        rows = [int(row) for row in np.flatnonzero(self.split == split)]
        if not rows:
            raise LabelError(f"{self.path} has no video in split {split!r}")
        return rows


def load_frame_labels(path: str | Path) -> FrameLabels:
    """Read labels of frames.

    Parameters
    ----------
    path : str or Path
        A folder as ABAW hands it out: ``Train_Set`` and ``Validation_Set``, perhaps below
        ``VA_Estimation_Challenge``, with ``<video>.txt`` each; line k after the header is about
        frame k, image ``00001.jpg`` being the first. Or a CSV or Parquet file with a column of
        ids, ``frame`` (from 0) or ``time`` (seconds), ``valence``, ``arousal``, and perhaps a
        split; without one, videos are dealt out as by `feie.heads.data.labels.load_labels`. -5 and
        blanks are frames that were not annotated.

    Raises
    ------
    LabelError
        It is neither, or a value cannot be right.
    """
    path = Path(path)
    return _read_abaw(path) if path.is_dir() else _read_table(path)


def _read_abaw(path: Path) -> FrameLabels:
    roots = [path, *(path / name for name in _CHALLENGES)]
    found: dict[str, tuple[str, Path]] = {}
    for split, names in _FOLDERS.items():
        for file in sorted(f for r in roots for n in names for f in (r / n).glob("*.txt")):
            if file.stem in found:
                raise LabelError(f"{found[file.stem][1]} and {file} are about the same video")
            found[file.stem] = split, file
    if not found:
        raise LabelError(
            f"{path} holds no labels of frames: expected Train_Set/<video>.txt and "
            f"Validation_Set/<video>.txt (ABAW), or name a CSV or Parquet file"
        )
    digest, values = hashlib.sha256(), []
    for video, (part, file) in found.items():
        data = file.read_bytes()
        digest.update(f"{part}/{video}\n".encode() + data)
        values.append(_parse_abaw(file, data))
    return FrameLabels(
        path=path,
        sha256=digest.hexdigest(),
        ids=tuple(found),
        split=np.array([split for split, _ in found.values()], dtype=np.str_),
        by="frame",
        places=tuple(np.arange(len(v), dtype=np.float64) for v in values),
        values=tuple(values),
        notes=(),
    )


def _parse_abaw(file: Path, data: bytes) -> NDArray[np.float64]:
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    header = [name.strip().lower() for name in lines[0].split(",")] if lines else []
    if header != list(TARGETS):
        raise LabelError(f"{file} does not begin with the line valence,arousal")
    while lines and not lines[-1].strip():
        lines.pop()
    rows = []
    for number, line in enumerate(lines[1:], 2):
        try:
            valence, arousal = map(float, line.split(","))
        except ValueError:
            raise LabelError(f"{file}: line {number} is {line!r}, not two numbers") from None
        rows.append((valence, arousal))
    return _checked(file, np.array(rows, dtype=np.float64).reshape(-1, 2))


def _read_table(path: Path) -> FrameLabels:
    table = read_table(path)
    cells = table.cells
    id_column, time_column = find_column(cells, ID_NAMES), find_column(cells, _TIMES)
    frame_column = find_column(cells, ("frame", "frameindex", "framenumber"))
    valence, arousal = (find_column(cells, (name,)) for name in TARGETS)
    place = frame_column or time_column
    if id_column is None or place is None or valence is None or arousal is None:
        raise LabelError(
            f"{path} needs the columns id, frame (from 0) or time (seconds), valence and arousal; "
            f"it has {', '.join(cells.columns)}"
        )
    columns = {}
    for name in (place, valence, arousal):
        numbers, blank = table.numbers(name)
        bad = np.isnan(numbers) & (~blank | (name == place))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise LabelError(
                f"{path}: {name} of row {row + 2} is {cells[name].iloc[row]!r}, not a number"
            )
        columns[name] = numbers
    at = columns[place]
    if (at < 0).any() or (frame_column is not None and (at != np.rint(at)).any()):
        raise LabelError(f"{path}: {place} holds what is no {'frame' if frame_column else 'time'}")
    ids = np.array([normalise_id(str(cell)) for cell in cells[id_column]])
    values = _checked(path, np.stack([columns[valence], columns[arousal]], axis=1))
    videos, owner = np.unique(ids, return_inverse=True)
    order = np.lexsort((at, owner))
    cuts = np.flatnonzero(np.diff(owner[order])) + 1
    places = np.split(at[order], cuts)
    for video, numbers in zip(videos, places, strict=True):
        if (np.diff(numbers) == 0).any():
            raise LabelError(f"{path}: {str(video)!r} has two rows of one {place}")
    split_column = find_column(cells, SPLIT_NAMES)
    split, notes = _splits(path, videos, owner, split_column, cells)
    if frame_column is not None and at.min() >= 1:
        notes.append(
            f"{path}: no video has a label of frame 0; frames count from 0 here, so subtract 1 "
            f"from {place} if yours count from 1"
        )
    return FrameLabels(
        path=path,
        sha256=table.sha256,
        ids=tuple(map(str, videos)),
        split=split,
        by="time" if frame_column is None else "frame",
        places=tuple(places),
        values=tuple(np.split(values[order], cuts)),
        notes=tuple(notes),
        split_made=split_column is None,
    )


def _splits(
    path: Path,
    videos: NDArray[np.str_],
    owner: NDArray[np.int64],
    column: str | None,
    cells: pd.DataFrame,
) -> tuple[NDArray[np.str_], list[str]]:
    """Give the split of each video; all its rows must agree."""
    if column is None:
        made = make_split([str(video) for video in videos])
        counts = ", ".join(f"{name} {(made == name).sum()}" for name in ("train", "val", "test"))
        return made, [f"{path} has no split column: split by a hash of the video ({counts})"]
    of_row = read_split(path, [str(videos[i]) for i in owner], cells[column])
    first = np.unique(owner, return_index=True)[1]
    split: NDArray[np.str_] = of_row[first]
    if (wrong := split[owner] != of_row).any():
        raise LabelError(f"{path}: {str(videos[owner[wrong.argmax()]])!r} stands in two splits")
    return split, []


def _checked(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn what was not annotated into NaN; both values or none are known of a frame."""
    values = np.where(values == MISSING, np.nan, values)
    outside = (np.abs(values) > 1 + 1e-9).any(axis=1) | np.isinf(values).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise LabelError(
            f"{path}: row {row + 2} has valence, arousal {values[row, 0]:g}, {values[row, 1]:g}: "
            f"they lie in [-1, 1], and -5 means not annotated"
        )
    values[np.isnan(values).any(axis=1)] = np.nan
    return values


def lay_over(
    places: NDArray[np.float64], values: NDArray[np.float64], times: NDArray[np.float64] | int
) -> tuple[NDArray[np.float64], int]:
    """Give each stored frame of a video its label.

    Parameters
    ----------
    places : ndarray, shape (labels,)
        Ascending: numbers of frames, or seconds.
    values : ndarray, shape (labels, 2)
    times : ndarray, shape (frames,), or int
        Time stamps, where places are seconds; otherwise the number of frames.

    Returns
    -------
    ndarray, shape (frames, 2)
        NaN without a label. By time: that of the nearest one within half a frame.
    int
        Labels with values that lie behind the last frame (by time: by more than half a frame).
    """
    known = ~np.isnan(values[:, 0])
    if isinstance(times, int):
        out, inside = np.full((times, 2), np.nan), places < times
        out[places[inside].astype(np.int64)] = values[inside]
        return out, int((known & ~inside).sum())
    out = np.full((len(times), 2), np.nan)
    if not len(times) or not len(places):
        return out, int(known.sum())
    half = 0.5 * float(np.median(np.diff(times))) if len(times) > 1 else 0.02
    after = np.clip(np.searchsorted(places, times), 1, max(len(places) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(places) - 1)
    nearest = np.where(times - places[before] <= places[after] - times, before, after)
    close = np.abs(places[nearest] - times) <= half + 1e-9
    out[close] = values[nearest[close]]
    return out, int((known & (places > times[-1] + half)).sum())
