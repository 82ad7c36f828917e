"""Decoding video files with PyAV, trusting nothing that a header claims."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from feie.features.errors import UsageError, VideoError
from feie.features.video.clock import rising
from feie.features.video.colour import Painter
from feie.features.video.folder import FolderReader
from feie.features.video.reader import CORRUPT_SHARE, FOLDER_FPS, Image, LazyFrame, Reader
from feie.features.video.sources import Source
from feie.features.video.truncation import is_cut

# Demuxers that turn pictures, text and playlists into "videos": a .mp4 that is really a PNG or
# a list of other files is not what anybody meant by a folder of videos.
_NOT_VIDEO = {"image2", "tty", "hls", "concat", "dash", "lavfi", "applehttp", "sdp", "rtsp"}

# Durations of MPEG streams are read off the end of the file, cut or not; an avi counts repeated
# frames that hold no packet.
_PROMISE_NOTHING = {"mpegts", "mpeg", "mpegvideo", "avi"}

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

_TAGS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
"""Tags that are no text are an error to PyAV before 19 unless told otherwise; since then never."""


def open_reader(
    source: Source, fps: float | None = None, folder_fps: float | None = None
) -> Reader:
    """Open a source for reading.

    Parameters
    ----------
    source : Source
        A video file or a folder of numbered images.
    fps : float, optional
        Resample by time, see `Reader`.
    folder_fps : float, optional
        Rate that the numbering of an image folder counts, 30 by default, and that of a video
        without time stamps.

    Raises
    ------
    VideoError
        See `VideoReader` and `FolderReader`.
    UsageError
        A rate outside (0, 1000].
    """
    if source.kind == "frames":
        return FolderReader(source.path, fps=fps, folder_fps=folder_fps or FOLDER_FPS)
    return VideoReader(source.path, fps=fps, unstamped_fps=folder_fps)


class VideoReader(Reader):
    """Frames of a video file, decoded from front to back.

    Of several video streams the one that players show is read: FFmpeg's best, which is the one
    marked as the default where there is one; cover pictures and thumbnails never.
    Time stamps come from the stream (frames of a variable rate keep theirs); of faulty ones, see
    `clock.rising`. Rotation and mirroring (display matrix) and non-square pixels are undone; HDR
    is tone-mapped, see `colour`.

    **Faults.** A packet that does not decode is skipped and counted; frames that the decoder
    has patched up are kept. A file fails as

    - ``truncated``, on opening, when it has fewer bytes than its own structure claims (mp4, mov,
      mkv, webm, avi, wmv, gif: see `truncation.is_cut`); at the end, when the packets end
      earlier than the header promises, by more than three frames or 0.15 s, whichever is more.
      The promise is the stream's own duration, against which the video's packets are held, or
      else the container's, against which those of every stream are held (an avi is judged by its
      bytes only). MPEG-TS and MPEG-PS promise nothing: if they are cut, that cannot be known;
    - ``broken``, at the end, when more than `CORRUPT_SHARE` of its packets did not decode, or
      reading broke off with an error in a file that promises no duration;
    - ``no-clock``, when neither time stamps nor the header say how many frames a second there are;
    - ``no-frames``, when nothing decodes.

    Parameters
    ----------
    path : Path
        The file.
    fps : float, optional
        Resample by time, see `Reader`.
    unstamped_fps : float, optional
        Frames a second of a file whose time stamps are all missing or all the same, whatever its
        header says.

    Raises
    ------
    VideoError
        On opening: ``missing``, ``empty`` (0 bytes), ``broken`` (not a video, or not readable
        as one), ``no-video-stream`` (audio only), or any of the above when even the first frame
        does not come.
    """

    def __init__(
        self, path: Path, fps: float | None = None, unstamped_fps: float | None = None
    ) -> None:
        super().__init__(fps)
        self._name = path.name
        self._unstamped_fps = unstamped_fps
        self._stamps: set[float] = set()  # two at most: whether they tell frames apart
        self._packets = 0
        self._ends: dict[int, float] = {}
        self._read_error = ""
        self._painter = Painter(self.remarks.notes)
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container, self._name)
            self._nominal_fps = _nominal_fps(self._stream)
            self._pixel_aspect = _pixel_aspect(self._stream)
            # The true size is only known from a frame.
            self._pending = self._timed()
            self._head = next(self._pending, None)
            if self._head is None:
                raise VideoError("no-frames", f"no frame of {self._name} decodes")
            self.width, self.height = _displayed_size(self._head[1], self._pixel_aspect)
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Free the decoder."""
        self._container.close()

    def _frames(self) -> Iterator[LazyFrame]:
        if self._head is None:
            raise UsageError(f"{self._name} has been read already; open it again")
        head, self._head = self._head, None
        yield head[0], partial(self._to_rgb, head[1])
        for time, frame in self._pending:
            yield time, partial(self._to_rgb, frame)

    def _to_rgb(self, frame: av.VideoFrame) -> Image:
        width = round(frame.width * self._pixel_aspect)
        return _as_displayed(self._painter.rgb(frame, width), frame)

    def _timed(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Give decoded frames strictly rising times."""
        rate = self._unstamped_fps or self._nominal_fps
        return rising(self._stamped(), 1.0 / rate if rate > 0 else 1.0 / FOLDER_FPS)

    def _stamped(self) -> Iterator[tuple[float, av.VideoFrame]]:
        for frame in self._decoded():
            base = frame.time_base or self._stream.time_base
            time = float(frame.pts * base) if frame.pts is not None and base else math.nan
            if len(self._stamps) < 2 and not math.isnan(time):
                self._stamps.add(time)
            yield time, frame

    def _decoded(self) -> Iterator[av.VideoFrame]:
        for packet in self._demuxed():
            try:
                frames = packet.decode()
            except (av.FFmpegError, MemoryError):
                self.corrupt += 1
                continue
            for frame in frames:
                # Decoders of broken headers now and then hand out a frame of nothing.
                if isinstance(frame, av.VideoFrame) and frame.width > 0 and frame.height > 0:
                    yield frame
        self._check_end()

    def _demuxed(self) -> Iterator[Any]:
        """Packets of the video stream; notes how far every stream reaches."""
        video = self._stream.index
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, MemoryError) as error:
                self._read_error = str(error)
                return
            stamp = packet.pts if packet.pts is not None else packet.dts
            # Not packet.stream_index: the packets that flush the decoders all say 0 there.
            index = packet.stream.index
            if packet.size and stamp is not None and packet.time_base and not packet.is_corrupt:
                end = float((stamp + (packet.duration or 0)) * packet.time_base)
                self._ends[index] = max(end, self._ends.get(index, -math.inf))
            if index == video:
                self._packets += packet.size > 0
                yield packet

    def _check_end(self) -> None:
        timed = len(self._stamps) > 1 or self._unstamped_fps or self._nominal_fps > 0
        if not timed and self._packets > 1:
            raise VideoError(
                "no-clock",
                f"the frames of {self._name} have no time stamps, and it does not say how many a "
                "second there are: say it with --image-fps",
            )
        promised, reached = self._promise()
        rate = self._nominal_fps
        slack = max(0.15, 3.0 / rate if rate > 0 else 0.0)
        if promised - reached > slack:
            found = f"{promised:.2f} s promised, {reached:.2f} s found"
            raise VideoError("truncated", f"{self._name} ends early ({found})")
        if self._read_error and math.isnan(promised):
            raise VideoError("broken", f"reading {self._name} broke off: {self._read_error}")
        if self.corrupt > CORRUPT_SHARE * self._packets:
            found = f"{self.corrupt} of {self._packets} packets do not decode"
            raise VideoError("broken", f"{found} in {self._name}")

    def _promise(self) -> tuple[float, float]:
        """Tell the end that the header promises and the end reached, s; NaN for no promise."""
        stream, container = self._stream, self._container
        video_end = self._ends.get(stream.index, 0.0)
        if container.format.name in _PROMISE_NOTHING:
            return math.nan, video_end
        if stream.duration and stream.time_base:
            promised, reached = float(stream.duration * stream.time_base), video_end
        elif tag := _duration_tag(stream.metadata):
            promised, reached = tag, video_end
        elif container.duration:
            promised = container.duration / av.time_base
            reached = max(self._ends.values(), default=0.0)
        else:
            return math.nan, video_end
        return promised, reached


def _open(path: Path) -> InputContainer:
    try:
        size = path.stat().st_size
        cut = is_cut(path)
    except OSError as error:
        raise VideoError("missing", f"{path.name} cannot be read: {error.strerror}") from error
    if not size:
        raise VideoError("empty", f"{path.name} has 0 bytes")
    if cut:
        raise VideoError("truncated", f"{path.name} has fewer bytes ({size}) than it should")
    try:
        # file: and the whitelist keep names such as "concat:a|b.mp4", and playlists in disguise,
        # from reaching other files or the network.
        container: InputContainer = av.open(
            f"file:{path}", options={"protocol_whitelist": "file"}, **_TAGS
        )
    except (av.FFmpegError, MemoryError, ValueError) as error:
        raise VideoError("broken", f"{path.name} is not readable as a video") from error
    demuxers = set(container.format.name.split(","))
    if demuxers & _NOT_VIDEO or any(name.endswith("_pipe") for name in demuxers):
        container.close()
        raise VideoError("broken", f"{path.name} is not a video by its content")
    return container


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """Choose the stream that players show; the cover picture of a song is none."""
    streams = [s for s in container.streams.video if not s.disposition & _PICTURES]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams if s.type})) or "none"
        raise VideoError("no-video-stream", f"{name} has no video stream (streams: {kinds})")
    # A single picture beside a film is its thumbnail, even where a writer marked it by mistake.
    films = [s for s in streams if s.frames != 1] or streams
    best = container.streams.best("video")
    default = (s for s in films if s.disposition & Disposition.default)
    stream = best if best in films else next(default, films[0])
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise VideoError("broken", f"there is no decoder for {name}")
    return stream


def _nominal_fps(stream: VideoStream) -> float:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0.1 <= rate <= 240:
            return float(rate)
    return math.nan


def _duration_tag(metadata: dict[str, str]) -> float:
    """Seconds of Matroska's ``DURATION`` tag, ``00:00:03.666000000``; 0 without one."""
    try:
        hours, minutes, seconds = metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _pixel_aspect(stream: VideoStream) -> float:
    """Width of a pixel over its height; 1 where it is not told or makes no sense."""
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(aspect) if aspect and 0.25 <= aspect <= 4 else 1.0


def _display_matrix(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """How to show a frame: transpose first, then flip left-right, then flip up-down.

    The matrix maps a pixel (x, y) to (a x + c y, b x + d y); stored are a b u c d v x y w in
    fixed point. Turns by other angles than quarter turns are rounded to these.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, count=5).tolist()
    if abs(b) > abs(a):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _displayed_size(frame: av.VideoFrame, pixel_aspect: float) -> tuple[int, int]:
    width, height = round(frame.width * pixel_aspect), frame.height
    return (height, width) if _display_matrix(frame)[0] else (width, height)


def _as_displayed(image: Image, frame: av.VideoFrame) -> Image:
    transpose, mirror, flip = _display_matrix(frame)
    if transpose:
        image = image.transpose(1, 0, 2)
    if mirror:
        image = image[:, ::-1]
    if flip:
        image = image[::-1]
    return np.ascontiguousarray(image, dtype=np.uint8)
