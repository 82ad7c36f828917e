"""From the rows of a table to videos: who is who, gaps, faces that are there, time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import VideoError
from feie.features.formats.reading.columns import Columns
from feie.features.formats.reading.imported import ImportedVideo, ReadOptions
from feie.features.formats.reading.layout import Layout, TimeUnit
from feie.features.formats.reading.people import main_person, people
from feie.features.schema import Schema

NOT_FINITE = "frames with a missing or infinite number count as frames without a face"
LEFT_OUT = "frames that a file leaves out are kept as frames without a face"
BEFORE = "frames before the first row of a file are kept as frames without a face"
EVERY_KTH = "of every k-th frame one row is kept: label such videos by time, not by frame"
SEVERAL = "of several faces the one with the most frames is kept (--all-faces keeps each)"
_MOST_LEFT_OUT = 100_000
_USUAL_RATES = (0.2, 300.0)  # from a face every few seconds to the cameras of micro-expressions
_SURE = np.log(20)  # to one, that a file is of every k-th frame
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")
_FLOAT32 = np.finfo(np.float32).max


@dataclass(frozen=True)
class _Grid:
    """The frames of a video: how many, the row of each table row, and their time stamps."""

    frames: int
    place: NDArray[np.int64]
    time: NDArray[np.float64] | None
    notes: tuple[str, ...]


def videos(
    video_id: str, columns: Columns, layout: Layout, schema: Schema, options: ReadOptions
) -> Iterator[ImportedVideo]:
    """Give the video that the rows of a table are about; with all faces, one a person.

    Parameters
    ----------
    video_id : str
    columns : Columns
        All rows of one video, of all columns that `layout` and `schema` name.
    layout : Layout
    schema : Schema
        The columns wanted.
    options : ReadOptions

    Raises
    ------
    VideoError
        The rows make no sense as frames of a video.
    """
    if not columns.rows:
        raise VideoError("empty", "there is no row")
    values = _values(columns, layout, schema)
    finite = np.isfinite(values)
    found = _found(columns, layout, finite)
    valid = found & finite.all(axis=1)
    if found.any() and not valid.any():
        some = np.asarray(finite[found].any(axis=0))
        never = [schema.columns[i] for i in np.flatnonzero(~some)]
        raise VideoError(
            "broken",
            f"column {', '.join(never[:5])} has gaps throughout; leave its group out with --groups"
            if never
            else "every frame lacks some number",
        )
    grid = _grid(columns, layout, options)
    notes = list(grid.notes)
    if (found & ~valid).any():
        notes.append(NOT_FINITE)
    persons = people(columns, layout, grid.place, valid, apart=options.all_faces)
    if options.all_faces:
        chosen = list(enumerate(persons, start=1))
    else:
        if len(persons) > 1:
            notes.append(SEVERAL)
        chosen = [(0, main_person(persons, valid))]
    for number, rows in chosen:
        yield _video(
            f"{video_id}#{number}" if number else video_id,
            columns,
            layout,
            schema,
            values,
            valid,
            rows,
            grid,
            tuple(notes),
            options,
        )


def seconds(values: NDArray[np.float64], unit: TimeUnit) -> NDArray[np.float64]:
    """Turn time stamps into seconds.

    Files of several tools call a column milliseconds and hold seconds, or do not say: with unit
    ``auto``, stamps that are one or more apart are taken for milliseconds, as no video has less
    than one frame a second and none more than a thousand.
    """
    if unit == "auto":
        steps = np.diff(np.unique(values))
        unit = "ms" if len(steps) and np.median(steps) >= 1 else "s"
    return values / 1000.0 if unit == "ms" else values


def _values(columns: Columns, layout: Layout, schema: Schema) -> NDArray[np.float32]:
    values = np.empty((columns.rows, len(schema)), np.float32)
    for place, name in enumerate(schema.columns):
        column, _, word = name.partition("=")
        if column in layout.labels:
            words = columns.words[column]
            known = np.isin(words, layout.labels[column])
            values[:, place] = np.where(known, words == word, np.nan)
        else:
            numbers = columns.numbers[name]
            # What float32 cannot hold is as good as infinite; and NaN compares as false.
            small = np.abs(numbers) <= _FLOAT32
            values[:, place] = np.where(small, numbers, np.nan)
    return values


def _found(columns: Columns, layout: Layout, finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not layout.found:
        return np.asarray(finite.any(axis=1))
    said = np.char.lower(columns.words[layout.found].astype(str))
    known = np.isin(said, [*_YES, *_NO])
    if not known.all():
        row = int(np.argmin(known))
        raise VideoError(
            "broken", f"row {row + 2}: column {layout.found} holds {str(said[row])!r}, not 0 or 1"
        )
    return np.asarray(np.isin(said, _YES))


def _grid(columns: Columns, layout: Layout, options: ReadOptions) -> _Grid:
    """Find the place of each row among the frames, those that are left out included."""
    stamps = None
    if layout.time and options.fps is None:
        stamps = columns.numbers[layout.time]
        if not np.isfinite(stamps).all():
            row = int(np.argmin(np.isfinite(stamps))) + 2
            raise VideoError("broken", f"row {row}: column {layout.time} holds no time")
        stamps = seconds(stamps, layout.unit)
    if not layout.frame:
        if stamps is None and options.fps is not None:
            stamps = np.arange(columns.rows) / options.fps
        if stamps is not None:
            _check_rising(stamps, layout)
            refuse_standing(stamps)
        return _Grid(columns.rows, np.arange(columns.rows), stamps, ())
    numbers = columns.numbers[layout.frame]
    if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
        raise VideoError("broken", f"column {layout.frame} holds other things than whole numbers")
    known, first_row = np.unique(numbers, return_index=True)
    if len(known) and np.abs(known).max() > 2**53:
        raise VideoError("broken", f"column {layout.frame} holds numbers that count no frames")
    step = _step(np.diff(known))
    # A file that begins late: its face came late, and labels count the frames before it, too.
    before = max(0, int(known[0] - (layout.first or 0)) // step)
    frames = before + int((known[-1] - known[0]) // step) + 1
    if frames - len(known) > _MOST_LEFT_OUT:
        ends = np.insert(known, 0, known[0] - before * step)
        leap = int(np.diff(ends).argmax())
        raise VideoError(
            "broken",
            f"column {layout.frame} leaps from {ends[leap]:.0f} to {ends[leap + 1]:.0f}: these are "
            f"not the frames of one video",
        )
    place = before + ((numbers - known[0]) // step).astype(np.int64)
    every = known[0] + step * np.arange(-before, frames - before)
    if options.fps is not None:
        time: NDArray[np.float64] | None = (every - (layout.first or 0)) / options.fps
    elif stamps is None:
        time = None
    else:
        _check_rising(stamps[first_row], layout)
        refuse_standing(stamps[first_row])
        time = _times(every, known, stamps[first_row], before)
    notes = [
        *([BEFORE] if before else []),
        *([LEFT_OUT] if frames - before > len(known) else []),
        *([EVERY_KTH] if step > 1 else []),
    ]
    return _Grid(frames, place, time, tuple(notes))


def refuse_standing(stamps: NDArray[np.float64]) -> None:
    """Refuse time stamps that are all one, as tools write them for images: they time nothing.

    Raises
    ------
    VideoError
        ``untimed``.
    """
    if len(stamps) > 1 and stamps.max() == stamps.min():
        raise VideoError(
            "untimed",
            f"all its {len(stamps)} time stamps are {stamps[0]:g}: say how many frames there are "
            f"a second with --fps",
        )


def _step(steps: NDArray[np.float64]) -> int:
    """Frames from one row to the next: files of every k-th frame leave nothing out.

    A face that is seen a few times is no such file, though gaps of any length have a factor k in
    common by chance, n of them with a probability of some k ** (1 - n).
    """
    common = int(np.gcd.reduce(steps.astype(np.int64))) if len(steps) else 1
    return common if (len(steps) - 1) * np.log(common) >= _SURE else 1


def _times(
    every: NDArray[np.float64],
    known: NDArray[np.float64],
    stamps: NDArray[np.float64],
    before: int,
) -> NDArray[np.float64]:
    """Time all frames from the stamps of some; those before the first one as a video begins, at 0.

    Where the first stamp fits no beginning at 0, as in a part that was cut out of a recording,
    they are as far apart as the others, and may be negative.
    """
    time = np.interp(every, known, stamps)
    if before:
        spent = stamps[-1] - stamps[0]
        usual = spent / (known[-1] - known[0]) * (every[1] - every[0]) if spent > 0 else 0.0
        apart = stamps[0] / before
        if usual and not 0.5 <= apart / usual <= 4.0:
            apart = usual
        time[:before] = stamps[0] - apart * np.arange(before, 0, -1)
        # What rounding leaves of 0.
        time[:before][np.abs(time[:before]) < 1e-9] = 0.0
    return np.asarray(time, np.float64)


def _check_rising(stamps: NDArray[np.float64], layout: Layout) -> None:
    if (np.diff(stamps) < 0).any():
        row = int(np.argmax(np.diff(stamps) < 0)) + 1
        raise VideoError(
            "broken",
            f"time runs back, from {stamps[row - 1]:g} s to {stamps[row]:g} s in column "
            f"{layout.time}; are these the rows of one video, in order?",
        )


def _video(
    video_id: str,
    columns: Columns,
    layout: Layout,
    schema: Schema,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    rows: NDArray[np.int64],
    grid: _Grid,
    notes: tuple[str, ...],
    options: ReadOptions,
) -> ImportedVideo:
    """Spread the rows of one person over the frames."""
    place, good = grid.place[rows], valid[rows]

    def spread(source: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.full((grid.frames, *source.shape[1:]), np.nan, np.float32)
        out[place[good]] = source[rows[good]]
        return out

    there = np.zeros(grid.frames, np.bool_)
    there[place] = good
    width, height = _size(columns, layout)
    fps = rate(grid.time)
    return ImportedVideo(
        video_id=video_id,
        schema=schema,
        values=spread(values),
        valid=there,
        time=grid.time,
        fps=fps,
        face_score=spread(_float32(columns, layout.score)) if layout.score else None,
        bbox=spread(_box(columns, layout)) if layout.box else None,
        landmarks=spread(_points(columns, layout)) if layout.points else None,
        width=width,
        height=height,
        notes=(*notes, *doubts(fps, options)),
    )


def doubts(fps: float | None, options: ReadOptions) -> tuple[str, ...]:
    """Say a rate that hardly any camera or tool has: stamps may be in another unit."""
    low, high = _USUAL_RATES
    if fps is None or options.fps is not None or low <= fps <= high:
        return ()
    said = float(f"{fps:.2g}")
    return (f"time stamps give {said:g} frames a second; if that is wrong, say it with --fps",)


def rate(time: NDArray[np.float64] | None) -> float | None:
    """Frames a second on average; None where time does not say."""
    if time is None or len(time) < 2 or time[-1] <= time[0]:
        return None
    return round((len(time) - 1) / float(time[-1] - time[0]), 3)


def _float32(columns: Columns, name: str) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return columns.numbers[name].astype(np.float32)


def _box(columns: Columns, layout: Layout) -> NDArray[np.float32]:
    x, y, width, height = (_float32(columns, name) for name in layout.box)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([x, y, x + width, y + height], axis=1)


def _points(columns: Columns, layout: Layout) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        means = [
            np.mean([_float32(columns, name) for name in names], axis=0) for names in layout.points
        ]
    return np.stack(means, axis=1).reshape(-1, 5, 2)


def _size(columns: Columns, layout: Layout) -> tuple[int, int]:
    if not layout.size:
        return 0, 0
    sides = []
    for name in layout.size:
        numbers = columns.numbers[name]
        sane = numbers[(numbers > 0) & (numbers < 1 << 16)]
        sides.append(int(sane[0]) if len(sane) else 0)
    return sides[0], sides[1]
