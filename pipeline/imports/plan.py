"""Which videos of which files are still to be imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feie.features.errors import UsageError, VideoError
from feie.features.formats.reading.imported import FeatureFiles
from feie.features.store.layout import OK
from feie.features.store.reader import Store
from feie.features.video.sources import Source, fingerprint
from feie.pipeline.known import KnownVideos
from feie.pipeline.progress import Progress, ProgressCallback


@dataclass(frozen=True)
class Task:
    """A file and the videos in it that are wanted; or why nothing in it can be read.

    Attributes
    ----------
    file : Source
    wanted : tuple of str
        Ids, in the file's order.
    failure : str
        Then `wanted` is the file's own id alone.
    """

    file: Source
    wanted: tuple[str, ...]
    failure: str = ""


@dataclass(frozen=True)
class Plan:
    """What there is and what of it is to be done.

    Attributes
    ----------
    videos : int
        Found in all files.
    tasks : list of Task
    """

    videos: int
    tasks: list[Task]


def timed_otherwise(store: Store, fps: float | None) -> list[str]:
    """Give the good videos of a store whose times do not come of this option ``--fps``.

    A session says by which it was written, so that what an interrupted run left is found, too.
    """
    made = store.provenance
    if "import_format" not in made["options"]:
        return []  # not of imported features: the writer says so
    begun = made["options"].get("import_fps")
    otherwise = np.zeros(store.committed, np.bool_)
    for session in made["sessions"]:
        arguments = session.get("arguments")
        said = begun if arguments is None else arguments.get("fps")
        otherwise[session["first"] : session["last"]] = said != fps
    latest = store.rows[~store.rows["id"].duplicated(keep="last")]
    return latest["id"][otherwise[latest.index] & (latest["status"] == OK)].tolist()


@lru_cache(maxsize=64)
def digest(file: Source) -> str:
    """Hash a file once, however many videos it holds; empty where it cannot be read."""
    try:
        return fingerprint(file)
    except VideoError:
        return ""


def plan(files: FeatureFiles, known: KnownVideos, progress: ProgressCallback) -> Plan:
    """Compare what files hold with what a store holds.

    A video is done when the store has it from the same bytes; one that failed is tried again, as
    reading a file costs little.

    Raises
    ------
    UsageError
        Two files hold videos of one id.
    """
    tasks: list[Task] = []
    homes: dict[str, Source] = {}
    for done, file in enumerate(files.files, start=1):
        try:
            ids: Sequence[str] = files.ids(file)
            failure = ""
        except VideoError as error:
            ids, failure = [file.video_id], str(error)
        for video_id in ids:
            if (other := homes.setdefault(video_id, file)) is not file:
                raise UsageError(
                    f"{other.relative} and {file.relative} both hold a video {video_id!r}; rename "
                    f"one, or import them into stores of their own"
                )
        wanted = [
            video_id
            for video_id in ids
            if not known.is_done(video_id, file, digest, retry_failed=True)
        ]
        if wanted:
            tasks.append(Task(file, tuple(wanted), failure))
        progress(Progress("comparing", done, len(files.files)))
    return Plan(len(homes), tasks)
