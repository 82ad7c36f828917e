"""Reading a store for a dump: batches of whole videos, each chunk decoded once, memory flat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import StoreError
from feie.features.formats.writing.plan import DumpPlan, PlannedVideo
from feie.features.store.reader import Store
from feie.features.store.row_blocks import RowBlocks
from feie.features.store.rows import refuse_blanks

BATCH_ROWS = 65_536  # with 26 columns 7 MB: what a dump holds at a time, whatever the store's size
_BATCH_BYTES = 64 << 20

GEOMETRY = ("face_score", "bbox", "landmarks")


@dataclass(frozen=True)
class VideoBatch:
    """Rows of a few whole videos, one after another.

    Attributes
    ----------
    videos : sequence of PlannedVideo
    offsets : ndarray of int64, shape (videos + 1,)
        Rows of video i are ``offsets[i] : offsets[i + 1]``.
    affect : ndarray of float32, shape (rows, columns)
        NaN where valid is false.
    time : ndarray of float64, shape (rows,)
        Seconds.
    valid : ndarray of bool, shape (rows,)
    face_score, bbox, landmarks : ndarray of float32 or None
        Shapes (rows,), (rows, 4), (rows, 5, 2); pixels. None where they were not asked for.
    embedding : ndarray of float16, shape (rows, d), or None
    """

    videos: Sequence[PlannedVideo]
    offsets: NDArray[np.int64]
    affect: NDArray[np.float32]
    time: NDArray[np.float64]
    valid: NDArray[np.bool_]
    face_score: NDArray[np.float32] | None = None
    bbox: NDArray[np.float32] | None = None
    landmarks: NDArray[np.float32] | None = None
    embedding: NDArray[np.float16] | None = None

    def __iter__(self) -> Iterator[VideoBatch]:
        """Give each video as a batch of its own; the arrays are views."""
        for i, video in enumerate(self.videos):
            yield self._rows([video], slice(int(self.offsets[i]), int(self.offsets[i + 1])))

    def _rows(self, videos: Sequence[PlannedVideo], rows: slice) -> VideoBatch:
        offsets = np.array([0, rows.stop - rows.start])
        parts: dict[str, Any] = {name: array[rows] for name, array in self.arrays().items()}
        return VideoBatch(videos, offsets, **parts)

    def pick(self, numbers: Sequence[int]) -> VideoBatch:
        """Give some of the videos, in this order."""
        parts = [*self]
        chosen = [parts[number] for number in numbers]
        lengths = [len(part.time) for part in chosen]
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in chosen]) for name in self.arrays()
        }
        return VideoBatch([part.videos[0] for part in chosen], _bounds(lengths), **arrays)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Give the arrays that there are, by their names in the store."""
        names = ("affect", "time", "valid", *GEOMETRY, "embedding")
        found = {name: getattr(self, name) for name in names}
        return {name: array for name, array in found.items() if array is not None}


def batches(
    store: Store,
    plan: DumpPlan,
    videos: Sequence[PlannedVideo] | None = None,
    score: bool = False,
    most_rows: int = BATCH_ROWS,
) -> Iterator[VideoBatch]:
    """Read the videos of a plan.

    Parameters
    ----------
    store : Store
    plan : DumpPlan
    videos : sequence of PlannedVideo, optional
        Only these, in stored order; all of the plan by default.
    score : bool
        Read ``face_score`` even where the plan has no geometry.
    most_rows : int
        Rows of a batch, or those of its one video where that is longer.

    Raises
    ------
    StoreError
        The store is damaged.
    """
    names = ["affect", "time", "valid"]
    names += GEOMETRY if plan.geometry else (["face_score"] if score else [])
    names += ["embedding"] if plan.embedding else []
    blocks = RowBlocks(store, names, most_bytes=_BATCH_BYTES)
    for chosen in _share_out(plan.videos if videos is None else videos, most_rows):
        arrays: dict[str, Any] = blocks.read_runs(list(_runs(chosen)))
        batch = VideoBatch(chosen, _bounds([video.frames for video in chosen]), **arrays)
        _refuse_damage(store, batch)
        if plan.indices != tuple(range(len(store.schema))):
            batch = replace(batch, affect=batch.affect[:, list(plan.indices)])
        yield batch


def _bounds(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _refuse_damage(store: Store, batch: VideoBatch) -> None:
    """Raise `StoreError` where rows are not what was written, as if a chunk were gone."""
    ids = [video.video_id for video in batch.videos]
    faces = store.videos["faces"].loc[ids]
    refuse_blanks(store.path, batch.affect, batch.valid, batch.offsets, faces)
    if not np.isfinite(batch.time).all():
        row = int(np.argmin(np.isfinite(batch.time)))
        video = ids[int(np.searchsorted(batch.offsets, row, side="right")) - 1]
        raise StoreError(
            f"{store.path} is damaged: {video!r} has frames without a time; "
            f"run `feie verify {store.path}`"
        )


def _share_out(videos: Sequence[PlannedVideo], most_rows: int) -> Iterator[Sequence[PlannedVideo]]:
    first = rows = 0
    for i, video in enumerate(videos):
        if rows and rows + video.frames > most_rows:
            yield videos[first:i]
            first, rows = i, 0
        rows += video.frames
    if first < len(videos):
        yield videos[first:]


def _runs(videos: Sequence[PlannedVideo]) -> Iterator[tuple[int, int]]:
    """Join videos that lie one after another in the store."""
    start = stop = videos[0].start
    for video in videos:
        if video.start != stop:
            yield start, stop
            start = video.start
        stop = video.start + video.frames
    yield start, stop
