"""Check a store against `features/SPEC.md`: every MUST, by its number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from feie.features.errors import FeieError, StoreVersionError
from feie.features.schema import AFFECT
from feie.features.store.layout import (
    FAILED,
    STATUSES,
    SUPERSEDED,
    VIDEO_ARRAYS,
    ArraySpec,
    frame_arrays,
)
from feie.features.store.reader import Store, open_store

_ROOT_ATTRIBUTES = ("spec_version", "columns", "groups", "provenance", "committed")
_SESSION_KEYS = {"started", "ended", "first", "last", "versions"}
_BAD_ID = re.compile(r"[\x00-\x1f\x7f\\]|(^|/)(\.{0,2})(/|$)")
_ROUNDING = 1e-3


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
    """
    try:
        root = zarr.open_group(str(path), mode="r", use_consolidated=False)
        missing = [name for name in _ROOT_ATTRIBUTES if name not in root.attrs]
        if missing:
            return [Violation("S1", f"root attribute {', '.join(missing)} is missing")]
        version = root.attrs["spec_version"]
        if not re.fullmatch(r"\d+\.\d+", str(version)):
            return [Violation("S2", f"spec_version is {version!r}")]
        structure = list(_check_structure(root))
        if structure:
            return structure
        store = open_store(path)
    except StoreVersionError as error:
        return [Violation("S2", str(error))]
    except FeieError as error:
        return [Violation("S3", str(error))]
    except Exception as error:  # a damaged file may fail anywhere inside zarr: name it, go on
        return [Violation("S1", f"cannot be read: {error}")]
    return [*_check_provenance(store), *_check_index(store), *_check_frames(store)]


def _check_structure(root: zarr.Group) -> Iterator[Violation]:
    attributes: dict[str, Any] = dict(root.attrs)
    columns, groups = attributes["columns"], attributes["groups"]
    sound = len(set(columns)) == len(columns) and all(
        len(span) == 2 and 0 <= span[0] < span[1] <= len(columns) for span in groups.values()
    )
    if not sound:
        yield Violation("S3", f"columns {columns} and groups {groups} do not fit")
        return
    committed = attributes["committed"]
    if not isinstance(committed, int) or committed < 0:
        yield Violation("S4", f"committed is {committed!r}")
        return
    offset = root.get("video/offset")
    frames = 0
    if isinstance(offset, zarr.Array) and offset.shape[0] > committed:
        frames = int(np.asarray(offset[committed]))
    schema_arrays = frame_arrays(AFFECT)
    for prefix, specs, rule in (("", schema_arrays, "S6"), ("video/", VIDEO_ARRAYS, "S10")):
        for spec in specs:
            rows = frames if not prefix else committed + (spec.name == "offset")
            array = root.get(prefix + spec.name)
            if not isinstance(array, zarr.Array):
                yield Violation(rule, f"array {prefix}{spec.name} is missing")
            else:
                width = (len(columns),) if spec.name == "affect" else spec.shape
                yield from _check_array(array, spec, width, rows, rule)


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


def _check_provenance(store: Store) -> Iterator[Violation]:
    made = store.provenance
    for part in ("extractor", "detector"):
        found = made.get(part)
        if part == "detector" and found is None and "detector" in made:
            continue
        if not found or not re.fullmatch(r"[0-9a-f]{64}", str(found.get("sha256"))):
            yield Violation("S5", f"provenance.{part} names no weights by sha256")
    if not isinstance(made.get("options"), dict):
        yield Violation("S5", "provenance.options is missing")
    sessions = made.get("sessions")
    if not isinstance(sessions, list) or any(not set(s) >= _SESSION_KEYS for s in sessions):
        yield Violation("S5", f"provenance.sessions must hold {', '.join(sorted(_SESSION_KEYS))}")
        return
    covered = [row for s in sessions for row in range(s["first"], s["last"])]
    if covered != list(range(store.committed)):
        yield Violation("S5", "provenance.sessions do not cover the committed videos")


def _check_index(store: Store) -> Iterator[Violation]:
    index = store.rows
    offsets = np.asarray(store.array("video/offset")[: store.committed + 1])
    lengths = index["length"].to_numpy()
    if offsets[0] != 0 or (np.diff(offsets) != lengths).any() or (lengths < 0).any():
        yield Violation("S11", "video/offset and video/length do not agree")
    for row in index.itertuples():
        video_id, status = str(row.id), str(row.status)
        if status not in STATUSES:
            yield Violation("S12", f"{video_id}: status is {status!r}")
        if status == FAILED and (row.length or not row.message):
            yield Violation("S12", f"{video_id}: failed, with frames or without a message")
        if not video_id or _BAD_ID.search(video_id):
            yield Violation("S13", f"id {video_id!r} is no plain relative path")


def _check_frames(store: Store) -> Iterator[Violation]:
    standard = store.schema == AFFECT
    row: Any
    for row in store.rows[store.rows["status"] != SUPERSEDED].itertuples():
        span = slice(int(row.offset), int(row.offset) + int(row.length))
        try:
            arrays = {
                spec.name: np.asarray(store.array(spec.name)[span])
                for spec in frame_arrays(store.schema)
            }
        except Exception as error:  # zarr raises several kinds for a chunk that does not decode
            yield Violation("S15", f"{row.id}: a chunk cannot be read: {error}")
            continue
        for rule, message in _check_video(arrays, row, standard):
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
