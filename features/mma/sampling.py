"""Batches of mixed sources, each a pure function of the configuration and the step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feie.features.errors import DataError
from feie.features.faces import Detector
from feie.features.mma.augment import augment
from feie.features.mma.config import MmaConfig, PackConfig, PartConfig, SourceConfig, find_pack
from feie.features.mma.crops import Alignment, cached_pack_faces, pack_faces
from feie.features.mma.packs import Pack, read_pack, read_units
from feie.features.schema import EXPRESSIONS

WEAK_VALENCE_AROUSAL: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "anger": (-0.55, 0.6),
    "disgust": (-0.65, 0.35),
    "fear": (-0.55, 0.75),
    "happiness": (0.8, 0.35),
    "sadness": (-0.7, -0.35),
    "surprise": (0.2, 0.75),
}
"""Weak labels (ours): where the circumplex of affect puts a full expression. A network that is
unsure between expressions learns the mean of their places, weighted by their probabilities."""


class Batch(NamedTuple):
    """Augmented faces (b, 3, s, s) in [-1, 1] and their labels, see `Pack` for shapes."""

    faces: Tensor
    expression: Tensor
    valence_arousal: Tensor
    units: Tensor


@dataclass(frozen=True)
class Source:
    """A pack with decoded faces, the probability of drawing each, and the labels to learn."""

    pack: Pack
    faces: NDArray[np.uint8]
    alignment: Alignment
    cumulative: NDArray[np.float64]
    valence_arousal: NDArray[np.float32]
    units: NDArray[np.float32]


def held_out(names: list[str], share: float) -> NDArray[np.bool_]:
    """Tell which images are held out: a fixed share, by a hash of the name alone.

    Parameters
    ----------
    names : list of str
        Names of images.
    share : float
        Expected share in (0, 1).

    Returns
    -------
    ndarray (n,) bool
    """
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(d, "big") < share * 2**64 for d in digests], dtype=np.bool_)


def take_part(pack: Pack, part: PartConfig | None) -> Pack:
    """Give the part of a pack that is asked for."""
    if part is None:
        return pack
    out = held_out(pack.names, part.held_out)
    rows = np.flatnonzero(out if part.keep == "held-out" else ~out)
    if not len(rows):
        raise DataError(f"{pack.path}: the part {part.keep!r} of {part.held_out} has no images")
    return pack.select(rows.astype(np.int64))


def load_faces(
    config: PackConfig, roots: tuple[Path, ...], detector: Detector | None, cache: Path
) -> tuple[Pack, NDArray[np.uint8], Alignment]:
    """Read a pack, keep the part asked for, and decode its faces.

    Parameters
    ----------
    config : PackConfig
        Which pack, which part of it, aligned how.
    roots : tuple of Path
        Where packs are looked for.
    detector : Detector or None
        For crops that are to be aligned by it.
    cache : Path
        A folder where faces that a detector aligned are kept.

    Raises
    ------
    DataError
        The pack is missing or unreadable, or cannot be aligned as asked.
    """
    pack = take_part(read_pack(find_pack(config.pack, roots)), config.part)
    if config.crops == "fixed":
        return pack, *pack_faces(pack)
    if detector is None:
        raise DataError(f"{config.pack} has crops: detected, which needs --detector")
    return pack, *cached_pack_faces(pack, detector, cache)


def weak_valence_arousal(expression: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give weak valence and arousal (n, 2) from expressions; NaN where these are unknown."""
    table = np.array([WEAK_VALENCE_AROUSAL[name] for name in EXPRESSIONS], dtype=np.float32)
    values = np.full((len(expression), 2), np.nan, dtype=np.float32)
    known = expression >= 0
    values[known] = table[expression[known]]
    return values


def load_source(
    config: SourceConfig, roots: tuple[Path, ...], detector: Detector | None, cache: Path
) -> Source:
    """Load a pack to learn from, see `load_faces`.

    Raises
    ------
    DataError
        As there, or pseudo-labels that cannot be read or are of other images.
    """
    pack, faces, alignment = load_faces(config, roots, detector, cache)
    counts = np.bincount(pack.expression + 1, minlength=len(EXPRESSIONS) + 1).astype(np.float64)
    weight = counts[pack.expression + 1] ** -config.balance
    cumulative = np.cumsum(weight)
    if config.valence_arousal == "pack":
        valence_arousal = pack.valence_arousal
    elif config.valence_arousal == "expression":
        valence_arousal = weak_valence_arousal(pack.expression)
    else:
        valence_arousal = np.full((len(pack), 2), np.nan, dtype=np.float32)
    units = pack.units
    if config.pseudo_units is not None:
        guesses = read_units(find_pack(config.pseudo_units, roots))
        if guesses.keys().isdisjoint(pack.names):
            raise DataError(
                f"{config.pseudo_units} names no image of {config.pack}: make it from that pack"
            )
        nothing = np.full(units.shape[1], np.nan, dtype=np.float32)
        guessed = np.stack([guesses.get(name, nothing) for name in pack.names])
        units = np.where(np.isnan(units), guessed, units)
    return Source(pack, faces, alignment, cumulative / cumulative[-1], valence_arousal, units)


class Mixture:
    """Batches that mix sources by stated proportions.

    Parameters
    ----------
    config : MmaConfig
        Sources' proportions, phases, augmentation, seed.
    sources : dict of str to Source
        The loaded sources.
    """

    def __init__(self, config: MmaConfig, sources: Mapping[str, Source]) -> None:
        self._config = config
        self._sources = [sources[name] for name in config.sources]

    def batch(self, step: int) -> Batch:
        """Draw and augment the batch of a step: the same whenever and wherever it is asked for."""
        config = self._config
        phase = config.phase_at(step)
        rng = np.random.default_rng([config.seed, step])
        faces = np.empty((phase.batch, 112, 112, 3), dtype=np.uint8)
        expression, valence_arousal, units = [], [], []
        start = 0
        for source, count in zip(self._sources, config.counts(phase.batch), strict=True):
            draws = (np.arange(count) + rng.random(count)) / count
            rows = np.searchsorted(source.cumulative, draws).clip(max=len(source.pack) - 1)
            faces[start : start + count] = source.faces[rows]
            expression.append(source.pack.expression[rows])
            valence_arousal.append(source.valence_arousal[rows])
            units.append(source.units[rows])
            start += count
        return Batch(
            augment(faces, phase.size, config.augment, rng),
            torch.from_numpy(np.concatenate(expression)),
            torch.from_numpy(np.concatenate(valence_arousal)),
            torch.from_numpy(np.concatenate(units)),
        )
