"""What a store holds of each source: one row, or one a track where all faces were asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from feie.features.errors import UsageError
from feie.features.video.sources import Source

_TRACK = re.compile(r"#\d+$")


class Held:
    """Rows of a store by the id of their source.

    Parameters
    ----------
    known : pandas.DataFrame
        See `Store.videos`.
    all_faces : bool
        Ids end in the number of a track, ``#1``, ``#2``, …
    """

    def __init__(self, known: pd.DataFrame, all_faces: bool) -> None:
        self.known = known
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        for video_id, row in known.to_dict("index").items():
            source_id = _TRACK.sub("", str(video_id)) if all_faces else str(video_id)
            self._rows.setdefault(source_id, {})[str(video_id)] = row  # type: ignore[assignment]

    def ids(self, source_id: str) -> list[str]:
        """Video ids that the store holds of a source."""
        return list(self._rows.get(source_id, ()))

    def row(self, source_id: str) -> dict[str, Any] | None:
        """Give a row that speaks for the source; None where there is none, or where they disagree.

        They disagree when a kill fell between a commit and the marks on the rows it replaced.
        """
        rows = list(self._rows.get(source_id, {}).values())
        if not rows or len({(row["fingerprint"], row["status"]) for row in rows}) > 1:
            return None
        return rows[0]


def refuse_track_names(sources: Iterable[Source]) -> None:
    """Refuse sources whose names look like the ids of tracks.

    Raises
    ------
    UsageError
        The name of a source ends in # and digits.
    """
    for source in sources:
        if _TRACK.search(source.video_id):
            raise UsageError(
                f"{source.relative}: with --all-faces, # and a number at the end of an id name a "
                "face; rename the file"
            )
