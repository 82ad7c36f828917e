"""Any table of one row a frame: what is no time, frame number or flag is a feature."""

from __future__ import annotations

from collections.abc import Sequence

from feie.features.formats.others.table_format import TableFormat
from feie.features.formats.reading.layout import Layout, TimeUnit
from feie.features.schema import ACTION_UNITS, EXPRESSIONS, VALENCE_AROUSAL

_TIMES: dict[str, TimeUnit] = {
    "time": "s",
    "time_s": "s",
    "frametime": "s",
    "seconds": "s",
    "sec": "s",
    "timestamp": "auto",
    "timestamp_s": "s",
    "time_ms": "ms",
    "timestamp_ms": "ms",
    "milliseconds": "ms",
}
_FRAMES = ("frame", "frame_idx", "frame_index", "frame_number", "frame_id")
_FOUND = ("valid", "success", "face_found")
_SCORES = ("face_score", "confidence")
_VIDEOS = ("video", "video_id", "file_id", "filename", "file")
# The index that pandas writes, with or without a name, and the name that openSMILE gives each row.
_PASSED_OVER = ("", "unnamed: 0", "index", "name")
DEFAULT_GROUP = "features"
_STANDARD = {
    "va": frozenset(VALENCE_AROUSAL),
    "expr": frozenset({*EXPRESSIONS, "contempt"}),
    "au": frozenset(ACTION_UNITS),
}


def describe(names: Sequence[str], group: str = "") -> Layout:
    """Say what the columns mean, by their names; feie's own have their groups by default."""
    by_small = {name.lower(): name for name in reversed(names)}

    def one_of(known: Sequence[str]) -> str:
        return next((by_small[name] for name in known if name in by_small), "")

    time, frame, found = one_of([*_TIMES]), one_of(_FRAMES), one_of(_FOUND)
    score, video = one_of(_SCORES), one_of(_VIDEOS)
    facts = {time, frame, found, score, video}
    features = [n for n in names if n not in facts and n.lower() not in _PASSED_OVER]
    groups: dict[str, tuple[str, ...]] = {}
    if group == DEFAULT_GROUP:
        for name, members in _STANDARD.items():
            groups[name] = tuple(n for n in features if n in members)
    sorted_in = {n for members in groups.values() for n in members}
    groups[group] = tuple(n for n in features if n not in sorted_in)
    groups = {name: members for name, members in groups.items() if members}
    return Layout(
        groups=groups,
        usual=tuple(groups),
        time=time,
        unit=_TIMES[time.lower()] if time else "s",
        frame=frame,
        first=None,
        found=found,
        score=score,
        video=video,
    )


FORMAT = TableFormat(
    "table",
    "any CSV or Parquet of one row a frame, a file a video or with a column that names the video",
    describe,
    group=lambda root: DEFAULT_GROUP,
    several=True,
)
