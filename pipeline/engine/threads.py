"""Stage one's engine: faces found in threads, extracted in shared batches, given back in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from feie.features.errors import FeieError, UsageError, VideoError
from feie.features.extractors.load import Extractor
from feie.features.faces.detectors import Detector
from feie.features.faces.fallback import Fallback
from feie.features.faces.stream import FaceChunk, FaceOptions, FaceStream
from feie.features.video.remarks import Remarks
from feie.features.video.sources import Source, fingerprint
from feie.pipeline.engine.batching import Batcher
from feie.pipeline.engine.liveness import Liveness
from feie.pipeline.engine.memory import MemoryTrimmer
from feie.pipeline.engine.protocol import Finished
from feie.pipeline.engine.video import OpenVideo

_LOOK_AHEAD = 64  # finished videos that may wait for an earlier one, some 30 KB each
_TRIM_FRAMES = 512
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
    number: int
    video: OpenVideo


@dataclass
class _Faces:
    video: OpenVideo
    chunk: FaceChunk


@dataclass
class _End:
    video: OpenVideo
    fps: float
    width: int
    height: int
    remarks: Remarks


@dataclass
class _Failure:
    video: OpenVideo
    error: VideoError


class _ExtractorError(Exception):
    """The extractor broke down: no fault of the video whose faces it had."""


@dataclass
class _Broken:
    error: Exception


@dataclass
class _Extracted:
    """A thread has extracted faces of others."""


_Item = _Begin | _Faces | _End | _Failure | _Broken | _Extracted | None  # None: a thread has ended


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
    liveness : dict of int to Liveness
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
        self.liveness: dict[int, Liveness] = {}

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
        batcher = Batcher(self._extractor, self._batch_size, self._threads, self._embedding_dim > 0)
        workers = [
            threading.Thread(target=self._work, args=(feed, out, stop, ahead, batcher), daemon=True)
            for _ in range(self._threads)
        ]
        with _one_thread_a_call(self._extractor.device):
            for worker in workers:
                worker.start()
            try:
                yield from self._collect(out, len(workers), ahead, batcher)
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
        batcher: Batcher,
    ) -> None:
        try:
            while not stop.is_set():
                # The permit first: who holds a video holds one, so the earliest never starves.
                if not ahead.acquire(timeout=0.1):
                    continue
                if (taken := feed.take()) is None:
                    break
                if not self._work_on(*taken, out, stop, batcher):
                    return
        finally:
            batcher.leave()
        try:
            while not stop.is_set() and batcher.help():
                out.put(_Extracted())
        except Exception as error:
            out.put(_Broken(error))
        out.put(None)

    def _work_on(
        self,
        number: int,
        source: Source,
        out: queue.Queue[_Item],
        stop: threading.Event,
        batcher: Batcher,
    ) -> bool:
        """Work through one video; False where the thread is to end."""
        video = OpenVideo(source)
        out.put(_Begin(number, video))
        self._announce(number, True)
        alive = self.liveness[number] = Liveness()
        try:
            for item in self._process(video, alive):
                with alive.resting():
                    if isinstance(item, _Faces):
                        _extract(batcher, item)
                    out.put(item)
                if stop.is_set():
                    return False
        except VideoError as error:
            # A fresh one: the trace of this one keeps the decoder and its threads alive.
            out.put(_Failure(video, VideoError(error.reason, error.message)))
        except FeieError as error:
            out.put(_Broken(error))
            return False
        except _ExtractorError as error:
            out.put(_Broken(error.args[0]))
            return False
        except OSError as error:
            reason = error.strerror or str(error)
            out.put(_Failure(video, VideoError("unreadable", reason)))
        except Exception as error:  # one video must not cost the others, whatever it holds
            text = f"{type(error).__name__}: {error}"
            out.put(_Failure(video, VideoError("unexpected", text)))
        finally:
            del self.liveness[number]
            self._announce(number, False)
        return True

    def _process(self, video: OpenVideo, alive: Liveness) -> Iterator[_Faces | _End]:
        counting: list[Fallback] = []

        def detector() -> Detector:
            with alive.resting():
                found = self._get_detector()
            if not isinstance(found, Fallback):
                return found
            counting.append(found.for_video())
            return counting[0]

        video.fingerprint = alive.fingerprint = fingerprint(video.source, alive.beat)
        with FaceStream(video.source, self._options, detector) as stream:
            alive.follow(stream)
            for chunk in stream:
                yield _Faces(video, chunk)
            _refuse_changed(video.source)
            video.fallback_frames = sum(one.rescued for one in counting)
            yield _End(video, stream.fps, stream.width, stream.height, stream.remarks)

    def _collect(
        self, out: queue.Queue[_Item], running: int, ahead: threading.Semaphore, batcher: Batcher
    ) -> Iterator[Finished | None]:
        videos: dict[int, OpenVideo] = {}
        trimmer = MemoryTrimmer(_TRIM_FRAMES)
        upcoming = 0
        while running:
            try:
                item = out.get(timeout=_TICK)
            except queue.Empty:
                yield None
                continue
            match item:
                case None:
                    running -= 1
                case _Broken():
                    raise item.error
                case _Begin():
                    videos[item.number] = item.video
                case _Faces():
                    item.video.chunks.append(item.chunk)
                    self.frames += len(item.chunk.time)
                    trimmer.count(len(item.chunk.time))
                case _End():
                    item.video.ended = item.fps, item.width, item.height
                    item.video.remarks = item.remarks
                case _Failure():
                    item.video.error = item.error
            first = videos.get(upcoming)
            full = len(videos) > 2 * self._threads
            if first and first.ended and full and batcher.holds(first.answers):
                # Others wait for a few faces that wait for a full batch: do not let them.
                batcher.flush()
            while upcoming in videos and videos[upcoming].finished:
                yield self._finished(videos.pop(upcoming))
                upcoming += 1
                ahead.release()
        batcher.flush()
        for number in sorted(videos):
            yield self._finished(videos.pop(number))

    def _finished(self, video: OpenVideo) -> Finished:
        columns = len(self._extractor.schema)
        records = video.records(columns, self._embedding_dim, self._options.all_faces)
        return Finished(video.source, records, video.fallback_frames, video.remarks)


def _extract(batcher: Batcher, item: _Faces) -> None:
    """Hand the faces of a chunk on; without them it is a few numbers a frame."""
    faces = item.chunk.aligned
    item.chunk.aligned = np.empty((0, *faces.shape[1:]), np.uint8)
    try:
        batcher.add(item.video.answers, faces)
    except Exception as error:
        raise _ExtractorError(error) from error


@contextmanager
def _one_thread_a_call(device: str) -> Iterator[None]:
    """Let torch and OpenCV compute in the calling thread only: there is one of ours a core.

    It also fixes the order of sums, and with it the last bits, whatever the number of cores.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    if device == "cpu":
        torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _refuse_changed(source: Source) -> None:
    """Refuse numbers that stem from neither the old nor the new bytes of a file."""
    status = source.path.stat()
    if source.kind == "video" and (status.st_size, status.st_mtime_ns) != (
        source.size,
        source.mtime_ns,
    ):
        raise VideoError("changed", f"{source.relative} changed during the run; run again")
