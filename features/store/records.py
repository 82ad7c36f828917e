"""What a worker gives for one video, and what fixes the numbers of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.schema import Schema


@dataclass
class VideoRecord:
    """What a worker returns of one video, and what the store keeps of it.

    Attributes
    ----------
    affect : ndarray of float32, shape (frames, columns)
        NaN rows where no face was found.
    time : ndarray of float64, shape (frames,)
        Seconds.
    valid : ndarray of bool, shape (frames,)
    face_score : ndarray of float32, shape (frames,)
    bbox : ndarray of float32, shape (frames, 4)
        Pixels.
    landmarks : ndarray of float32, shape (frames, 5, 2)
        Pixels.
    embedding : ndarray of float16, shape (frames, d), or None
    message : str
        Why it failed; empty for a video that did not.
    """

    id: str
    source: str
    size: int
    mtime_ns: int
    fingerprint: str
    fps: float
    width: int
    height: int
    affect: NDArray[np.float32]
    time: NDArray[np.float64]
    valid: NDArray[np.bool_]
    face_score: NDArray[np.float32]
    bbox: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    embedding: NDArray[np.float16] | None = None
    message: str = ""

    @classmethod
    def failure(
        cls,
        video_id: str,
        message: str,
        *,
        source: str,
        size: int,
        mtime_ns: int,
        fingerprint: str = "",
    ) -> VideoRecord:
        """Give the record of a source that failed; without a fingerprint the next run tries again.

        Parameters
        ----------
        video_id, message, source : str
        size, mtime_ns : int
        fingerprint : str
        """
        none = np.zeros(0, np.float32)
        return cls(
            id=video_id,
            source=source,
            size=size,
            mtime_ns=mtime_ns,
            fingerprint=fingerprint,
            fps=0.0,
            width=0,
            height=0,
            affect=none.reshape(0, 0),
            time=np.zeros(0, np.float64),
            valid=np.zeros(0, np.bool_),
            face_score=none,
            bbox=none.reshape(0, 4),
            landmarks=none.reshape(0, 5, 2),
            message=message,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of its rows in memory."""
        rows = (self.affect, self.time, self.valid, self.face_score, self.bbox, self.landmarks)
        return sum(array.nbytes for array in (*rows, self.embedding) if array is not None)

    @property
    def failed(self) -> bool:
        """Whether the video is kept as a named failure, with no frames."""
        return bool(self.message)


@dataclass(frozen=True)
class StoreSettings:
    """What fixes the numbers of a store; a store accepts only videos made with the same.

    Attributes
    ----------
    schema : Schema
    extractor : dict
        ``name``, ``sha256`` of the weights, and options.
    options : dict
        Every other option that changes numbers; the detector joins by `StoreWriter.use_detector`.
    embedding_dim : int
        0 for none.
    session : dict
        What may differ from run to run, ``versions`` of libraries above all; kept a session.
    corrected : frozenset of str
        Options that a store may have had otherwise: all that it holds is made again.
    """

    schema: Schema
    extractor: Mapping[str, Any]
    options: Mapping[str, Any]
    embedding_dim: int = 0
    session: Mapping[str, Any] = field(default_factory=dict)
    corrected: frozenset[str] = frozenset()
