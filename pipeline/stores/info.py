"""`feie info`: what a store holds and what made it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feie.features.store.layout import OK, SUPERSEDED
from feie.features.store.reader import open_store
from feie.pipeline.extract.reproduce import commands
from feie.pipeline.progress import ProgressCallback, silent


class InfoOptions(BaseModel):
    """Which store to look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = "features.zarr"


class InfoResult(BaseModel):
    """What a store holds.

    Attributes
    ----------
    videos : int
        Videos listed, those that failed included.
    frames : int
        Frames, with or without a face.
    face_share : float
        Share of those frames with a face.
    failed : int
        Videos that failed, without a frame.
    failures : dict of str to str
        Which they are, and why.
    length : dict of str to float
        Frames a video: ``min, median, mean, max``.
    histogram : list of (int, int, int)
        Shortest and longest length (frames, inclusive) of each class, and videos in it; each
        class twice as wide as the one before.
    face_shares : dict of str to int
        Videos by the share of their frames with a face: ``none``, ten classes, ``all``.
    reasons : dict of str to int
        Failures by their reason, most frequent first.
    superseded : int
        Rows that later ones replaced; `feie merge` leaves them out.
    fps : tuple of float, or None
        Least and greatest frames a second; None where no rate is known.
    sizes : list of (int, int, int)
        Width and height in px, and how many videos have them; the ten most frequent. Empty where
        none is known.
    reproduce : list of str
        Commands that make the store again, see `reproduce.commands`.
    """

    store: str
    spec_version: str
    fingerprint: str
    videos: int
    frames: int
    face_share: float
    failed: int
    failures: dict[str, str]
    length: dict[str, float]
    histogram: list[tuple[int, int, int]]
    face_shares: dict[str, int]
    reasons: dict[str, int]
    superseded: int
    fps: tuple[float, float] | None
    sizes: list[tuple[int, int, int]]
    reproduce: list[str]
    hours: float
    columns: list[str]
    groups: dict[str, tuple[int, int]]
    provenance: dict[str, Any]


def run(options: InfoOptions, progress: ProgressCallback = silent) -> InfoResult:
    """Summarise a store from its index; no frame is read."""
    store = open_store(options.store)
    good = store.videos[store.videos["status"] == OK]
    lengths = good["length"].to_numpy(np.int64)
    frames = int(lengths.sum())
    faces = float((good["faces"] * good["length"]).sum())
    rates = good["fps"].to_numpy(np.float64)
    timed = np.isfinite(rates) & (rates > 0)
    sizes = Counter(zip(good["width"].tolist(), good["height"].tolist(), strict=True))
    sizes.pop((0, 0), None)
    reasons = Counter(message.partition(":")[0] for message in store.failures.values())
    return InfoResult(
        store=store.path,
        spec_version=str(store.attributes["spec_version"]),
        fingerprint=store.fingerprint,
        videos=len(store.videos),
        frames=frames,
        face_share=faces / frames if frames else 0.0,
        failed=len(store.failures),
        failures=store.failures,
        length={
            name: float(getattr(np, name)(lengths)) for name in ("min", "median", "mean", "max")
        }
        if len(lengths)
        else {},
        histogram=length_classes(lengths),
        face_shares=face_shares(good["faces"].to_numpy(np.float64)),
        reasons=dict(reasons.most_common()),
        superseded=int((store.rows["status"] == SUPERSEDED).sum()),
        fps=(float(rates[timed].min()), float(rates[timed].max())) if timed.any() else None,
        sizes=[(width, height, count) for (width, height), count in sizes.most_common(10)],
        reproduce=commands(store),
        hours=float((lengths[timed] / rates[timed]).sum() / 3600),
        columns=list(store.schema.columns),
        groups=dict(store.schema.groups),
        provenance=dict(store.provenance),
    )


def length_classes(lengths: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Count lengths in the classes 1, 2 to 3, 4 to 7, …, from the first to the last with any."""
    if not len(lengths):
        return []
    classes = np.floor(np.log2(np.maximum(lengths, 1))).astype(int)
    return [
        (2**k, 2 ** (k + 1) - 1, int((classes == k).sum()))
        for k in range(classes.min(), classes.max() + 1)
    ]


def face_shares(shares: NDArray[np.float64]) -> dict[str, int]:
    """Count videos by the share of their frames that show a face."""
    percent = np.append(0.1 * np.arange(10), 1.0)
    inside = (shares > 0) & (shares < 1)
    counts, _ = np.histogram(shares[inside], percent)
    names = [f"{low} – {low + 10} %" for low in range(0, 100, 10)]
    return {
        "none": int((shares <= 0).sum()),
        **dict(zip(names, counts.tolist(), strict=True)),
        "all": int((shares >= 1).sum()),
    }
