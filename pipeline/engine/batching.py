"""Faces of several videos in batches of one size, extracted by whichever thread has time."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feie.features.extractors.load import Extraction, Extractor


@dataclass
class Answers:
    """What the extractor said of the faces of one video so far.

    Attributes
    ----------
    awaited : int
        Faces that are not extracted yet.
    """

    awaited: int = 0
    _given: int = 0
    _parts: dict[int, Extraction] = field(default_factory=dict)

    def affect(self, columns: int) -> NDArray[np.float32]:
        """Affect vectors of all faces, in the order in which they were given."""
        parts = [self._parts[at].affect for at in sorted(self._parts)]
        return np.concatenate(parts) if parts else np.empty((0, columns), np.float32)

    def embedding(self, width: int) -> NDArray[np.float16]:
        """Embeddings of all faces, in the order in which they were given."""
        found = [self._parts[at].embedding for at in sorted(self._parts)]
        parts = [part for part in found if part is not None]
        return np.concatenate(parts) if parts else np.empty((0, width), np.float16)


@dataclass
class _Share:
    """Faces in a row of one video: `count` of them, from `start` on among those it has given."""

    owner: Answers
    start: int
    count: int


_Batch = tuple[NDArray[np.uint8], list[_Share]]


class Batcher:
    """Gathers faces of several videos into batches of one fixed size.

    The size is fixed, the last batch padded, so that the numbers of a face depend on nothing
    but the face: libraries choose their arithmetic by the shape of the batch.

    A thread that brings the last face of a batch extracts it, or leaves it to one that has
    nothing else to do: so all cores are busy, whichever stage is slow, and nobody decodes ahead
    of the extractor.

    Parameters
    ----------
    extractor : Extractor
    size : int
        Faces in a batch.
    threads : int
        Threads that bring faces; each says once that it will bring no more.
    embedding : bool
        Keep the embeddings too.
    """

    def __init__(
        self, extractor: Extractor, size: int, threads: int, embedding: bool = False
    ) -> None:
        self._extractor = extractor
        self._size = size
        self._bringing = threads
        self._embedding = embedding
        self._changed = threading.Condition()
        # A GPU works through one batch after another anyway.
        self._calling = nullcontext() if extractor.concurrent else threading.Lock()
        self._faces: list[NDArray[np.uint8]] = []
        self._shares: deque[_Share] = deque()
        self._waiting = 0
        self._ready: deque[_Batch] = deque()
        self._idle = 0

    def add(self, owner: Answers, faces: NDArray[np.uint8]) -> None:
        """Bring faces; may take as long as the extraction of a few batches."""
        if not len(faces):
            return
        with self._changed:
            self._faces.append(faces)
            self._shares.append(_Share(owner, owner._given, len(faces)))
            owner._given += len(faces)
            owner.awaited += len(faces)
            self._waiting += len(faces)
            mine = []
            while self._waiting >= self._size:
                batch = self._cut(self._size)
                if self._idle > len(self._ready):
                    self._ready.append(batch)
                    self._changed.notify()
                else:
                    mine.append(batch)
        for batch in mine:
            self._run(batch)

    def holds(self, owner: Answers) -> bool:
        """Tell whether faces of a video wait for others to fill their batch."""
        with self._changed:
            return any(share.owner is owner for share in self._shares)

    def flush(self) -> None:
        """Extract what waits for company, padded to a full batch."""
        with self._changed:
            batch = self._cut(self._waiting) if self._waiting else None
        if batch:
            self._run(batch)

    def leave(self) -> None:
        """Say that this thread brings no more faces."""
        with self._changed:
            self._bringing -= 1
            self._changed.notify_all()

    def help(self) -> bool:
        """Extract one batch of others, once there is one; False when there will be none."""
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._ready or self._bringing <= 0)
            finally:
                self._idle -= 1
            if not self._ready:
                return False
            batch = self._ready.popleft()
        self._run(batch)
        return True

    def _cut(self, count: int) -> _Batch:
        rows = np.concatenate(self._faces)
        batch = rows[:count]
        if count < self._size:
            padding = np.zeros((self._size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        # A copy: a slice would keep the whole of the rows alive.
        self._faces = [rows[count:].copy()] if len(rows) > count else []
        self._waiting -= count
        shares = []
        while count:
            share = self._shares.popleft()
            if share.count > count:
                rest = _Share(share.owner, share.start + count, share.count - count)
                self._shares.appendleft(rest)
                share.count = count
            shares.append(share)
            count -= share.count
        return batch, shares

    def _run(self, batch: _Batch) -> None:
        faces, shares = batch
        with self._calling:
            result = self._extractor(faces)
        at = 0
        with self._changed:
            for share in shares:
                rows = slice(at, at + share.count)
                embedding = None
                if self._embedding and result.embedding is not None:
                    embedding = result.embedding[rows]
                share.owner._parts[share.start] = Extraction(result.affect[rows], embedding)
                share.owner.awaited -= share.count
                at += share.count
