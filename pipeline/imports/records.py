"""From an imported video to what the store keeps of it; what does not fit is a named failure."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import VideoError
from feie.features.formats.reading.imported import ImportedVideo
from feie.features.schema import Schema
from feie.features.store.check import is_plain_id
from feie.features.store.records import VideoRecord
from feie.features.video.sources import Source
from feie.pipeline.imports.plan import digest

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f\\%]")
UNTIMED = "its frames are counted, not timed: say how many there are a second with --fps"


def untimed(video: ImportedVideo) -> bool:
    """Tell a video whose frames have no place in time."""
    return video.time is None and video.fps is None and len(video.valid) > 1


def record_of(video: ImportedVideo, file: Source, schema: Schema, embedding: int) -> VideoRecord:
    """Make of a video what the store keeps; what does not fit becomes a failure."""
    try:
        if video.failure:
            return _failure(video.video_id, file, video.failure)
        return _good(video, file, schema, embedding)
    except VideoError as error:
        return _failure(video.video_id, file, str(error))


def _good(video: ImportedVideo, file: Source, schema: Schema, embedding: int) -> VideoRecord:
    if not is_plain_id(video.video_id):
        raise VideoError(
            "broken", f"{file.relative}: {video.video_id!r} is no name that a video can have"
        )
    if untimed(video):
        raise VideoError("untimed", f"{file.relative}: {UNTIMED}")
    frames = len(video.valid)
    rate = video.fps or 0.0
    time = np.arange(frames) / (rate or 1.0) if video.time is None else video.time
    if (0 if video.embedding is None else video.embedding.shape[1]) != embedding:
        raise VideoError("columns", f"{file.relative}: its embedding is not {embedding} wide")
    return VideoRecord(
        id=video.video_id,
        source=file.relative,
        size=file.size,
        mtime_ns=file.mtime_ns,
        fingerprint=digest(file),
        fps=rate,
        width=video.width,
        height=video.height,
        affect=_in_order(video, file, schema),
        time=time,
        valid=video.valid,
        face_score=_or_nan(video.face_score, (frames,)),
        bbox=_or_nan(video.bbox, (frames, 4)),
        landmarks=_or_nan(video.landmarks, (frames, 5, 2)),
        embedding=video.embedding,
    )


def _in_order(video: ImportedVideo, file: Source, schema: Schema) -> NDArray[np.float32]:
    """Give the values in the order of the store's columns."""
    if video.schema == schema:
        return video.values
    lacks = [name for name in schema.columns if name not in video.schema.columns]
    adds = [name for name in video.schema.columns if name not in schema.columns]
    if lacks or adds:
        said = [
            f"{verb} {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
            for verb, names in (("lacks", lacks), ("adds", adds))
            if names
        ]
        raise VideoError("columns", f"{file.relative} {' and '.join(said)}, unlike the others")
    places = {name: i for i, name in enumerate(video.schema.columns)}
    return video.values[:, [places[name] for name in schema.columns]]


def _or_nan(values: NDArray[np.float32] | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.full(shape, np.nan, np.float32) if values is None else values


def _failure(video_id: str, file: Source, message: str) -> VideoRecord:
    return VideoRecord.failure(
        _plain(video_id),
        message,
        source=file.relative,
        size=file.size,
        mtime_ns=file.mtime_ns,
        fingerprint=digest(file),
    )


def _plain(video_id: str) -> str:
    """Give an id that a store may hold; what it may not is percent-encoded, so that none is lost.

    Different ids stay different.
    """
    if is_plain_id(video_id):
        return video_id
    text = _NOT_IN_IDS.sub(lambda found: f"%{ord(found[0]):02X}", video_id)
    parts = [part if part.strip(".") else part.replace(".", "%2E") for part in text.split("/")]
    return "/".join(part or "%" for part in parts)
