"""`feie train-mma`: train an MMA extractor from packs of faces by a YAML configuration."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feie.features.mma.config import MmaConfig, read_config
from feie.features.mma.curves import draw_curves
from feie.features.mma.packs import Pack
from feie.features.mma.sampling import Batch, Mixture, load_faces, load_source
from feie.features.mma.scores import score_pack
from feie.features.mma.training import Trainer, config_digest
from feie.features.mma.weights import save_weights
from feie.pipeline.progress import Progress, ProgressCallback, silent


class TrainMmaOptions(BaseModel):
    """Options of `feie train-mma`.

    Attributes
    ----------
    config : Path
        YAML file, see `MmaConfig`.
    data_root : tuple of Path
        Folders below which the packs named in the configuration are looked for, in order.
    out : Path
        Folder of the run: checkpoint, log, curves, weights. A run that was killed goes on from
        its last checkpoint there.
    detector : str, optional
        For packs with ``crops: detected``, e.g. ``scrfd:FILE``.
    threads : int
        Threads of the network; batches are prepared in one more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path
    data_root: tuple[Path, ...] = (Path(),)
    out: Path = Path("mma-run")
    detector: str | None = None
    threads: int = Field(default=2, ge=1)


class TrainMmaResult(BaseModel):
    """What a training run came to.

    Attributes
    ----------
    weights : Path
        The exported extractor.
    steps : int
        Optimiser steps in all.
    images : dict of str to dict
        How the images of each source were aligned, and how many carry which label.
    validation : dict of str to dict
        Last figures on each validation pack, by the averaged weights.
    """

    weights: Path
    steps: int
    images: dict[str, dict[str, int]]
    validation: dict[str, dict[str, float]]


def run(options: TrainMmaOptions, progress: ProgressCallback = silent) -> TrainMmaResult:
    """Train, or go on training, and export the averaged weights.

    Raises
    ------
    UsageError, DataError
        A configuration, pack or checkpoint that cannot be used.
    """
    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    options.out.mkdir(parents=True, exist_ok=True)
    detector = None
    sources, images = {}, {}
    for done, (name, source) in enumerate(config.sources.items()):
        progress(Progress("sources", done, len(config.sources), message=f"reading {source.pack}"))
        sources[name] = load_source(source, options.data_root, detector)
        images[name] = _summary(sources[name].pack) | vars(sources[name].alignment)
    validation = {}
    for name, part in config.validation.items():
        pack, faces, _ = load_faces(part, options.data_root, detector)
        validation[name] = (pack, faces)
    trainer = Trainer(config)
    checkpoint = options.out / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        progress(
            Progress(
                "steps", trainer.step, config.steps, message=f"going on from step {trainer.step}"
            )
        )
    log = _Log(options.out / "log.csv", trainer.step)
    scores: dict[str, dict[str, float]] = {}
    for line in _train(config, trainer, Mixture(config, sources)):
        progress(Progress("steps", trainer.step, config.steps, info=line))
        log.add(trainer.step, line)
        if trainer.step % config.validate_every == 0 or trainer.step == config.steps:
            scores = _validate(trainer, validation)
            for name, figures in scores.items():
                log.add(trainer.step, {f"{name}/{key}": v for key, v in figures.items()})
                text = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                progress(Progress("steps", trainer.step, config.steps, message=f"{name}: {text}"))
            trainer.save(checkpoint)
            _export(options.out, config, trainer)
            draw_curves(log.path, options.out / "curves.png")
    weights = _export(options.out, config, trainer)
    return TrainMmaResult(weights=weights, steps=trainer.step, images=images, validation=scores)


def _train(config: MmaConfig, trainer: Trainer, mixture: Mixture) -> Iterator[dict[str, float]]:
    """Take the remaining steps; give mean losses at each line of the log and each validation."""
    sums: dict[str, float] = {}
    steps = seen = 0
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Batch]] = []
        following = trainer.step
        while trainer.step < config.steps:
            while len(waiting) < 2 and following < config.steps:
                waiting.append(pool.submit(mixture.batch, following))
                following += 1
            batch = waiting.pop(0).result()
            rate = trainer.learning_rate()
            for key, value in trainer.advance(batch).items():
                sums[key] = sums.get(key, 0.0) + value
            steps, seen = steps + 1, seen + len(batch.faces)
            validates = trainer.step % config.validate_every == 0 or trainer.step == config.steps
            if trainer.step % config.log_every == 0 or validates:
                seconds = time.monotonic() - started
                yield {key: value / steps for key, value in sums.items()} | {
                    "lr": rate,
                    "images/s": seen / seconds,
                }
                sums, steps, seen, started = {}, 0, 0, time.monotonic()


def _validate(
    trainer: Trainer, packs: dict[str, tuple[Pack, NDArray[np.uint8]]]
) -> dict[str, dict[str, float]]:
    size = trainer.config.phase_at(trainer.step - 1).size
    figures = {}
    for name, (pack, faces) in packs.items():
        scores = score_pack(pack, trainer.predict(faces, size), repeats=0)
        figures[name] = scores.headline()
    return figures


def _export(out: Path, config: MmaConfig, trainer: Trainer) -> Path:
    path = out / f"{config.name}.safetensors"
    notes = {
        "training": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "training_digest": config_digest(config),
        "steps": str(trainer.step),
    }
    save_weights(path, config.name, trainer.average, notes)
    return path


def _summary(pack: Pack) -> dict[str, int]:
    return {
        "images": len(pack),
        "expression": int((pack.expression >= 0).sum()),
        "outside": sum(pack.outside.values()),
        "valence_arousal": int((~np.isnan(pack.valence_arousal).any(axis=1)).sum()),
        "units": int((~np.isnan(pack.units).all(axis=1)).sum()),
    }


class _Log:
    """Long-form CSV: step, name, value. Lines past the checkpoint are dropped on resuming."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if path.exists() and step:
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["step", "name", "value"], *kept])

    def add(self, step: int, figures: dict[str, float]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [step, name, f"{value:.6g}"] for name, value in figures.items()
            )
