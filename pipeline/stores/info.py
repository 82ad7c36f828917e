"""`feie info`: what a store holds and what made it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from feie.features.errors import StoreError
from feie.features.store.layout import OK, SUPERSEDED
from feie.features.store.reader import open_store
from feie.pipeline.extract.reproduce import commands
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.result import Result, Table, failures
from feie.pipeline.stores.options import InfoOptions

__all__ = ["InfoOptions", "InfoResult", "run"]


class InfoResult(Result):
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
    only_reproduce: bool = Field(default=False, exclude=True)

    def tables(self) -> Sequence[Table]:
        """Give everything but the failures, a property a row."""
        if self.only_reproduce:
            return ()
        made, sessions = self.provenance, self.provenance["sessions"]
        rates = dict.fromkeys(f"{rate:.4g}" for rate in self.fps or ())
        replaced = f", {self.superseded} rows replaced" if self.superseded else ""
        rows = {
            "videos": f"{self.videos} ({self.failed} failed){replaced}",
            "frames": f"{self.frames}, {self.face_share:.1%} with a face, {self.hours:.2f} h",
            "frames per second": " to ".join(rates) or "unknown",
            "sizes": ", ".join(f"{w}x{h} ({n})" for w, h, n in self.sizes) or "unknown",
            "frames per video": ", ".join(f"{k} {v:g}" for k, v in self.length.items()),
            "lengths": _bars({f"{a:>7}-{b:<7}": n for a, b, n in self.histogram}),
            "share with a face": _bars({f"{k:>15}": n for k, n in self.face_shares.items() if n}),
            "groups": ", ".join(f"{k} {a}:{b}" for k, (a, b) in self.groups.items()),
            "extractor": _weights(made["extractor"]),
            "detector": _weights(made["detector"]) if made["detector"] else "none was needed",
            "options": json.dumps(made["options"]),
            "sessions": f"{len(sessions)}, {sessions[0]['started']} to {sessions[-1]['ended']}"
            if sessions
            else "0",
            "specification": self.spec_version,
            "fingerprint": self.fingerprint,
        }
        return (Table(self.store, ("property", "value"), [*rows.items()]),)

    def lines(self) -> list[str]:
        """Name the failures; where only that was asked for, give the commands instead."""
        if self.only_reproduce:
            return self.reproduce
        said = []
        if self.failed > len(self.reasons):
            said.append("failures: " + ", ".join(f"{n} {name}" for name, n in self.reasons.items()))
        return [*said, *failures(self.failures)]


def _weights(made: Mapping[str, Any]) -> str:
    if made["sha256"] is None:
        return f"imported: files of format {made['name']}, which name no weights"
    return f"{made['name']}  sha256 {made['sha256'][:16]}…"


def _bars(counts: Mapping[str, int]) -> str:
    most = max(counts.values(), default=1)
    return "\n".join(f"{name} {'█' * -(-24 * n // most)} {n}" for name, n in counts.items())


def run(options: InfoOptions, progress: ProgressCallback = silent) -> InfoResult:
    """Summarise a store from its index; no frame is read.

    Raises
    ------
    StoreError
        The store cannot be read, or does not say how to make it again where that was asked for.
    """
    store = open_store(options.store)
    again = commands(store)
    if options.reproduce and not again:
        raise StoreError(f"{store.path} was made by a feie that did not keep its command")
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
        reproduce=again,
        only_reproduce=options.reproduce,
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
