"""What a store holds of each source: one row, or one a track where all faces were asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from feie.features.errors import UsageError
from feie.features.store.layout import FAILED
from feie.features.store.records import VideoRecord
from feie.features.video.sources import Source

_TRACK = re.compile(r"#\d+$")


class KnownVideos:
    """Rows of a store by the id of their source.

    Parameters
    ----------
    videos : pandas.DataFrame
        See `Store.videos`.
    all_faces : bool
        Ids end in the number of a track, ``#1``, ``#2``, …

    Attributes
    ----------
    touched : dict of str to int
        Ids of the videos that `is_done` has found to have the same bytes and another time, and
        that time.
    """

    def __init__(self, videos: pd.DataFrame, all_faces: bool) -> None:
        self.touched: dict[str, int] = {}
        self._videos = videos
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        for video_id, row in videos.to_dict("index").items():
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

    def is_done(
        self, source_id: str, source: Source, digest: Callable[[Source], str], *, retry_failed: bool
    ) -> bool:
        """Tell whether the store holds a source from the bytes that it has now.

        Sizes and times are compared as make and rsync do, and bytes only where those differ:
        reading 25,000 videos again would cost an hour.

        Parameters
        ----------
        source_id : str
        source : Source
        digest : callable
            Gives the fingerprint of a source; empty where it cannot be read.
        retry_failed : bool
            A source that failed is not done.
        """
        row = self.row(source_id)
        if row is None or not row["fingerprint"] or (row["status"] == FAILED and retry_failed):
            return False
        if (row["size"], row["mtime_ns"]) != (source.size, source.mtime_ns):
            if row["fingerprint"] != digest(source):
                return False
            self.touched |= dict.fromkeys(self.ids(source_id), source.mtime_ns)
        return True

    def failures(self, source_ids: Iterable[str]) -> dict[str, str]:
        """Give why each of some sources failed, of those that did."""
        rows = self._videos[self._videos["status"] == FAILED]["message"].to_dict()
        here = set(source_ids)
        return {str(k): str(v) for k, v in rows.items() if k in here}


def said_before(records: Sequence[VideoRecord], videos: pd.DataFrame) -> bool:
    """Tell a failure that the store names in the same words already; see `Store.videos`."""
    record = records[0]
    if len(records) > 1 or not record.failed or record.id not in videos.index:
        return False
    row = videos.loc[record.id]
    same = (row["message"], row["fingerprint"]) == (record.message, record.fingerprint)
    return bool(row["status"] == FAILED and same)


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
