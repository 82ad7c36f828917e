"""A video in work, and the records that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import VideoError
from feie.features.faces.stream import FaceChunk
from feie.features.store.records import VideoRecord
from feie.features.video.remarks import Remarks
from feie.features.video.sources import Source
from feie.pipeline.engine.batching import Answers

_T = TypeVar("_T", bound=np.generic)

_PASSING = {"changed", "missing", "unreadable", "unexpected"}  # reasons that may not last

LEAST_TRACK = 5
"""Frames of the shortest track that is kept: what a detector sees for a moment is rarely a face."""


@dataclass
class OpenVideo:
    """What is known so far of a video in work.

    Attributes
    ----------
    ended : tuple of (fps, width, height), or None
        Set when all of its frames were seen.
    error : VideoError or None
        Why it cannot be processed.
    fallback_frames : int
        See `Finished`.
    remarks : Remarks
        On its pictures.
    """

    source: Source
    fingerprint: str = ""
    chunks: list[FaceChunk] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)
    ended: tuple[float, int, int] | None = None
    error: VideoError | None = None
    fallback_frames: int = 0
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def finished(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.error is not None or (self.ended is not None and not self.answers.awaited)

    def records(self, columns: int, embedding_dim: int, all_faces: bool) -> list[VideoRecord]:
        """Give what the store is to hold of it.

        Parameters
        ----------
        columns : int
            Of the affect vector.
        embedding_dim : int
            Width of the embedding that is kept; 0 for none.
        all_faces : bool
            One record a track, ids ``VIDEO#1``, ``VIDEO#2``, …, by falling number of frames;
            shorter ones than `LEAST_TRACK` are dropped. ``VIDEO#1`` is there in any case, without
            a face if need be.
        """
        if self.error is not None:
            return [self._record(self.source.video_id, self._faces([], columns, embedding_dim))]
        faces = self._faces(self.chunks, columns, embedding_dim)
        if not all_faces:
            return [self._record(self.source.video_id, faces)]
        tracks = _joined([c.track for c in self.chunks if c.track is not None], np.zeros(0, "i8"))
        found, counts = np.unique(tracks, return_counts=True)
        order = found[np.argsort(-counts, kind="stable")]
        kept = [int(track) for track in order if (tracks == track).sum() >= LEAST_TRACK]
        return [
            self._record(f"{self.source.video_id}#{number}", self._spread(faces, tracks == track))
            for number, track in enumerate(kept or [-1], start=1)
        ]

    def _faces(
        self, chunks: Sequence[FaceChunk], columns: int, embedding_dim: int
    ) -> dict[str, NDArray[np.generic] | None]:
        """Join the chunks; one row a frame, or, with all faces, one row a face (but `time`)."""
        valid = _joined([c.valid for c in chunks], np.zeros(0, np.bool_))
        affect = np.full((len(valid), columns), np.nan, np.float32)
        embedding = np.full((len(valid), embedding_dim), np.nan, np.float16)
        if valid.any():
            affect[valid] = self.answers.affect(columns)
            if embedding_dim:
                embedding[valid] = self.answers.embedding(embedding_dim)
        return {
            "affect": affect,
            "time": _joined([c.time for c in chunks], np.zeros(0, np.float64)),
            "valid": valid,
            "face_score": _joined([c.face_score for c in chunks], np.zeros(0, np.float32)),
            "bbox": _joined([c.bbox for c in chunks], np.zeros((0, 4), np.float32)),
            "landmarks": _joined([c.landmarks for c in chunks], np.zeros((0, 5, 2), np.float32)),
            "embedding": embedding if embedding_dim else None,
        }

    def _spread(
        self, faces: dict[str, NDArray[np.generic] | None], mine: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.generic] | None]:
        """Give the faces of one track a row a frame; frames without it are not valid."""
        time = faces["time"]
        assert time is not None
        starts = np.cumsum([0, *(len(c.time) for c in self.chunks)])
        frames = [
            c.frame + s for c, s in zip(self.chunks, starts, strict=False) if c.frame is not None
        ]
        frame = _joined(frames, np.zeros(0, np.int64))[mine]
        spread: dict[str, NDArray[np.generic] | None] = {}
        for name, values in faces.items():
            if values is None or name == "time":
                spread[name] = values
                continue
            empty = False if name == "valid" else np.nan
            spread[name] = np.full((len(time), *values.shape[1:]), empty, values.dtype)
            spread[name][frame] = values[mine]  # type: ignore[index]
        return spread

    def _record(self, video_id: str, arrays: dict[str, NDArray[np.generic] | None]) -> VideoRecord:
        source, error = self.source, self.error
        fps, width, height = self.ended or (0.0, 0, 0)
        return VideoRecord(
            id=video_id,
            source=source.relative,
            size=source.size,
            mtime_ns=source.mtime_ns,
            # Without a fingerprint the next run takes it up again.
            fingerprint="" if error and error.reason in _PASSING else self.fingerprint,
            fps=fps,
            width=width,
            height=height,
            **arrays,  # type: ignore[arg-type]
            message=str(error) if error else "",
        )


def _joined(parts: Sequence[NDArray[_T]], empty: NDArray[_T]) -> NDArray[_T]:
    return np.concatenate(parts) if parts else empty
