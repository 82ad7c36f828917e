"""Steady faces: box and landmarks filtered over time, without lag."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_coeffs

from feie.features.errors import UsageError
from feie.features.faces.align import is_alignable
from feie.features.faces.detection import Faces, iou
from feie.features.video.reader import Frame

WINDOWS = range(5, 32, 2)
"""Frames that a window may have."""

_SAME = 0.3  # IoU of the boxes of one face in neighbouring frames
_ORDER = 2  # of the polynomial: peaks of movement keep their height and their time

_Found = tuple[Frame, Faces | None]


def check_window(window: int) -> None:
    """Refuse a number of frames that is no window; 0 is none.

    Raises
    ------
    UsageError
    """
    if window and window not in WINDOWS:
        raise UsageError(f"--smooth takes an odd number of frames from 5 to 31, not {window}")


def smoothed(found: Iterable[_Found], window: int) -> Iterator[_Found]:
    """Filter box and landmarks of a face by Savitzky and Golay's method (1964).

    A polynomial of second order is fitted to the frames of a window about each frame, and its
    value there is taken: nothing comes later than it was, and the first and last frames of a run
    have the value of the nearest window's polynomial (as `scipy.signal.savgol_filter` does with
    ``mode="interp"``). A run ends where a frame is without the face, or where the boxes of
    neighbouring frames overlap by an IoU below 0.3; runs shorter than the window are left as they
    are. Frames count, not times.

    Parameters
    ----------
    found : iterable of (Frame, Faces or None)
        The main face of each frame, see `Search.main_face`.
    window : int
        Frames, odd.

    Yields
    ------
    (Frame, Faces or None)
        The same frames, half a window later; their pictures are held so long.
    """
    weights = [savgol_coeffs(window, _ORDER, pos=at, use="dot") for at in range(window)]
    faces: list[Faces] = []  # the last of a run, a window at most
    waiting: deque[Frame] = deque()  # frames of the last of them
    for frame, face in found:
        if face is None or (faces and not _same(faces[-1], face)):
            yield from _fitted(faces, waiting, len(waiting), weights)
            faces = []
        if face is None:
            yield frame, None
            continue
        faces = [*faces[-(window - 1) :], face]
        waiting.append(frame)
        if len(faces) == window:
            yield from _fitted(faces, waiting, len(waiting) - window // 2, weights)
    yield from _fitted(faces, waiting, len(waiting), weights)


def _same(before: Faces, face: Faces) -> bool:
    return float(iou(before.bbox[0], face.bbox)[0]) >= _SAME


def _fitted(
    faces: Sequence[Faces], waiting: deque[Frame], count: int, weights: list[NDArray[np.float64]]
) -> Iterator[_Found]:
    """Give so many of the waiting frames with the values of the last window's polynomial."""
    if not count:
        return
    boxes, points = (
        np.stack([getattr(face, part)[0] for face in faces]).astype(np.float64)
        for part in ("bbox", "landmarks")
    )
    for _ in range(count):
        at = len(faces) - len(waiting)
        face = faces[at]
        if len(faces) == len(weights):
            bbox, landmarks = (
                np.tensordot(weights[at], values, 1).astype(np.float32)
                for values in (boxes, points)
            )
            if is_alignable(landmarks):
                face = Faces(bbox[None], face.score, landmarks[None])
        yield waiting.popleft(), face
