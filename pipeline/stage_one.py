"""Stage one's engine: faces found in threads, extracted in shared batches, given back in order."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from feie.features.detect import Detector
from feie.features.errors import FeieError, UsageError, VideoError
from feie.features.extractors import Extraction, Extractor
from feie.features.facestream import FaceChunk, FaceOptions, FaceStream
from feie.features.sources import Source, fingerprint
from feie.features.store.records import VideoRecord
from feie.pipeline.pulse import Pulse
from feie.pipeline.results import Finished

_T = TypeVar("_T", bound=np.generic)

_PASSING = {"changed", "missing", "unreadable", "unexpected"}  # reasons that may not last
_LOOK_AHEAD = 64  # finished videos that may wait for an earlier one, some 30 KB each
_TICK = 1.0  # seconds after which a waiting caller gets a word
_PATIENCE = 5.0  # seconds given to the threads to end


class Feed:
    """Hands numbered sources to several threads; the sources may come from an endless queue."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = enumerate(sources)
        self._lock = threading.Lock()

    def take(self) -> tuple[int, Source] | None:
        """Give the next source, or None at the end; waits where the sources do."""
        with self._lock:
            return next(self._sources, None)


Announce = Callable[[int, bool], None]
"""Told the number of a source before a thread touches it (True) and when it leaves it (False)."""


def _tell_nobody(_: int, __: bool) -> None:
    pass


@dataclass
class _Begin:
    video: int
    source: Source


@dataclass
class _Hashed:
    video: int
    fingerprint: str


@dataclass
class _Faces:
    video: int
    chunk: FaceChunk


@dataclass
class _End:
    video: int
    fps: float
    width: int
    height: int


@dataclass
class _Failure:
    video: int
    error: VideoError


_Item = _Begin | _Hashed | _Faces | _End | _Failure | FeieError | None  # None: a thread has ended


@dataclass
class _Open:
    """What is known so far of a video in work."""

    source: Source
    fingerprint: str = ""
    chunks: list[FaceChunk] = field(default_factory=list)
    affect: list[NDArray[np.float32]] = field(default_factory=list)
    embedding: list[NDArray[np.float16]] = field(default_factory=list)
    awaited: int = 0  # faces that are not extracted yet
    end: _End | None = None
    error: VideoError | None = None

    @property
    def finished(self) -> bool:
        return self.error is not None or (self.end is not None and not self.awaited)


class _Batcher:
    """Gathers faces of several videos into batches of one fixed size.

    The size is fixed, the last batch padded, so that the numbers of a face depend on nothing
    but the face: libraries choose their arithmetic by the shape of the batch.
    """

    def __init__(self, extractor: Extractor, size: int) -> None:
        self._extractor = extractor
        self._size = size
        self._faces: list[NDArray[np.uint8]] = []
        self._owners: deque[tuple[_Open, int]] = deque()
        self._waiting = 0

    def add(self, owner: _Open, faces: NDArray[np.uint8]) -> None:
        if len(faces):
            self._faces.append(faces)
            self._owners.append((owner, len(faces)))
            owner.awaited += len(faces)
            self._waiting += len(faces)
        while self._waiting >= self._size:
            self._run(self._size)

    def flush(self) -> None:
        """Extract what is left, padded to a full batch."""
        if self._waiting:
            self._run(self._waiting)

    def _run(self, count: int) -> None:
        rows = np.concatenate(self._faces)
        batch = rows[:count]
        if count < self._size:
            padding = np.zeros((self._size - count, *batch.shape[1:]), np.uint8)
            batch = np.concatenate([batch, padding])
        self._faces = [rows[count:]] if len(rows) > count else []
        self._waiting -= count
        self._deal(self._extractor(batch), count)

    def _deal(self, result: Extraction, count: int) -> None:
        at = 0
        while at < count:
            owner, faces = self._owners.popleft()
            taken = min(faces, count - at)
            if taken < faces:
                self._owners.appendleft((owner, faces - taken))
            owner.affect.append(result.affect[at : at + taken])
            if result.embedding is not None:
                owner.embedding.append(result.embedding[at : at + taken])
            owner.awaited -= taken
            at += taken


class StageOne:
    """Turns sources into records, in the order of the sources.

    Parameters
    ----------
    extractor : Extractor
    options : FaceOptions
    load_detector : callable
        Gives the detector; called once, when a frame first needs one.
    threads : int
        Videos decoded and searched for faces at the same time.
    batch_size : int
        Faces in one call of the extractor; fixed, because it fixes the numbers' last bits.
    embedding : bool
        Keep the extractor's embedding of each face too.
    announce : callable, optional
        Told which sources the threads are at, so that a crash can be laid at the right door.

    Attributes
    ----------
    detector : Detector or None
        The detector, once a video has needed it.
    frames : int
        Frames seen so far, for the progress report.
    pulses : dict of int to Pulse
        Signs of life of the sources that threads are at, by number.
    """

    def __init__(
        self,
        extractor: Extractor,
        options: FaceOptions,
        load_detector: Callable[[], Detector],
        *,
        threads: int,
        batch_size: int,
        embedding: bool = False,
        announce: Announce | None = None,
    ) -> None:
        self._extractor = extractor
        self._embedding_dim = extractor.embedding_dim if embedding else 0
        self._options = options
        self._load_detector = load_detector
        self._threads = threads
        self._batch_size = batch_size
        self._announce = announce or _tell_nobody
        self._detector_lock = threading.Lock()
        self.detector: Detector | None = None
        self.frames = 0
        self.pulses: dict[int, Pulse] = {}

    def _get_detector(self) -> Detector:
        with self._detector_lock:
            if self.detector is None:
                try:
                    self.detector = self._load_detector()
                except FeieError:
                    raise
                except Exception as error:  # no video would fare better: stop, blame none of them
                    raise UsageError(f"the detector cannot be loaded: {error}") from error
            return self.detector

    def records(self, sources: Iterable[Source]) -> Iterator[Finished | None]:
        """Work through the sources.

        Parameters
        ----------
        sources : iterable of Source
            Read from several threads, one at a time; may wait for more to come.

        Yields
        ------
        Finished or None
            One a source, in their order. None where a second has passed without one.

        Raises
        ------
        FeieError
            Something that no other video would survive either, such as missing weights.
        """
        feed = Feed(sources)
        # Bounded: decoding waits for the extractor, whatever the number or length of videos.
        out: queue.Queue[_Item] = queue.Queue(maxsize=4 * self._threads)
        stop = threading.Event()
        ahead = threading.Semaphore(_LOOK_AHEAD + self._threads)
        workers = [
            threading.Thread(target=self._work, args=(feed, out, stop, ahead), daemon=True)
            for _ in range(self._threads)
        ]
        for worker in workers:
            worker.start()
        try:
            yield from self._collect(out, len(workers), ahead)
        finally:
            stop.set()
            deadline = time.monotonic() + _PATIENCE
            while any(w.is_alive() for w in workers) and time.monotonic() < deadline:
                try:
                    out.get(timeout=0.05)
                except queue.Empty:
                    continue

    def _work(
        self,
        feed: Feed,
        out: queue.Queue[_Item],
        stop: threading.Event,
        ahead: threading.Semaphore,
    ) -> None:
        while not stop.is_set():
            # The permit first: who holds a video holds one, so the earliest video never starves.
            if not ahead.acquire(timeout=0.1):
                continue
            if (taken := feed.take()) is None:
                break
            video, source = taken
            out.put(_Begin(video, source))
            self._announce(video, True)
            pulse = self.pulses[video] = Pulse()
            try:
                for item in self._process(video, source, pulse):
                    with pulse.resting():
                        out.put(item)
                    if stop.is_set():
                        return
            except VideoError as error:
                # A fresh one: the trace of this one keeps the decoder and its threads alive.
                out.put(_Failure(video, VideoError(error.reason, error.message)))
            except FeieError as error:
                out.put(error)
                return
            except OSError as error:
                reason = error.strerror or str(error)
                out.put(_Failure(video, VideoError("unreadable", reason)))
            except Exception as error:  # one video must not cost the others, whatever it holds
                text = f"{type(error).__name__}: {error}"
                out.put(_Failure(video, VideoError("unexpected", text)))
            finally:
                del self.pulses[video]
                self._announce(video, False)
        out.put(None)

    def _process(
        self, video: int, source: Source, pulse: Pulse
    ) -> Iterator[_Hashed | _Faces | _End]:
        def detector() -> Detector:
            with pulse.resting():
                return self._get_detector()

        pulse.fingerprint = fingerprint(source, pulse.beat)
        yield _Hashed(video, pulse.fingerprint)
        with FaceStream(source, self._options, detector) as stream:
            pulse.follow(stream)
            for chunk in stream:
                yield _Faces(video, chunk)
            _refuse_changed(source)
            yield _End(video, stream.fps, stream.width, stream.height)

    def _collect(
        self, out: queue.Queue[_Item], running: int, ahead: threading.Semaphore
    ) -> Iterator[Finished | None]:
        batcher = _Batcher(self._extractor, self._batch_size)
        videos: dict[int, _Open] = {}
        upcoming = 0
        while running:
            try:
                item = out.get(timeout=_TICK)
            except queue.Empty:
                yield None
                continue
            if item is None:
                running -= 1
                continue
            if isinstance(item, FeieError):
                raise item
            if isinstance(item, _Begin):
                videos[item.video] = _Open(item.source)
                continue
            video = videos[item.video]
            match item:
                case _Hashed():
                    video.fingerprint = item.fingerprint
                case _Faces():
                    video.chunks.append(item.chunk)
                    self.frames += len(item.chunk.time)
                    batcher.add(video, item.chunk.aligned)
                    # A slice would keep the pictures alive until the video ends.
                    item.chunk.aligned = np.empty((0, *item.chunk.aligned.shape[1:]), np.uint8)
                case _End():
                    video.end = item
                case _Failure():
                    video.error = item.error
            first = videos.get(upcoming)
            if first and first.end and first.awaited and len(videos) > 2 * self._threads:
                # Others wait for a few faces that wait for a full batch: do not let them.
                batcher.flush()
            while upcoming in videos and videos[upcoming].finished:
                yield self._finished(videos.pop(upcoming))
                upcoming += 1
                ahead.release()
        batcher.flush()
        for video_index in sorted(videos):
            yield self._finished(videos.pop(video_index))

    def _finished(self, video: _Open) -> Finished:
        return Finished(video.source, [self._record(video.source, video)])

    def _record(self, source: Source, video: _Open) -> VideoRecord:
        chunks = [] if video.error else video.chunks
        frames = sum(len(chunk.time) for chunk in chunks)
        affect = np.full((frames, len(self._extractor.schema)), np.nan, np.float32)
        valid = _joined([c.valid for c in chunks], np.zeros(0, np.bool_))
        embedding = None
        if self._embedding_dim:
            embedding = np.full((frames, self._embedding_dim), np.nan, np.float16)
        if valid.any():
            affect[valid] = np.concatenate(video.affect)
            if embedding is not None:
                embedding[valid] = np.concatenate(video.embedding)
        return VideoRecord(
            id=source.video_id,
            source=source.relative,
            size=source.size,
            mtime_ns=source.mtime_ns,
            # Without a fingerprint the next run takes it up again.
            fingerprint="" if video.error and video.error.reason in _PASSING else video.fingerprint,
            fps=video.end.fps if video.end else 0.0,
            width=video.end.width if video.end else 0,
            height=video.end.height if video.end else 0,
            affect=affect,
            time=_joined([c.time for c in chunks], np.zeros(0, np.float64)),
            valid=valid,
            face_score=_joined([c.face_score for c in chunks], np.zeros(0, np.float32)),
            bbox=_joined([c.bbox for c in chunks], np.zeros((0, 4), np.float32)),
            landmarks=_joined([c.landmarks for c in chunks], np.zeros((0, 5, 2), np.float32)),
            embedding=embedding,
            message=str(video.error) if video.error else "",
        )


def _refuse_changed(source: Source) -> None:
    """Refuse numbers that stem from neither the old nor the new bytes of a file."""
    status = source.path.stat()
    if source.kind == "video" and (status.st_size, status.st_mtime_ns) != (
        source.size,
        source.mtime_ns,
    ):
        raise VideoError("changed", f"{source.relative} changed during the run; run again")


def _joined(parts: Sequence[NDArray[_T]], empty: NDArray[_T]) -> NDArray[_T]:
    return np.concatenate(parts) if parts else empty
