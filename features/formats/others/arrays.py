"""Arrays of frames x features, one a video: NumPy files, or the data sets of HDF5 files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError, VideoError
from feie.features.formats.reading.files import find_files
from feie.features.formats.reading.imported import ImportedVideo, ReadOptions, Sample
from feie.features.formats.reading.rows import (
    NOT_FINITE,
    doubts,
    rate,
    refuse_standing,
    seconds,
)
from feie.features.hdf5 import has_member, member
from feie.features.schema import Schema
from feie.features.video.sources import Source

_HDF5 = frozenset({".h5", ".hdf5", ".csd"})
_SUFFIXES = _HDF5 | {".npy"}
# What a data set is called where a video has a group of its own, and what lies beside it.
_DATA = frozenset({"features", "feature", "data", "values", "embedding", "embeddings"})
_TIMES = ("time", "times", "timestamps", "timestamp", "intervals")
DEFAULT_GROUP = "features"
_MOST_BYTES = 4 << 30
# What h5py raises where bytes have changed.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


class ArraysFormat:
    """Arrays of frames x features; see `Format`."""

    name = "arrays"
    about = "arrays of frames x features: a .npy file or an HDF5 data set a video"

    def recognises(self, root: Path, sample: Sample) -> bool:
        """Tell by the suffix."""
        return sample.first.suffix.lower() in _SUFFIXES

    def open(self, root: Path, options: ReadOptions) -> ArrayFiles:
        """Find the files; see `Format.open`."""
        if options.all_faces:
            raise UsageError("--all-faces: arrays do not tell faces apart")
        name = options.group or DEFAULT_GROUP
        if options.groups not in ((), (name,)):
            raise UsageError(f"--groups: arrays have one group, which --group names ({name})")
        return ArrayFiles(*find_files(root, _SUFFIXES), name, options)


class ArrayFiles:
    """NumPy and HDF5 files; see `FeatureFiles`."""

    origin: Mapping[str, Any] = {}

    def __init__(
        self, files: Sequence[Source], ignored: Sequence[str], group: str, options: ReadOptions
    ) -> None:
        self.files = files
        self.ignored = ignored
        self._group = group
        self._options = options

    def ids(self, file: Source) -> list[str]:
        """Give the names of an HDF5 file's data sets; that of a NumPy file is its own."""
        if file.path.suffix.lower() not in _HDF5:
            return [file.video_id]
        with _open(file) as root:
            return list(_datasets(root))

    def read(self, file: Source, wanted: Collection[str]) -> Iterator[ImportedVideo]:
        """Read the wanted arrays of a file; see `FeatureFiles.read`."""
        if file.path.suffix.lower() not in _HDF5:
            yield self._video(file.video_id, _numpy(file), None, ())
            return
        with _open(file) as root:
            for video_id, path in _datasets(root).items():
                if video_id not in wanted:
                    continue
                try:
                    yield self._video(video_id, *_read(root, path))
                except (VideoError, *_DAMAGE) as error:
                    why = error.message if isinstance(error, VideoError) else str(error)
                    why = " ".join(why.split())
                    message = f"broken: {file.relative}: {path}: {why}"
                    yield ImportedVideo.failed(video_id, message)

    def _video(
        self,
        video_id: str,
        values: NDArray[Any],
        stamps: NDArray[np.float64] | None,
        names: Sequence[str],
    ) -> ImportedVideo:
        if values.ndim != 2 or values.dtype.kind not in "fiu" or not values.shape[1]:
            raise VideoError(
                "broken",
                f"an array of {values.dtype} of shape {values.shape}; wanted are numbers, frames "
                f"x features",
            )
        if not len(values):
            raise VideoError("empty", "an array without a frame")
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = values.astype(np.float32)
        finite = np.isfinite(numbers)
        valid: NDArray[np.bool_] = np.asarray(finite.all(axis=1))
        notes = (NOT_FINITE,) if (finite.any(axis=1) & ~valid).any() else ()
        if finite.any() and not valid.any():
            raise VideoError("broken", "no frame has all its numbers: some column has none")
        numbers[~valid] = np.nan
        if self._options.fps is not None:
            time: NDArray[np.float64] | None = np.arange(len(numbers)) / self._options.fps
        else:
            time = None if stamps is None else _times(stamps, len(numbers))
        fps = rate(time)
        width = numbers.shape[1]
        if len(set(names)) != width:
            names = [f"{self._group}_{i}" for i in range(width)]
        return ImportedVideo(
            video_id=video_id,
            schema=Schema.of({self._group: names}),
            values=numbers,
            valid=valid,
            time=time,
            fps=fps,
            notes=(*notes, *doubts(fps, self._options)),
        )


def _times(stamps: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    starts = stamps[:, 0] if stamps.ndim == 2 else stamps  # an interval a frame: from its start
    if starts.shape != (frames,) or not np.isfinite(starts).all() or (np.diff(starts) < 0).any():
        raise VideoError(
            "broken", f"{len(starts)} time stamps for {frames} frames, or out of order"
        )
    refuse_standing(starts)
    return seconds(starts, "auto")


def _numpy(file: Source) -> NDArray[Any]:
    try:
        return np.asarray(np.load(file.path, allow_pickle=False))
    except OSError as error:
        raise VideoError(
            "broken", f"{file.relative} cannot be read: {error.strerror or error}"
        ) from None
    except Exception:  # a damaged header may fail anywhere inside NumPy's parser
        raise VideoError(
            "broken", f"{file.relative} is no plain NumPy array (pickled ones are never loaded)"
        ) from None


@contextmanager
def _open(file: Source) -> Iterator[h5py.File]:
    """Open an HDF5 file; whatever is found damaged in it makes one sentence."""
    try:
        with h5py.File(file.path, "r") as root:
            yield root
    except VideoError:
        raise
    except _DAMAGE as error:
        text = str(error)
        why = getattr(error, "strerror", None) or text.partition("(")[2].rstrip(")") or text
        why = " ".join(why.split())
        raise VideoError("broken", f"{file.relative} is no readable HDF5 file: {why}") from None


def _datasets(root: h5py.File) -> dict[str, str]:
    """Ids of videos and the paths of their arrays, in the order of paths.

    A video is a data set by its name, or a group that holds one called ``features``. Groups that
    everything lies in (CMU's .csd files have two) are no part of an id.
    """
    found: dict[str, str] = {}

    def visit(path: str, item: object) -> None:
        # Scalars and texts describe a file: they are nobody's features.
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "fiub":
            folder, _, name = path.rpartition("/")
            if name in _DATA and folder:
                found[folder] = path
            elif name not in _TIMES or not folder:
                found[path] = path

    root.visititems(visit)
    split = {path: name.split("/") for name, path in found.items() if not _beside(name, found)}
    while all(len(parts) > 1 for parts in split.values()) and (
        len({parts[0] for parts in split.values()}) == 1
    ):
        split = {path: parts[1:] for path, parts in split.items()}
    return {"/".join(parts): path for path, parts in split.items()}


def _beside(name: str, found: Mapping[str, str]) -> bool:
    """Tell a data set that lies beside a video's array from a video: metadata of some tool."""
    folder = name.rpartition("/")[0]
    while folder:
        if folder in found:
            return True
        folder = folder.rpartition("/")[0]
    return False


def _read(
    root: h5py.File, path: str
) -> tuple[NDArray[Any], NDArray[np.float64] | None, tuple[str, ...]]:
    data = member(root, path)
    folder, _, name = path.rpartition("/")
    stamps = None
    if name in _DATA and folder:
        times = [f"{folder}/{t}" for t in _TIMES if has_member(root, f"{folder}/{t}")]
        beside = member(root, times[0]) if times else None
        stamps = None if beside is None else np.asarray(beside, np.float64)
    names = data.attrs.get("columns", ())
    texts = [n.decode() if isinstance(n, bytes) else str(n) for n in names]
    if data.ndim != 2:
        raise VideoError("broken", f"an array of shape {data.shape}; wanted are frames x features")
    if data.nbytes > _MOST_BYTES:
        raise VideoError("broken", f"an array of {data.nbytes / 1e9:.0f} GB is no video's")
    return np.asarray(data), stamps, tuple(texts)


FORMAT = ArraysFormat()
