"""OpenFace 2: ``FeatureExtraction`` and ``FaceLandmarkVidMulti`` write one CSV a video."""

from __future__ import annotations

from collections.abc import Sequence

from feie.features.formats.others.table_format import TableFormat
from feie.features.formats.reading.layout import Layout, grouped, points_of_68

# Intensities (0 to 5) and presences (0 or 1) are different things, so different groups.
_GROUPS = {
    "gaze": r"gaze_(\d_[xyz]|angle_[xy])",
    "eye_landmarks": r"eye_lmk_[xyXYZ]_\d+",
    "pose": r"pose_[TR][xyz]",
    "landmarks": r"[xy]_\d+",
    "landmarks_3d": r"[XYZ]_\d+",
    "shape": r"p_(scale|r[xyz]|t[xy]|\d+)",
    "au_r": r"AU\d+_r",
    "au_c": r"AU\d+_c",
}
_USUAL = ("gaze", "pose", "au_r", "au_c")


def describe(names: Sequence[str], group: str = "") -> Layout:
    """Say what the columns mean; versions and options of OpenFace differ in which there are."""
    groups = grouped(names, _GROUPS)
    return Layout(
        groups=groups,
        usual=tuple(name for name in _USUAL if name in groups),
        time="timestamp" if "timestamp" in names else "",
        frame="frame",
        first=1,
        found="success",
        score="confidence" if "confidence" in names else "",
        person="face_id" if "face_id" in names else "",
        points=points_of_68(names),
    )


FORMAT = TableFormat(
    "openface",
    "CSV files of OpenFace 2",
    describe,
    needs=("frame", "success"),
    faces=True,
)
