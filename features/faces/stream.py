"""From a source to aligned faces, chunk by chunk: decode, detect, follow, align."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import MissingWeightsError, UsageError, VideoError
from feie.features.faces.align import ALIGNED_SIZE, ARCFACE_TEMPLATE
from feie.features.faces.crop import ALIGNED, Crop
from feie.features.faces.detection import Detector, Faces, rescaled
from feie.features.faces.search import Search
from feie.features.faces.smooth import check_window, smoothed
from feie.features.video.file import open_reader
from feie.features.video.reader import Frame, Image
from feie.features.video.remarks import Remarks
from feie.features.video.sources import Source

MOST_STRIDE = 30
"""A second of most videos: who is interpolated over longer was not followed."""

FaceMode = Literal["auto", "detect", "aligned"]
DetectorSource = Detector | Callable[[], Detector] | None


@dataclass(frozen=True)
class FaceOptions:
    """How faces are taken from a source.

    Attributes
    ----------
    faces : {"auto", "detect", "aligned"}
        ``aligned``: every frame is a face crop already; square frames of another size than
        the extractor's are resized. ``detect``: search every frame.
        ``auto``: ``aligned`` for sources of 112x112 frames, ``detect`` for all others.
    fps : float, optional
        Resample by time to this rate; by default every frame of the source is taken.
    folder_fps : float, optional
        Rate that the numbers of image folders count, 30 by default, and that of videos without
        time stamps, which fail by default.
    stride : int
        Search every so many frames, see `Search`; 1 searches each.
    batch : int
        Frames searched together, see `Search`.
    all_faces : bool
        Keep every face of a searched source, each with its track, not the main one only.
    smooth : int
        Frames in the window that steadies box and landmarks, see `smoothed`; 0 for none.
    crop : Crop
        What the extractor wants to see of a face. Frames that are face crops already are only
        brought to its size.
    """

    faces: FaceMode = "auto"
    fps: float | None = None
    folder_fps: float | None = None
    stride: int = 1
    batch: int = 1
    all_faces: bool = False
    smooth: int = 0
    crop: Crop = ALIGNED

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= MOST_STRIDE:
            raise UsageError(f"the stride must lie in [1, {MOST_STRIDE}], not {self.stride}")
        if not 1 <= self.batch <= 256:
            raise UsageError(f"frames searched together must lie in [1, 256], not {self.batch}")
        if self.all_faces and self.stride > 1:
            raise UsageError("all faces are followed from frame to frame: leave out the stride")
        check_window(self.smooth)
        if self.smooth and self.all_faces:
            raise UsageError("the main face is what is smoothed: leave out all faces")
        if self.batch > 1 and self.stride > 1:
            raise UsageError("a stride searches frame by frame: leave out the batch")
        if self.faces not in ("auto", "detect", "aligned"):
            raise UsageError(f"faces must be auto, detect or aligned, not {self.faces!r}")
        for rate in (self.fps, self.folder_fps):
            if rate is not None and not 0 < rate <= 1000:
                raise UsageError(f"a frame rate must lie in (0, 1000], not {rate}")


@dataclass
class FaceChunk:
    """The main face of k frames in a row; or all faces of them, see `FaceOptions.all_faces`.

    With all faces, the arrays below with one row a frame, other than `time`, have one row a face
    instead, `valid` is true throughout, and `frame` and `track` say whose they are.

    Attributes
    ----------
    time : (k,) float64 array
        Presentation time stamps, s.
    valid : (k,) bool array
        Whether the frame shows the main face.
    face_score : (k,) float32 array
        Of the detector, in [0, 1]; 1 for aligned input; NaN without a face.
    bbox : (k, 4) float32 array
        x0, y0, x1, y1, px of the first frame as displayed, also where later ones have another
        size; the whole frame for aligned input; NaN without a face.
    landmarks : (k, 5, 2) float32 array
        px as `bbox`, in ArcFace's order; the template for aligned input; NaN without a face.
    aligned : (v, side, side, 3) uint8 array
        Crops, RGB, of the v valid frames (or faces) in order, as `FaceOptions.crop` says.
    frame, track : (v,) int64 arrays, or None
        Place of each face's frame in the chunk, and its track in the video; None for the main
        face.
    """

    time: NDArray[np.float64]
    valid: NDArray[np.bool_]
    face_score: NDArray[np.float32]
    bbox: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    aligned: NDArray[np.uint8]
    frame: NDArray[np.int64] | None = None
    track: NDArray[np.int64] | None = None


class FaceStream:
    """The main face of every frame of one source; iterate it once for `FaceChunk` objects.

    Memory is bounded by one chunk, whatever the length of the video. A stream belongs to one
    thread; several streams in several threads may share one detector.

    Parameters
    ----------
    source : Source
        What to read.
    options : FaceOptions
        How.
    detector : Detector, or function that gives one, or None
        Asked for only when frames have to be searched, so that aligned input needs no weights.
    size : int
        Frames in a chunk; the last may be shorter.

    Attributes
    ----------
    width, height : int
        Of the first frame as displayed, px.
    mode : {"detect", "aligned"}
        What is done with this source.

    Raises
    ------
    VideoError
        On opening, see `decode.VideoReader` and `frames.FolderReader`; ``not-aligned`` when
        aligned faces are expected and frames are not square. While iterating: ``truncated``
        and ``broken``, after the last full chunk.
    MissingWeightsError
        Frames have to be searched and there is no detector.
    """

    def __init__(
        self,
        source: Source,
        options: FaceOptions | None = None,
        detector: DetectorSource = None,
        size: int = 64,
    ) -> None:
        options = options or FaceOptions()
        if size < 1:
            raise UsageError(f"a chunk must hold at least one frame, not {size}")
        self._name = source.relative
        self._size = size
        self._reader = open_reader(source, options.fps, options.folder_fps)
        self.width, self.height = self._reader.width, self._reader.height
        crops = self.width == self.height == ALIGNED_SIZE
        aligned = options.faces == "aligned" or (options.faces == "auto" and crops)
        self.mode: Literal["detect", "aligned"] = "aligned" if aligned else "detect"
        try:
            self._search: Search | None = None
            if not aligned:
                found = _detector(detector, self._name)
                size_of = self.width, self.height
                self._search = Search(found, *size_of, options.stride, options.batch)
        except BaseException:
            self._reader.close()
            raise
        self._all_faces = options.all_faces
        self._smooth = options.smooth
        self._crop = options.crop

    @property
    def fps(self) -> float:
        """Frames a second; the true mean once the stream has been read, see `Reader.fps`."""
        return self._reader.fps

    @property
    def corrupt(self) -> int:
        """Packets or images that did not decode, so far."""
        return self._reader.corrupt

    @property
    def remarks(self) -> Remarks:
        """What is to be said of the pictures, so far."""
        return self._reader.remarks

    @property
    def frames_read(self) -> int:
        """Frames taken from the source so far, see `Reader.frames_read`."""
        return self._reader.frames_read

    def __iter__(self) -> Iterator[FaceChunk]:
        with self._reader as reader:
            if self._all_faces:
                rows = self._all(reader)
                while group := list(itertools.islice(rows, self._size)):
                    yield _track_chunk(group, self._crop.size)
            else:
                faces = map(self._given, reader) if self._search is None else self._main(reader)
                while batch := list(itertools.islice(faces, self._size)):
                    yield _chunk(batch, self._crop.size)

    def close(self) -> None:
        """Free the source; iterating to the end does so too."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _main(self, frames: Iterable[Frame]) -> Iterator[_Face]:
        """Search frames for the main face and align it."""
        assert self._search is not None
        found = self._search.main_face(frames)
        for frame, face in smoothed(found, self._smooth) if self._smooth else found:
            crop = None
            if face is not None and frame.image is not None:
                crop = self._cut(frame.image, face)
            yield _Face(frame.time, face, crop)

    def _all(self, frames: Iterable[Frame]) -> Iterator[tuple[float, list[tuple[int, _Face]]]]:
        """Search frames for all faces and align each."""
        if self._search is None:
            for frame in frames:
                given = self._given(frame)
                yield frame.time, [(0, given)] if given.face is not None else []
            return
        for frame, found in self._search.all_faces(frames):
            faces = []
            for track, face in found:
                assert frame.image is not None
                crop = self._cut(frame.image, face)
                faces.append((track, _Face(frame.time, face, crop)))
            yield frame.time, faces

    def _cut(self, image: Image, face: Faces) -> Image:
        """Cut a face, in pixels of the first frame, out of a frame of whatever size."""
        here = rescaled(face, (self.width, self.height), (image.shape[1], image.shape[0]))
        return self._crop.cut(image, here.bbox[0], here.landmarks[0])

    def _given(self, frame: Frame) -> _Face:
        """Take a frame as the aligned face that it is said to be."""
        image = frame.image
        if image is None:
            return _Face(frame.time, None, None)
        height, width = image.shape[:2]
        if height != width:
            raise VideoError(
                "not-aligned",
                f"frames of {self._name} are {width}x{height}, and aligned faces are square; "
                "use --faces detect",
            )
        face = Faces(
            np.array([[0, 0, self.width, self.height]], np.float32),
            np.ones(1, np.float32),
            ARCFACE_TEMPLATE[None]
            * np.array([self.width / ALIGNED_SIZE, self.height / ALIGNED_SIZE], np.float32),
        )
        return _Face(frame.time, face, self._crop.fit(image))


@dataclass
class _Face:
    time: float
    face: Faces | None
    crop: Image | None


def _detector(given: DetectorSource, name: str) -> Detector:
    detector = given() if callable(given) else given
    if detector is None:
        raise MissingWeightsError(
            f"{name} has to be searched for faces and there is no detector; give --detector, or "
            "--faces aligned if its frames are aligned face crops"
        )
    return detector


def _chunk(batch: list[_Face], size: int) -> FaceChunk:
    k = len(batch)
    chunk = FaceChunk(
        time=np.array([item.time for item in batch], np.float64),
        valid=np.array([item.face is not None for item in batch], np.bool_),
        face_score=np.full(k, np.nan, np.float32),
        bbox=np.full((k, 4), np.nan, np.float32),
        landmarks=np.full((k, 5, 2), np.nan, np.float32),
        aligned=np.empty((0, size, size, 3), np.uint8),
    )
    for row, item in enumerate(batch):
        if item.face is not None:
            chunk.bbox[row], chunk.face_score[row], chunk.landmarks[row] = (
                part[0] for part in item.face
            )
    crops = [item.crop for item in batch if item.crop is not None]
    if crops:
        chunk.aligned = np.stack(crops)
    return chunk


def _track_chunk(group: list[tuple[float, list[tuple[int, _Face]]]], size: int) -> FaceChunk:
    faces = [face for _, found in group for _, face in found]
    chunk = _chunk(faces, size)
    chunk.time = np.array([time for time, _ in group], np.float64)
    places = [place for place, (_, found) in enumerate(group) for _ in found]
    chunk.frame = np.array(places, np.int64)
    chunk.track = np.array([track for _, found in group for track, _ in found], np.int64)
    return chunk
