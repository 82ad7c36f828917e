"""Faces for a video's picture, from its source where that is still there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError, VideoError
from feie.features.faces.crop import face_picture
from feie.features.store.reader import Store, VideoView
from feie.features.video.numbering import VIDEO_SUFFIXES
from feie.features.video.sources import Source, discover
from feie.features.video.stills import stills
from feie.pipeline.inspect.picture import FACES, Face

_SIDE = 160  # px


def faces_of(
    store: Store, video: VideoView, shown: slice, folder: Path | None
) -> tuple[list[Face], str]:
    """Take a face out of each tenth of the shown time, if the source can be found.

    Parameters
    ----------
    store : Store
    video : VideoView
    shown : slice
        Its rows in the picture.
    folder : Path or None
        Where videos lie; by default where the store's own sessions found them.

    Returns
    -------
    faces : list of Face
    note : str
        Why there are none; empty where there are.
    """
    row: Mapping[Any, Any] = store.videos.loc[video.id].to_dict()
    roots = [folder] if folder is not None else _roots(store)
    source = next(filter(None, (_find(root, video.id, str(row["source"])) for root in roots)), None)
    if source is None:
        return [], "its source is not there" if folder is None else f"{folder} has no such video"
    if source.relative == Path(row["source"]).name and source.size != row["size"]:
        return [], "its source has changed since it was extracted"
    rows = _choose(video.time[shown], video.valid[shown], shown.start)
    if not rows:
        return [], "no frame shows a face"
    time = video.time
    try:
        made = store.provenance["options"]
        shown_at = (float(time[r]) for r in rows.values())
        images = stills(source, shown_at, made.get("fps"), made.get("image_fps"))
    except (VideoError, UsageError) as error:
        return [], str(error)
    landmarks, bbox = video.landmarks, video.bbox
    unit = int(row["width"]), int(row["height"])
    faces = [
        Face(place, float(time[r]), face_picture(images[t], landmarks[r], bbox[r], _SIDE, unit))
        for place, r in rows.items()
        if (t := float(time[r])) in images
    ]
    return faces, "" if faces else "its source has no such frames"


def _choose(time: NDArray[np.float64], valid: NDArray[np.bool_], first: int) -> dict[int, int]:
    """Give for each tenth of the time the row with a face nearest to its middle, if it has one."""
    seen = np.flatnonzero(valid)
    step = float(np.median(np.diff(time))) if len(time) > 1 else 1.0
    width = (time[-1] - time[0] + step) / FACES
    chosen = {}
    for place in range(FACES):
        middle = time[0] + (place + 0.5) * width
        if len(seen):
            nearest = int(seen[np.abs(time[seen] + step / 2 - middle).argmin()])
            # Of a frame that is on for longer than a tenth, each tenth in it shows it.
            if abs(time[nearest] + step / 2 - middle) <= max(width, step) / 2:
                chosen[place] = first + nearest
    return chosen


def _roots(store: Store) -> list[Path]:
    """Folders that the store's sessions read from, newest first."""

    def named(sessions: Any) -> Iterator[str]:
        for session in sessions:
            yield str(session.get("arguments", {}).get("videos", ""))
            for part in session.get("merged", ()):
                yield from named(part["sessions"])

    found = [Path(name) for name in named(store.provenance["sessions"]) if name]
    return list(dict.fromkeys(reversed(found)))


def _find(root: Path, video_id: str, name: str) -> Source | None:
    """Find a video by the store's name of its source, or else (imported stores) by its id."""
    plain = Path(name)
    paths = [] if plain.is_absolute() or ".." in plain.parts else [root / plain]
    if root.name == name:
        paths.append(root)
    base = root / video_id.partition("#")[0]
    if ".." not in base.parts:
        paths += [base, *(base.with_name(base.name + suffix) for suffix in VIDEO_SUFFIXES)]
    for path in paths:
        try:
            if path.exists() and (here := discover(path).sources)[0].path == path:
                return here[0]
        except (UsageError, OSError):  # no video: a table of features, say
            continue
    return None
