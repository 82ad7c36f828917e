"""Which of the faces in a frame is the one that the video is about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feie.features.faces.detection import Faces, iou

# Overlap (IoU) from which two boxes in neighbouring frames are the same face.
_SAME = 0.3
# Frames without the face after which a face elsewhere may become the main one.
_PATIENCE = 15


class MainFace:
    """Choice of the main face, frame by frame, for one video.

    In the first frame with faces, the main face is the one of the highest `prominence`. From
    then on it is the face that overlaps the last main box most, if that is an IoU of 0.3 or
    more: a passer-by does not take over, however near. If no face overlaps, the frame counts as
    one without the main face, unless

    - the face has been away for 15 frames or more: then the most prominent face is taken anew;
    - a face of similar size (area ratio below 3) lies near the place of the last one (centres
      within one box width): a fast movement.

    Stateful: use one for each video, and give it every frame in order, those without faces too.
    """

    def __init__(self) -> None:
        self._box: NDArray[np.float32] | None = None
        self._absent = 0
        self.followed = 0
        """Frames in a row in which the face was looked for around its last place only."""

    @property
    def box(self) -> NDArray[np.float32] | None:
        """Where the main face was in the last frame, x0, y0, x1, y1 px; None if it was not."""
        return None if self._absent else self._box

    def keep(self, faces: Faces) -> int | None:
        """Index of the main face among faces found around its last place, or None.

        Only a face that overlaps the last box counts; None says nothing of the frame, which is
        then to be searched whole and given to `pick`.
        """
        if self.box is None or not len(faces.bbox):
            return None
        overlap = iou(self.box, faces.bbox)
        best = int(np.argmax(overlap))
        if overlap[best] < _SAME:
            return None
        self._box = faces.bbox[best]
        self.followed += 1
        return best

    def miss(self, frames: int) -> None:
        """Count frames that were not searched as frames without the face."""
        self._absent += frames

    def pick(self, faces: Faces, width: int, height: int) -> int | None:
        """Index of the main face among the faces of the next frame, or None.

        Parameters
        ----------
        faces : Faces
            Found in the frame; may be empty.
        width, height : int
            Of the frame, px.
        """
        self.followed = 0
        chosen = self._choose(faces, width, height)
        if chosen is None:
            self._absent += 1
        else:
            self._box = faces.bbox[chosen]
            self._absent = 0
        return chosen

    def _choose(self, faces: Faces, width: int, height: int) -> int | None:
        if not len(faces.bbox):
            return None
        if self._box is None or self._absent >= _PATIENCE:
            return int(np.argmax(prominence(faces.bbox, faces.score, width, height)))
        overlap = iou(self._box, faces.bbox)
        best = int(np.argmax(overlap))
        if overlap[best] >= _SAME:
            return best
        near = _moved(self._box, faces.bbox)
        return int(np.argmin(near)) if np.isfinite(near).any() else None


class Tracks:
    """Tracks of all faces of one video: who is who from frame to frame, by overlap.

    Pairs of last boxes and new ones are matched greedily, the largest overlap first, from an IoU
    of 0.3. A face that matches no track opens a new one. A track that has gone without a face for
    15 frames is closed; who comes back later is somebody new.

    Stateful: use one for each video, and give it every frame in order, those without faces too.
    """

    def __init__(self) -> None:
        self._boxes: dict[int, NDArray[np.float32]] = {}
        self._absent: dict[int, int] = {}
        self._count = 0

    def assign(self, faces: Faces) -> list[int]:
        """Give the number of the track of each face of the next frame, from 0 on.

        Parameters
        ----------
        faces : Faces
            Found in the frame; may be empty.
        """
        numbers = [-1] * len(faces.bbox)
        pairs = [
            (float(overlap), track, face)
            for track, box in self._boxes.items()
            for face, overlap in enumerate(iou(box, faces.bbox))
            if overlap >= _SAME
        ]
        taken: set[int] = set()
        for _, track, face in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if track not in taken and numbers[face] < 0:
                numbers[face] = track
                taken.add(track)
        for face, number in enumerate(numbers):
            if number < 0:
                numbers[face] = self._count
                self._count += 1
            self._boxes[numbers[face]] = faces.bbox[face]
        for track in list(self._boxes):
            self._absent[track] = 0 if track in numbers else self._absent[track] + 1
            if self._absent[track] >= _PATIENCE:
                del self._boxes[track], self._absent[track]
        return numbers


def prominence(
    bbox: NDArray[np.float32], score: NDArray[np.float32], width: int, height: int
) -> NDArray[np.float64]:
    """Score of each face as a main face: score · area · (1 - d / 2), d in [0, 1].

    d is the distance of the box's centre from the frame's centre in half diagonals, so that of
    two equal faces the central one wins, and a face twice as large wins from anywhere.

    Parameters
    ----------
    bbox : (n, 4) float array
        x0, y0, x1, y1 px.
    score : (n,) float array
        Of the detector, in [0, 1].
    width, height : int
        Of the frame, px.

    Returns
    -------
    (n,) float64 array
    """
    box = bbox.astype(np.float64)
    area = np.prod(np.maximum(box[:, 2:] - box[:, :2], 0.0), axis=1)
    centre = (box[:, :2] + box[:, 2:]) / 2 - np.array([width, height]) / 2
    distance = np.minimum(np.linalg.norm(centre, axis=1) / (np.hypot(width, height) / 2), 1.0)
    return np.asarray(score * area * (1 - distance / 2), np.float64)


def _moved(box: NDArray[np.float32], bbox: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of centres in widths of the last box; inf where it cannot be the same face."""
    size, sizes = box[2:] - box[:2], bbox[:, 2:] - bbox[:, :2]
    shift = (bbox[:, :2] + bbox[:, 2:] - box[:2] - box[2:]) / 2
    distance = np.linalg.norm(shift, axis=1) / max(float(size[0]), 1e-3)
    ratio = np.abs(np.log(np.maximum(np.prod(sizes, axis=1), 1e-3) / max(np.prod(size), 1e-3)))
    return np.where((distance <= 1.0) & (ratio < np.log(3.0)), distance, np.inf).astype(np.float64)
