"""A synthetic set of Hume-Reaction's shape, from a seed: ragged arrays, or a store with labels.

Each video has 7 intensities. They show as smooth bumps at random times, mixed into the columns'
logits, over slow noise of its own; tanh, softmax and sigmoid make the 26 columns of the affect
vector. A head can learn them well but not perfectly, and not from the length.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from feie.features.schema import AFFECT
from feie.features.store.records import StoreSettings, VideoRecord
from feie.features.store.writer import StoreWriter
from feie.pipeline.provenance import library_versions

TRAIN, ALL = 15_806, 25_067
TARGETS = (
    "Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise",
)  # fmt: skip
SHORTEST, LONGEST = 60, 480
COLUMNS = 26


@dataclass(frozen=True)
class SyntheticSet:
    """Frames (rows, 26) float32, offsets (videos + 1,), labels (videos, 7) in [0, 1]."""

    values: NDArray[np.float32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.float64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each video."""
        return np.diff(self.offsets)


def make_set(videos: int, seed: int = 0) -> SyntheticSet:
    """Make the set; the first videos are the same whatever their number."""
    mixing = np.random.default_rng([seed, 1]).normal(0, 1, (len(TARGETS), COLUMNS))
    lengths = np.empty(videos, np.int64)
    labels = np.empty((videos, len(TARGETS)))
    parts = []
    for i in range(videos):
        rng = np.random.default_rng([seed, 2, i])
        # Mean 299 frames, as 7.5 million in 25,067 videos.
        lengths[i] = SHORTEST + round((LONGEST - SHORTEST) * rng.beta(1.32, 1.0))
        # Self-reported: many zeros, the rest anywhere.
        labels[i] = np.where(rng.random(len(TARGETS)) < 0.35, 0.0, rng.random(len(TARGETS)))
        parts.append(_logits(labels[i], lengths[i], mixing, rng))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = np.concatenate(parts)
    del parts
    for start in range(0, len(values), 1 << 16):
        _squash(values[start : start + (1 << 16)])
    return SyntheticSet(values, offsets, labels)


def _logits(
    strength: NDArray[np.float64],
    length: int,
    mixing: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    time = np.arange(length, dtype=np.float32)[:, None]
    peak = (rng.random(len(TARGETS)) * length).astype(np.float32)
    width = (8 + 22 * rng.random(len(TARGETS))).astype(np.float32)
    bumps = np.exp(-0.5 * ((time - peak) / width) ** 2) * (2.0 * strength).astype(np.float32)
    noise = lfilter([0.3], [1, -0.9], rng.standard_normal((length, COLUMNS), np.float32), axis=0)
    face = rng.normal(0, 0.5, COLUMNS).astype(np.float32)
    out: NDArray[np.float32] = (bumps @ mixing.astype(np.float32) + noise + face).astype(np.float32)
    return out


def _squash(block: NDArray[np.float32]) -> None:
    block[:, :2] = np.tanh(block[:, :2])
    e = np.exp(block[:, 2:9])
    block[:, 2:9] = e / e.sum(1, keepdims=True)
    block[:, 9:] = 1 / (1 + np.exp(-block[:, 9:]))


def cached_set(folder: Path, videos: int = TRAIN, seed: int = 0) -> SyntheticSet:
    """Give the set of this size, made once and then mapped from files of `folder`."""
    path = folder / f"set-{videos}-{seed}"
    if not (path / "done").exists():
        path.mkdir(parents=True, exist_ok=True)
        made = make_set(videos, seed)
        for name in ("values", "offsets", "labels"):
            np.save(path / f"{name}.npy", getattr(made, name))
        (path / "done").touch()
    arrays = {name: np.load(path / f"{name}.npy") for name in ("values", "offsets", "labels")}
    return SyntheticSet(**arrays)


def cached_store(folder: Path, videos: int = ALL, seed: int = 0) -> tuple[Path, Path]:
    """Give a store of this size and its label file, made once.

    Of ten videos six are in split train, two in val, two in test; every frame shows a face.
    """
    store, labels = folder / f"store-{videos}-{seed}.zarr", folder / f"labels-{videos}-{seed}.csv"
    if labels.exists():
        return store, labels
    made = make_set(videos, seed)
    settings = StoreSettings(
        schema=AFFECT,
        extractor={"name": "synthetic", "sha256": "0" * 64},
        options={"seed": seed},
        session={"versions": library_versions()},
    )
    with StoreWriter(store, settings, commit_videos=2000) as writer:
        for i in range(videos):
            affect = made.values[made.offsets[i] : made.offsets[i + 1]]
            writer.append(_record(f"{i:05d}", affect))
    splits = ("train",) * 6 + ("val",) * 2 + ("test",) * 2
    with labels.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "split", *TARGETS])
        for i, row in enumerate(made.labels):
            table.writerow([f"{i:05d}", splits[i % 10], *(f"{v:.4f}" for v in row)])
    return store, labels


def _record(name: str, affect: NDArray[np.float32]) -> VideoRecord:
    n = len(affect)
    return VideoRecord(
        id=name, source=f"{name}.mp4", size=n, mtime_ns=0, fingerprint=f"sha256:{name}",
        fps=30.0, width=640, height=480, affect=affect, time=np.arange(n) / 30,
        valid=np.ones(n, np.bool_), face_score=np.ones(n, np.float32),
        bbox=np.zeros((n, 4), np.float32), landmarks=np.zeros((n, 5, 2), np.float32),
    )  # fmt: skip
