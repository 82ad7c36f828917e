"""Single frames of a source, by their times, without reading all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import av

from feie.features.errors import VideoError
from feie.features.video.file import VideoReader, open_reader
from feie.features.video.reader import Image, LazyFrame
from feie.features.video.sources import Source

_SLACK = 2e-3  # s: Matroska and tables of other tools round time stamps to milliseconds
_JUMP = 10.0  # s ahead of the last frame that are skipped by a seek: most key frames are closer
# Demuxers whose files have one rising clock and an index. Streams may start their clock anew on the
# way, and a seek by time then lands on the wrong turn of it.
_SEEKABLE = {"mov", "matroska"}


def stills(
    source: Source,
    times: Iterable[float],
    fps: float | None = None,
    image_fps: float | None = None,
) -> dict[float, Image]:
    """Decode the frames that are shown at some times.

    Parameters
    ----------
    source : Source
        A video file or a folder of numbered images.
    times : iterable of float
        Presentation time stamps, s, as a store keeps them.
    fps : float, optional
        The rate by which the source was resampled when those times were kept.
    image_fps : float, optional
        See `file.open_reader`.

    Returns
    -------
    dict of float to (h, w, 3) uint8 array
        For each time the latest frame that is not after it, RGB, as displayed. Times before the
        first frame, numbers missing from a folder, and whatever does not decode are left out.

    Raises
    ------
    VideoError
        The source cannot be opened, see `file.VideoReader` and `folder.FolderReader`.
    """
    wanted = sorted(set(times))
    found: dict[float, Image] = {}
    if source.kind == "video" and wanted and wanted[-1] > _JUMP:
        with _JumpingReader(source.path) as video:
            found = dict(video.jump(wanted))
    if missing := [time for time in wanted if time not in found]:
        with open_reader(source, fps, image_fps) as reader:
            found |= dict(_images(_latest(reader.lazily(), missing)))
    return found


class _JumpingReader(VideoReader):
    """A video file that is read from key frames on, close before the frames that are wanted."""

    def jump(self, times: Sequence[float]) -> Iterator[tuple[float, Image]]:
        """Give what was surely found: frames whose own time is the one wanted.

        Time stamps that are repaired in a reading from front to back (missing, falling) are not
        those that a seek goes by; their frames are left out, for the caller to read in order.
        """
        base = self._stream.time_base
        if not _SEEKABLE & set(self._container.format.name.split(",")):
            return
        if self._head is None or self._head[1].pts is None or not base:
            return
        frames, at = self._frames(), self._head[0]
        ahead: LazyFrame | None = None
        for time in times:
            if time > at + _JUMP:
                try:
                    self._container.seek(int(time / base), stream=self._stream)
                except av.FFmpegError:
                    return
                frames, ahead = self._after_seek(), None
            shown, ahead = _advance(frames, ahead, time)
            if shown is not None:
                at = shown[0]
                if abs(at - time) <= _SLACK:
                    yield from _images([(time, shown)])

    def _after_seek(self) -> Iterator[LazyFrame]:
        for time, frame in self._timed():
            yield time, partial(self._to_rgb, frame)


def _latest(
    frames: Iterator[LazyFrame], times: Sequence[float]
) -> Iterator[tuple[float, LazyFrame]]:
    """Give for each time, in rising order, the latest frame not after it."""
    shown: LazyFrame | None = None
    ahead: LazyFrame | None = None
    for time in times:
        newer, ahead = _advance(frames, ahead, time)
        shown = newer or shown
        if shown is not None:
            yield time, shown


def _advance(
    frames: Iterator[LazyFrame], ahead: LazyFrame | None, time: float
) -> tuple[LazyFrame | None, LazyFrame | None]:
    """Read on until past a time: the last frame up to it, if any is new, and the one after it."""
    shown = None
    try:
        ahead = ahead or next(frames, None)
        while ahead is not None and ahead[0] <= time + _SLACK:
            shown, ahead = ahead, next(frames, None)
    except VideoError:  # a damaged end costs what lies behind it
        ahead = None
    return shown, ahead


def _images(frames: Iterable[tuple[float, LazyFrame]]) -> Iterator[tuple[float, Image]]:
    for time, (_, image) in frames:
        try:
            rgb = image()
        except (av.FFmpegError, MemoryError):
            continue
        if rgb is not None:
            yield time, rgb
