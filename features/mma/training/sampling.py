"""Batches of mixed sources, each a pure function of the configuration and the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feie.features.errors import DataError
from feie.features.faces.detection import Detector
from feie.features.mma.augment import augment
from feie.features.mma.config import MmaConfig
from feie.features.mma.data.config import (
    DataConfig,
    PackConfig,
    PartConfig,
    SourceConfig,
    find_pack,
)
from feie.features.mma.data.crops import Change, cached_pack_faces, left_out, pack_faces
from feie.features.mma.data.face_rows import FaceRows, FileFaces, MemoryFaces, PackFaces
from feie.features.mma.data.labelled import Labelled, held_out, persons
from feie.features.mma.data.packs import read_pack, read_units
from feie.features.mma.data.readers import read_listing
from feie.features.mma.data.readers.listing import unknown
from feie.features.mma.data.targets import relabel
from feie.features.mma.data.votes import vote_targets
from feie.features.mma.training.soft_targets import (
    drawn_labels,
    graded,
    one_hot,
    weak_valence_arousal,
    with_intensity,
)
from feie.features.schema import AFFECT, Schema

_REDRAWS = 50


class Batch(NamedTuple):
    """Augmented faces (b, 3, s, s) in [-1, 1] and what they are to be called.

    Expressions are distributions (b, k) with rows of NaN where unknown; for the others see
    `Labelled`.
    """

    faces: Tensor
    expression: Tensor
    valence_arousal: Tensor
    units: Tensor


@dataclass(frozen=True)
class Source:
    """Data to learn from: labels, faces by row, and the probability of drawing each.

    Attributes
    ----------
    data : Labelled
        Labels to learn: the expressions are those of the network, see `relabel`.
    faces : FaceRows
        Where the faces come from.
    cumulative : ndarray (n,)
        Sums of the probabilities of being drawn.
    targets : ndarray (n, k) float32
        Distributions over the network's expressions that L_CCE aims at; NaN where unknown.
    weak : Schema or None
        With the network's expressions, valence and arousal follow from the targets.
    units_share : float
        See `with_intensity`.
    drawn : bool
        Each time an image is drawn, one label is drawn from its target.
    """

    data: Labelled
    faces: FaceRows
    cumulative: NDArray[np.float64]
    targets: NDArray[np.float32]
    weak: Schema | None = None
    units_share: float = 0.0
    drawn: bool = False

    def aiming(self, targets: NDArray[np.float32]) -> Source:
        """Give this source with other targets, and what follows from them."""
        data = self.data
        if self.weak is not None:
            weak = weak_valence_arousal(targets, self.weak)
            weak = with_intensity(weak, data.units, self.units_share)
            data = replace(data, valence_arousal=weak)
        return replace(self, data=data, targets=targets)

    def at(self, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Give the rows that numbers in [0, 1) draw."""
        return np.searchsorted(self.cumulative, draws).clip(max=len(self.data) - 1)


_D = TypeVar("_D", bound=Labelled)


def take_part(data: _D, part: PartConfig | None) -> _D:
    """Give the part of some data that is asked for."""
    if part is None:
        return data
    out = held_out(persons(data) if part.by == "person" else data.names, part.held_out)
    rows = np.flatnonzero(out if part.keep == "held-out" else ~out)
    if not len(rows):
        raise DataError(f"{data.title}: the part {part.keep!r} of {part.held_out} has no images")
    return data.select(rows)


def load_faces(
    config: DataConfig | SourceConfig,
    roots: tuple[Path, ...],
    detector: Detector | None,
    cache: Path | None = None,
    change: Change | None = None,
) -> tuple[Labelled, FaceRows]:
    """Read labels, keep the part asked for, and say where the faces come from.

    Parameters
    ----------
    config : DataConfig or SourceConfig
        Which data, which part of it, aligned how.
    roots : tuple of Path
        Where data are looked for.
    detector : Detector or None
        For crops that are to be aligned by it.
    cache : Path, optional
        Decode a pack whole, into memory; the faces that a detector aligned are kept in this
        folder. Without it a pack's faces are decoded when they are asked for, as those of image
        files always are.
    change : callable, optional
        Without a cache: done to each image before it is aligned, e.g. `equalised`.

    Raises
    ------
    DataError
        The data are missing or unreadable, or cannot be aligned as asked.
    """
    if config.crops == "detected" and detector is None:
        raise DataError(f"{config.title} has crops: detected, which needs --detector")
    detector = detector if config.crops == "detected" else None
    if not isinstance(config, PackConfig):
        listing = take_part(read_listing(config, roots), config.part)
        return listing, FileFaces(listing, detector, config.tolerance, change)
    pack = take_part(read_pack(find_pack(config.pack, roots)), config.part)
    if config.without is not None:
        pack = left_out(pack, read_pack(find_pack(config.without, roots)))
    if cache is None:
        return pack, PackFaces(pack, detector, change)
    if detector is None:
        return pack, MemoryFaces(*pack_faces(pack))
    return pack, MemoryFaces(*cached_pack_faces(pack, detector, cache))


def load_source(
    config: SourceConfig,
    roots: tuple[Path, ...],
    detector: Detector | None,
    cache: Path,
    schema: Schema = AFFECT,
) -> Source:
    """Load data to learn from, see `load_faces`; ``schema`` has the outputs of the network.

    Raises
    ------
    DataError
        As there, or pseudo-labels that cannot be read or are of other images.
    """
    data, faces = load_faces(config, roots, detector, cache)
    if config.valence_arousal == "none":
        data = replace(data, valence_arousal=unknown(len(data), 2))
    data = relabel(data, schema)
    counts = np.bincount(data.expression + 1).astype(np.float64)
    weight = counts[data.expression + 1] ** -config.balance
    cumulative = np.cumsum(weight)
    if config.pseudo_units is not None:
        guesses = read_units(find_pack(config.pseudo_units, roots))
        if guesses.keys().isdisjoint(map(str, data.names)):
            raise DataError(
                f"{config.pseudo_units} names no image of {config.title}: make it from that data"
            )
        nothing = np.full(data.units.shape[1], np.nan, dtype=np.float32)
        guessed = np.stack([guesses.get(name, nothing) for name in map(str, data.names)])
        data = replace(data, units=np.where(np.isnan(data.units), guessed, data.units))
    classes = len(schema.group("expr")) if "expr" in schema.groups else 0
    weak = schema if config.valence_arousal == "expression" else None
    targets = one_hot(data.expression, classes)
    if classes and data.votes is not None and config.votes != "none":
        names = schema.group("expr")
        targets = vote_targets(data.votes, data.vote_classes, names, config.votes == "majority")
    source = Source(
        data, faces, cumulative / cumulative[-1], targets, weak, config.units_share,
        drawn=config.votes == "probability" and data.votes is not None,
    )  # fmt: skip
    return source.aiming(graded(targets, data.units, config.graded, schema))


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
        """Draw and augment the batch of a step: the same whenever and wherever it is asked for.

        Raises
        ------
        DataError
            More images than tolerated cannot be read.
        """
        config = self._config
        phase = config.phase_at(step)
        rng = np.random.default_rng([config.seed, step])
        faces = np.empty((phase.batch, 112, 112, 3), dtype=np.uint8)
        expression, valence_arousal, units = [], [], []
        start = 0
        counts = config.counts(phase.batch)
        for number, (source, count) in enumerate(zip(self._sources, counts, strict=True), start=1):
            draws = (np.arange(count) + rng.random(count)) / count
            rows, read = _readable(source, source.at(draws), (config.seed, step, number))
            faces[start : start + count] = read
            targets = source.targets[rows]
            expression.append(drawn_labels(targets, rng.random(count)) if source.drawn else targets)
            valence_arousal.append(source.data.valence_arousal[rows].astype(np.float32))
            units.append(source.data.units[rows].astype(np.float32))
            start += count
        return Batch(
            augment(faces, phase.size, config.augment, rng),
            torch.from_numpy(np.concatenate(expression)),
            torch.from_numpy(np.concatenate(valence_arousal)),
            torch.from_numpy(np.concatenate(units)),
        )


def _readable(
    source: Source, rows: NDArray[np.int64], key: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read the faces of some rows; draw others for those that cannot be read.

    The others come from a generator of their own, so that one broken file changes nothing else
    in the batch.
    """
    faces, readable = source.faces.read(rows)
    for attempt in range(1, _REDRAWS):
        broken = np.flatnonzero(~readable)
        if not len(broken):
            return rows, faces
        # Not zero: trailing zeros would not change the seed.
        rng = np.random.default_rng([*key, attempt])
        rows[broken] = source.at(rng.random(len(broken)))
        faces[broken], readable[broken] = source.faces.read(rows[broken])
    raise DataError(f"{source.data.title}: hardly any of its images can be read")
