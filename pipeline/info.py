"""`feie info`: what a store holds and what made it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feie.features.store.layout import OK
from feie.features.store.reader import open_store
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.reproduce import commands


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
    timed = rates > 0
    return InfoResult(
        store=store.path,
        spec_version=str(store.attributes["spec_version"]),
        fingerprint=store.fingerprint,
        videos=len(store.videos),
        frames=frames,
        face_share=faces / frames if frames else 0.0,
        failed=len(store.failed),
        failures=store.failed,
        length={
            name: float(getattr(np, name)(lengths)) for name in ("min", "median", "mean", "max")
        }
        if len(lengths)
        else {},
        histogram=_histogram(lengths),
        reproduce=commands(store),
        hours=float((lengths[timed] / rates[timed]).sum() / 3600),
        columns=list(store.schema.columns),
        groups=dict(store.schema.groups),
        provenance=dict(store.provenance),
    )


def _histogram(lengths: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Count lengths in the classes 1, 2 to 3, 4 to 7, …, from the first to the last with any."""
    if not len(lengths):
        return []
    classes = np.floor(np.log2(np.maximum(lengths, 1))).astype(int)
    return [
        (2**k, 2 ** (k + 1) - 1, int((classes == k).sum()))
        for k in range(classes.min(), classes.max() + 1)
    ]
