"""py-feat: ``Fex`` tables, one CSV of one video or of several, with a row a face."""

from __future__ import annotations

from collections.abc import Sequence

from feie.features.formats.others.table_format import TableFormat
from feie.features.formats.reading.layout import Layout, grouped, matching, points_of_68

_BOX = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")
# Version 1 writes them in small letters, version 2 says Happy and Sad.
_EMOTIONS = r"anger|disgust|fear|happiness|sadness|surprise|neutral" + (
    r"|Neutral|Happy|Sad|Surprise|Fear|Disgust|Anger|Contempt"
)
_GROUPS = {
    "va": r"valence|arousal",
    "expr": _EMOTIONS,
    "au": r"AU\d+",
    "pose": r"Pitch|Roll|Yaw|[XYZ]",
    "gaze": r"gaze_(pitch|yaw|angle)",
    "landmarks": r"[xy]_\d+",
    "identity": r"Identity_\d+",
    "mesh": r"mesh_[xyz]_\d+",
    # ARKit's names of 52 movements, and MediaPipe's _neutral.
    "blendshapes": r"_neutral|(brow|cheek|eye|jaw|mouth|nose|tongue)[A-Z]\w*",
}
_USUAL = ("va", "expr", "au", "pose", "gaze")


def describe(names: Sequence[str], group: str = "") -> Layout:
    """Say what the columns mean; `approx_time` counts whole seconds, so it times nothing."""
    groups = grouped(names, _GROUPS)
    size = ("FrameWidth", "FrameHeight")
    return Layout(
        groups=groups,
        usual=tuple(name for name in _USUAL if name in groups),
        frame="frame",
        score="FaceScore" if "FaceScore" in names else "",
        person="Identity" if "Identity" in names else "",
        video="input" if "input" in names else "",
        box=_BOX,
        points=points_of_68(names),
        size=size if set(size) <= set(names) else (),
    )


FORMAT = TableFormat(
    "pyfeat",
    "Fex CSV files of py-feat",
    describe,
    needs=(*_BOX, "frame"),
    known_by=lambda names: bool(matching(names, r"AU\d+|" + _EMOTIONS)),
    faces=True,
)
