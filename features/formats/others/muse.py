"""MuSe's feature folders: one CSV a video, two columns of metadata, then the features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from feie.features.formats.others.table_format import TableFormat
from feie.features.formats.reading.layout import Layout

_FIRST = frozenset({"timestamp", "time"})
_SECOND = frozenset({"segment_id", "id_segment", "segment", "file_id", "subject_id", "filename"})


def describe(names: Sequence[str], group: str = "") -> Layout:
    """Say what the columns mean: by place, as MuSe's own parsers read them."""
    features = tuple(name for name in names[2:] if name)
    return Layout(
        groups={group: features} if features else {},
        usual=(group,) if features else (),
        time=names[0],
        unit="auto",
    )


def feature_set(root: Path) -> str:
    """Give the name of the set of features: that of the folder, in letters fit for a group."""
    name = root.absolute()
    folder = name.name if root.is_dir() else name.parent.name
    return re.sub(r"\W+", "_", folder.lower()).strip("_") or "features"


FORMAT = TableFormat(
    "muse",
    "a feature folder of MuSe: a CSV a video, two columns of metadata, then features",
    describe,
    known_by=lambda names: (
        len(names) > 2 and names[0].lower() in _FIRST and names[1].lower() in _SECOND
    ),
    group=feature_set,
)
