"""Check a store against `features/SPEC.md`: every MUST, by its number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from feie.features.errors import FeieError, LinkError, StoreError, one_line
from feie.features.schema import AFFECT
from feie.features.store.backends.location import open_root
from feie.features.store.contents import coding_oddity, row_oddity, type_oddity
from feie.features.store.index import refuse_absent_rows
from feie.features.store.layout import (
    FAILED,
    SPEC_VERSION,
    STATUSES,
    VIDEO_ARRAYS,
    ArraySpec,
    frame_arrays,
    rows_within,
)
from feie.features.store.reader import Store, open_store, read_attributes

_ROOT_ATTRIBUTES = ("spec_version", "columns", "groups", "provenance", "committed")
_SESSION_KEYS = {"started", "ended", "first", "last", "versions"}
_BAD_ID = re.compile(r"[\x00-\x1f\x7f\\]|(^|/)(\.{0,2})(/|$)")
_ROUNDING = 1e-3
_BLOCK_ROWS = 65_536
_BLOCK_VALUES = 1 << 24  # 64 MB
_MOST_NAMED = 1_000
_OF_VIDEO = ["id", "offset", "length", "faces"]


@dataclass(frozen=True)
class Violation:
    """One broken rule.

    Attributes
    ----------
    rule : str
        Its number in SPEC.md, e.g. ``"S7"``.
    message : str
        Where and how.
    """

    rule: str
    message: str


def check_store(path: str | Path) -> list[Violation]:
    """Read every committed byte of a store and name each broken MUST.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    list of Violation
        Empty for a sound store. Where a rule is broken, all that can still be looked at is.

    Raises
    ------
    StoreError
        Nothing is there, or what reads such a place is not installed.
    """
    attributes = _attributes(str(path))
    if isinstance(attributes, Violation):
        return [attributes]
    found: list[Violation] = []
    root = open_root(str(path))
    arrays = _arrays(root, attributes)
    found += _carefully(_check_attributes(attributes))
    found += _carefully(_check_provenance(attributes))
    found += _carefully(_check_structure(root, attributes, arrays))
    found += _carefully(_check_index(str(path), attributes, arrays))
    try:
        frames: Iterator[Violation] = _check_frames(open_store(path))
    except Exception as error:
        if not found:
            found.append(Violation("S1", f"cannot be read: {one_line(error)}"))
        frames = _check_bytes(attributes, arrays)
    found += islice(_carefully(frames), _MOST_NAMED)
    return list(dict.fromkeys(found))


def _carefully(violations: Iterator[Violation]) -> Iterator[Violation]:
    """Give violations, and one more where looking for them meets damage."""
    try:
        yield from violations
    except Exception as error:  # a damaged file may fail anywhere inside zarr: name it
        yield Violation("S1", f"cannot be read: {type(error).__name__}: {one_line(error)}")


def is_plain_id(video_id: str) -> bool:
    """Tell whether a video id is one by rule S13: a relative path without surprises."""
    return bool(video_id) and not _BAD_ID.search(video_id)


def _attributes(path: str) -> dict[str, Any] | Violation:
    try:
        return read_attributes(path)
    except LinkError as error:
        return Violation("S1", str(error))
    except FeieError:
        raise
    except Exception as error:
        return Violation("S1", f"zarr.json cannot be read: {type(error).__name__}: {error}")


def _check_attributes(attributes: Mapping[str, Any]) -> Iterator[Violation]:
    missing = [name for name in _ROOT_ATTRIBUTES if name not in attributes]
    if missing:
        yield Violation("S1", f"root attribute {', '.join(missing)} is missing")
    version = str(attributes.get("spec_version", SPEC_VERSION))
    known = SPEC_VERSION.split(".")[0]
    if not re.fullmatch(r"\d+\.\d+", version) or version.split(".")[0] != known:
        yield Violation("S2", f"spec_version is {version}, known is {SPEC_VERSION}")
    columns, groups = attributes.get("columns", []), attributes.get("groups", {})
    sound = (
        isinstance(columns, list)
        and isinstance(groups, dict)
        and len({str(c) for c in columns}) == len(columns)
        and all(_is_span(span, len(columns)) for span in groups.values())
    )
    if not sound:
        yield Violation("S3", f"columns {_short(columns)} and groups {_short(groups)} do not fit")
    if "committed" in attributes and _committed(attributes) is None:
        yield Violation("S4", f"committed is {_short(attributes['committed'])}")


def _is_span(span: object, columns: int) -> bool:
    return (
        isinstance(span, list)
        and len(span) == 2
        and all(type(n) is int for n in span)
        and 0 <= span[0] < span[1] <= columns
    )


def _committed(attributes: Mapping[str, Any]) -> int | None:
    """Give the number of videos that count; None where that is no number."""
    found = attributes.get("committed")
    return found if type(found) is int and found >= 0 else None


def _short(value: object) -> str:
    return shorten(repr(value), 200, placeholder=" …")


Arrays = list[tuple[str, ArraySpec, Any, str]]
"""Name, specification, array (or what else is there, or the error that it gave), and rule of each
array of a store."""


def _arrays(root: zarr.Group, attributes: Mapping[str, Any]) -> Arrays:
    """Open every array that a store must have."""
    embedding = _opened(root, "embedding")
    made = attributes.get("provenance")
    options = made.get("options") if isinstance(made, dict) else None
    wanted = isinstance(options, dict) and bool(options.get("embedding"))
    width = embedding.shape[1] if isinstance(embedding, zarr.Array) and embedding.ndim == 2 else 1
    kept = embedding is not None or wanted
    return [
        (prefix + spec.name, spec, _opened(root, prefix + spec.name), rule)
        for prefix, specs, rule in (
            ("", frame_arrays(AFFECT, width if kept else 0), "S6"),
            ("video/", VIDEO_ARRAYS, "S10"),
        )
        for spec in specs
    ]


def _opened(root: zarr.Group, name: str) -> Any:
    try:
        return root.get(name)
    except Exception as error:  # a damaged file may fail anywhere inside zarr
        return error


def _frames(attributes: Mapping[str, Any], arrays: Arrays) -> int:
    """Give the number of committed frames; 0 where the index does not say."""
    committed = _committed(attributes)
    offset = next(array for name, _, array, _ in arrays if name == "video/offset")
    try:
        return int(np.asarray(offset[committed]))
    except Exception:
        return 0


def _check_structure(
    root: zarr.Group, attributes: Mapping[str, Any], arrays: Arrays
) -> Iterator[Violation]:
    committed, frames = _committed(attributes) or 0, _frames(attributes, arrays)
    columns = attributes.get("columns")
    videos = _opened(root, "video")
    if isinstance(videos, Exception):
        yield Violation("S10", f"group video cannot be read: {one_line(videos)}")
    elif not isinstance(videos, zarr.Group):
        yield Violation("S10", "group video is missing")
    for name, spec, array, rule in arrays:
        if array is None or isinstance(array, zarr.Group):
            yield Violation(rule, f"array {name} is missing")
        elif isinstance(array, Exception):
            yield Violation(rule, f"array {name} cannot be read: {one_line(array)}")
        else:
            shape = spec.shape
            if name == "affect" and isinstance(columns, list):
                shape = (len(columns),)
            rows = committed + (spec.name == "offset") if rule == "S10" else frames
            yield from _check_array(array, spec, shape, rows, rule)


def _check_array(
    array: zarr.Array[Any], spec: ArraySpec, width: tuple[int, ...], rows: int, rule: str
) -> Iterator[Violation]:
    name = array.path
    if (why := type_oddity(array, spec, width)) or (why := row_oddity(array, rows)):
        yield Violation(rule, why)
    if array.metadata.dimension_names != spec.dims:  # type: ignore[union-attr]
        yield Violation(rule, f"{name} has dimensions {array.metadata.dimension_names}")  # type: ignore[union-attr]
    if why := coding_oddity(array):
        yield Violation("S16", why)
    if not any(isinstance(codec, Crc32cCodec) for codec in array.compressors):
        yield Violation("S15", f"{name} has no checksum")


def _check_provenance(attributes: Mapping[str, Any]) -> Iterator[Violation]:
    made = attributes.get("provenance", {})
    if not isinstance(made, dict):
        yield Violation("S5", f"provenance is {_short(made)}")
        return
    options = made.get("options")
    imported = isinstance(options, dict) and isinstance(options.get("import_format"), str)
    for part in ("extractor", "detector"):
        found = made.get(part)
        if part == "detector" and found is None and "detector" in made:
            continue
        named = isinstance(found, dict) and bool(found.get("name"))
        digest = found.get("sha256", "") if isinstance(found, dict) else ""
        sound = re.fullmatch(r"[0-9a-f]{64}", str(digest)) is not None
        # Files of other tools do not say by which weights they were made.
        if not named or not (sound or (imported and digest is None)):
            yield Violation("S5", f"provenance.{part} names no weights by sha256")
    if not isinstance(made.get("options"), dict):
        yield Violation("S5", "provenance.options is missing")
    sessions = made.get("sessions")
    if not isinstance(sessions, list) or not all(
        isinstance(s, dict) and set(s) >= _SESSION_KEYS for s in sessions
    ):
        yield Violation("S5", f"provenance.sessions must hold {', '.join(sorted(_SESSION_KEYS))}")
        return
    reached: object = 0
    for first, last in ((s["first"], s["last"]) for s in sessions):
        if type(first) is not int or type(last) is not int or first != reached or last < first:
            reached = None
            break
        reached = last
    if reached != attributes.get("committed"):
        yield Violation("S5", "provenance.sessions do not cover the committed videos")


def _check_index(path: str, attributes: Mapping[str, Any], arrays: Arrays) -> Iterator[Violation]:
    count, index = _committed(attributes), {}
    for name, spec, array, _ in arrays:
        if name == "video/id" and count and _is_readable(array, spec):
            try:
                refuse_absent_rows(path, count, _reader(array))
            except Exception as error:  # the codecs raise several kinds
                yield Violation("S10", one_line(error))
                return
    for name, spec, array, rule in arrays:
        if rule != "S10" or count is None or not _is_readable(array, spec):
            continue
        rows = count + (spec.name == "offset")
        if row_oddity(array, rows):
            continue
        try:
            index[spec.name] = np.asarray(array[:rows])
        except Exception as error:  # the codecs raise several kinds
            yield Violation("S15", f"{name}: a chunk cannot be read: {one_line(error)}")
    if {"offset", "length"} <= index.keys():
        offsets, lengths = index["offset"], index["length"]
        if offsets[0] != 0 or (np.diff(offsets) != lengths).any() or (lengths < 0).any():
            yield Violation("S11", "video/offset and video/length do not agree")
    ids = [str(video_id) for video_id in index.get("id", ())]
    for row, video_id in enumerate(ids):
        if not is_plain_id(video_id):
            yield Violation("S13", f"id {video_id!r} is no plain relative path")
        if "status" not in index:
            continue
        status = str(index["status"][row])
        if status not in STATUSES:
            yield Violation("S12", f"{video_id}: status is {status!r}")
        has_frames = "length" in index and bool(index["length"][row])
        is_silent = "message" in index and not index["message"][row]
        if status == FAILED and (has_frames or is_silent):
            yield Violation("S12", f"{video_id}: failed, with frames or without a message")


def _is_readable(array: object, spec: ArraySpec) -> bool:
    """Tell whether the bytes of an array can be read without danger."""
    if not isinstance(array, zarr.Array) or array.ndim != 1 + len(spec.shape):
        return False
    return not type_oddity(array, spec, array.shape[1:]) and not coding_oddity(array)


def _check_bytes(attributes: Mapping[str, Any], arrays: Arrays) -> Iterator[Violation]:
    """Read the frames of a store whose index or attributes cannot be relied on."""
    frames = _frames(attributes, arrays)
    for name, spec, array, rule in arrays:
        if rule != "S6" or not _is_readable(array, spec):
            continue
        height = array.chunks[0]
        for start in range(0, min(array.shape[0], frames), height):
            try:
                array[start : start + height]
            except Exception as error:  # the codecs raise several kinds
                yield Violation("S15", f"{name}: a chunk cannot be read: {one_line(error)}")


def _check_frames(store: Store) -> Iterator[Violation]:
    """Look at every committed row, in blocks of whole chunks, so that none is read twice."""
    names = [spec.name for spec in frame_arrays(store.schema)]
    names += ["embedding"] if store.has_embedding else []
    size = rows_within(len(store.schema), _BLOCK_ROWS, _BLOCK_VALUES)
    videos = [_Video(store.schema == AFFECT, *row) for row in store.rows[_OF_VIDEO].values]
    total, first = videos[-1].stop if videos else 0, 0
    for start in range(0, total, size):
        stop = min(start + size, total)
        while first < len(videos) and videos[first].stop <= start:
            first += 1
        last = first
        while last < len(videos) and videos[last].start < stop:
            last += 1
        here = videos[first:last]
        arrays = {}
        try:
            for name in names:
                arrays[name] = store.read_rows(name, slice(start, stop))
        except StoreError as error:
            where = f"{here[0].id} … {here[-1].id}"
            yield Violation("S15", f"{where}: a chunk cannot be read: {error}")
        if len(arrays) < len(names):
            for video in here:
                video.whole = False
            continue
        if np.isnan(arrays["time"]).all():
            yield Violation("S9", f"frames {start} to {stop} have no time, as if a chunk were gone")
        for video in here:
            rows = slice(max(video.start - start, 0), min(video.stop, stop) - start)
            video.look_at({name: values[rows] for name, values in arrays.items()})
            if video.stop <= stop:
                for rule, message in video.broken():
                    yield Violation(rule, f"{video.id}: {message}")
    for video in videos:
        if video.start == video.stop:
            for rule, message in video.broken():
                yield Violation(rule, f"{video.id}: {message}")


class _Video:
    """What is known of a video after some of its rows."""

    def __init__(self, standard: bool, video_id: str, offset: int, length: int, faces: float):
        self.id, self.start, self.stop = str(video_id), int(offset), int(offset) + int(length)
        self.whole = True
        self._standard = standard
        self._faces = float(faces)
        self._valid = 0
        self._time = -np.inf
        self._rules: dict[str, str] = {}

    def look_at(self, arrays: dict[str, Any]) -> None:
        """Check the next rows."""
        affect, valid, time = arrays["affect"], arrays["valid"], arrays["time"]
        if not (np.isfinite(affect[valid]).all() and np.isnan(affect[~valid]).all()):
            self._rules["S7"] = "affect must be finite where valid and NaN elsewhere"
        elif self._standard and valid.any():
            faces = affect[valid]
            expressions = faces[:, slice(*AFFECT.groups["expr"])]
            in_range = (np.abs(faces[:, :2]) <= 1).all() and ((faces[:, 2:] >= 0).all())
            in_range = in_range and (faces[:, 2:] <= 1).all()
            if not in_range or (np.abs(expressions.sum(1) - 1) > _ROUNDING).any():
                self._rules["S8"] = "affect leaves its range"
        times = np.concatenate([[self._time], time])
        if not np.isfinite(time).all() or (np.diff(times) < 0).any():
            self._rules["S9"] = "time decreases or is not finite"
        self._time = times[-1]
        self._valid += int(valid.sum())

    def broken(self) -> Iterator[tuple[str, str]]:
        """Give the rules that its rows break, at their end."""
        share = self._valid / max(self.stop - self.start, 1)
        if self.whole and not abs(share - self._faces) <= _ROUNDING:
            said = f"faces says {self._faces:.4f}, {share:.4f} of the frames are valid"
            self._rules["S14"] = said
        yield from self._rules.items()


def _reader(array: zarr.Array[Any]) -> Callable[[str, slice], Any]:
    return lambda _, rows: np.asarray(array[rows])
