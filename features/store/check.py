"""Check a store against `features/SPEC.md`: every MUST, by its number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from feie.features.errors import FeieError
from feie.features.schema import AFFECT
from feie.features.store.backends.location import open_root
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
        Empty for a sound store. Rules that build on a broken one are not looked at.

    Raises
    ------
    StoreError
        Nothing is there, or what reads such a place is not installed.
    """
    attributes = _attributes(str(path))
    if isinstance(attributes, Violation):
        return [attributes]
    for check in (_check_attributes, _check_structure, _check_provenance, _check_index):
        try:
            found = list(check(str(path), attributes))
        except Exception as error:  # a damaged file may fail anywhere inside zarr: name it
            found = [Violation("S1", f"cannot be read: {type(error).__name__}: {error}")]
        if found:
            return found
    return list(_check_frames(open_store(path)))


def is_plain_id(video_id: str) -> bool:
    """Tell whether a video id is one by rule S13: a relative path without surprises."""
    return bool(video_id) and not _BAD_ID.search(video_id)


def _attributes(path: str) -> dict[str, Any] | Violation:
    try:
        return read_attributes(path)
    except FeieError:
        raise
    except Exception as error:
        return Violation("S1", f"zarr.json cannot be read: {type(error).__name__}: {error}")


def _check_attributes(path: str, attributes: dict[str, Any]) -> Iterator[Violation]:
    missing = [name for name in _ROOT_ATTRIBUTES if name not in attributes]
    if missing:
        yield Violation("S1", f"root attribute {', '.join(missing)} is missing")
        return
    version = str(attributes["spec_version"])
    known = SPEC_VERSION.split(".")[0]
    if not re.fullmatch(r"\d+\.\d+", version) or version.split(".")[0] != known:
        yield Violation("S2", f"spec_version is {version}, known is {SPEC_VERSION}")
    columns, groups = attributes["columns"], attributes["groups"]
    sound = (
        isinstance(columns, list)
        and isinstance(groups, dict)
        and len({str(c) for c in columns}) == len(columns)
        and all(len(s) == 2 and 0 <= s[0] < s[1] <= len(columns) for s in groups.values())
    )
    if not sound:
        yield Violation("S3", f"columns {columns} and groups {groups} do not fit")
    committed = attributes["committed"]
    if type(committed) is not int or committed < 0:
        yield Violation("S4", f"committed is {committed!r}")


def _check_structure(path: str, attributes: dict[str, Any]) -> Iterator[Violation]:
    root = open_root(path)
    columns, committed = attributes["columns"], attributes["committed"]
    offset, embedding = root.get("video/offset"), root.get("embedding")
    frames = 0
    if isinstance(offset, zarr.Array) and offset.shape[0] > committed:
        frames = int(np.asarray(offset[committed]))
    width = embedding.shape[1] if isinstance(embedding, zarr.Array) else 0
    made = attributes["provenance"]
    if not width and isinstance(made, dict) and (made.get("options") or {}).get("embedding"):
        yield Violation("S6", "array embedding is missing")
    for prefix, specs, rule in (
        ("", frame_arrays(AFFECT, width), "S6"),
        ("video/", VIDEO_ARRAYS, "S10"),
    ):
        for spec in specs:
            rows = frames if not prefix else committed + (spec.name == "offset")
            array = root.get(prefix + spec.name)
            if not isinstance(array, zarr.Array):
                yield Violation(rule, f"array {prefix}{spec.name} is missing")
            else:
                shape = (len(columns),) if spec.name == "affect" else spec.shape
                yield from _check_array(array, spec, shape, rows, rule)


def _check_array(
    array: zarr.Array[Any], spec: ArraySpec, width: tuple[int, ...], rows: int, rule: str
) -> Iterator[Violation]:
    name = array.path
    is_text = spec.dtype is str
    if is_text != (array.dtype.kind == "T") or not (is_text or array.dtype == spec.dtype):
        yield Violation(rule, f"{name} has type {array.dtype}")
    if array.metadata.dimension_names != spec.dims:  # type: ignore[union-attr]
        yield Violation(rule, f"{name} has dimensions {array.metadata.dimension_names}")  # type: ignore[union-attr]
    if array.shape[1:] != width or array.shape[0] < rows:
        yield Violation(rule, f"{name} has shape {array.shape}, {rows} rows are committed")
    if not any(type(codec).__name__ == "Crc32cCodec" for codec in array.compressors):
        yield Violation("S15", f"{name} has no checksum")


def _check_provenance(path: str, attributes: dict[str, Any]) -> Iterator[Violation]:
    made = attributes["provenance"]
    if not isinstance(made, dict):
        yield Violation("S5", f"provenance is {made!r}")
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
    if not isinstance(sessions, list) or any(not set(s) >= _SESSION_KEYS for s in sessions):
        yield Violation("S5", f"provenance.sessions must hold {', '.join(sorted(_SESSION_KEYS))}")
        return
    covered = [row for s in sessions for row in range(s["first"], s["last"])]
    if covered != list(range(attributes["committed"])):
        yield Violation("S5", "provenance.sessions do not cover the committed videos")


def _check_index(path: str, attributes: dict[str, Any]) -> Iterator[Violation]:
    videos = open_root(path)["video"]
    assert isinstance(videos, zarr.Group)
    count = attributes["committed"]
    index = {}
    for spec in VIDEO_ARRAYS:
        array = videos[spec.name]
        assert isinstance(array, zarr.Array)
        try:
            index[spec.name] = np.asarray(array[: count + (spec.name == "offset")])
        except Exception as error:  # the codecs raise several kinds
            yield Violation("S15", f"video/{spec.name}: a chunk cannot be read: {error}")
    if len(index) < len(VIDEO_ARRAYS):
        return
    offsets, lengths = index["offset"], index["length"]
    if offsets[0] != 0 or (np.diff(offsets) != lengths).any() or (lengths < 0).any():
        yield Violation("S11", "video/offset and video/length do not agree")
    for row in range(count):
        video_id, status = str(index["id"][row]), str(index["status"][row])
        if status not in STATUSES:
            yield Violation("S12", f"{video_id}: status is {status!r}")
        if status == FAILED and (lengths[row] or not index["message"][row]):
            yield Violation("S12", f"{video_id}: failed, with frames or without a message")
        if not is_plain_id(video_id):
            yield Violation("S13", f"id {video_id!r} is no plain relative path")


def _check_frames(store: Store) -> Iterator[Violation]:
    """Look at every committed row, in blocks of whole videos, so that no chunk is read often."""
    standard = store.schema == AFFECT
    names = [spec.name for spec in frame_arrays(store.schema)]
    names += ["embedding"] if store.has_embedding else []
    index = store.rows
    row: Any
    size = rows_within(len(store.schema), _BLOCK_ROWS, _BLOCK_VALUES)
    for _, videos in index.groupby(index["offset"] // size):
        start = int(videos["offset"].iloc[0])
        stop = int((videos["offset"] + videos["length"]).iloc[-1])
        try:
            arrays = {name: np.asarray(store.array(name)[start:stop]) for name in names}
        except Exception as error:  # the codecs raise several kinds
            first, last = videos["id"].iloc[0], videos["id"].iloc[-1]
            yield Violation("S15", f"{first} … {last}: a chunk cannot be read: {error}")
            continue
        for row in videos.itertuples():
            span = slice(int(row.offset) - start, int(row.offset + row.length) - start)
            part = {name: values[span] for name, values in arrays.items()}
            for rule, message in _check_video(part, row, standard):
                yield Violation(rule, f"{row.id}: {message}")


def _check_video(arrays: dict[str, Any], row: Any, standard: bool) -> Iterator[tuple[str, str]]:
    affect, valid, time = arrays["affect"], arrays["valid"], arrays["time"]
    if np.isfinite(affect[valid]).all() and np.isnan(affect[~valid]).all():
        if standard and valid.any():
            faces = affect[valid]
            expressions = faces[:, slice(*AFFECT.groups["expr"])]
            in_range = (np.abs(faces[:, :2]) <= 1).all() and ((faces[:, 2:] >= 0).all())
            in_range = in_range and (faces[:, 2:] <= 1).all()
            if not in_range or (np.abs(expressions.sum(1) - 1) > _ROUNDING).any():
                yield "S8", "affect leaves its range"
    else:
        yield "S7", "affect must be finite where valid and NaN elsewhere"
    if not np.isfinite(time).all() or (np.diff(time) < 0).any():
        yield "S9", "time decreases or is not finite"
    share = float(valid.mean()) if len(valid) else 0.0
    if not abs(share - row.faces) <= _ROUNDING:
        yield "S14", f"faces says {row.faces:.4f}, {share:.4f} of the frames are valid"
