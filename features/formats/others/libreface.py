"""LibreFace: one CSV a video, with a row a frame that has a face."""

from __future__ import annotations

from collections.abc import Sequence

from feie.features.formats.others.table_format import TableFormat
from feie.features.formats.reading.layout import Layout, grouped

_WORDS = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt")
_GROUPS = {
    "au_c": r"au_\d+",
    "au_r": r"au_\d+_intensity",
    "expression": r"facial_expression",
    "pose": r"pitch|yaw|roll",
    "landmarks": r"lm_mp_\d+_[xyz]",
}
_USUAL = ("au_c", "au_r", "expression", "pose")


def describe(names: Sequence[str], group: str = "") -> Layout:
    """Say what the columns mean.

    ``frame_time_in_ms`` holds seconds in most versions, so the unit is told by the steps.
    """
    groups = grouped(names, _GROUPS)
    return Layout(
        groups=groups,
        usual=tuple(name for name in _USUAL if name in groups),
        labels={"facial_expression": _WORDS},
        time="frame_time_in_ms" if "frame_time_in_ms" in names else "",
        unit="auto",
        frame="frame_idx",
    )


FORMAT = TableFormat(
    "libreface",
    "CSV files of LibreFace",
    describe,
    needs=("frame_idx",),
    known_by=lambda names: bool(grouped(names, _GROUPS).keys() & {"au_c", "au_r"}),
)
