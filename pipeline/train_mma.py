"""`feie train-mma`: train an MMA extractor from packs of faces by a YAML configuration."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feie.features.detect import Detector, load_detector
from feie.features.mma.config import MmaConfig, read_config
from feie.features.mma.crops import CROP_SEARCH
from feie.features.mma.curves import draw_curves
from feie.features.mma.network import MMANetwork
from feie.features.mma.packs import Pack
from feie.features.mma.sampling import Batch, Mixture, Source, load_faces, load_source
from feie.features.mma.scores import score_pack
from feie.features.mma.training import Trainer, config_digest
from feie.features.mma.vocabulary import ASSUMED_CODES
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
        Folder of the run; ``stage-1`` … below it hold checkpoint, log, curves and weights of each
        stage. A run that was killed goes on from its last checkpoint there.
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
        Optimiser steps of the last stage.
    images : dict of str to dict
        How the images of each source were aligned, and how many carry which label.
    validation : dict of str to dict
        Last figures on each validation pack, by the averaged weights. Both are of the last
        stage, and empty where it was complete already.
    """

    weights: Path
    steps: int
    images: dict[str, dict[str, int]] = {}
    validation: dict[str, dict[str, float]] = {}


def run(options: TrainMmaOptions, progress: ProgressCallback = silent) -> TrainMmaResult:
    """Train, or go on training, and export the averaged weights.

    Raises
    ------
    UsageError, DataError
        A configuration, pack or checkpoint that cannot be used.
    """
    torch.set_num_threads(options.threads)
    stages = read_config(options.config)
    detector = load_detector(options.detector, CROP_SEARCH) if options.detector else None
    network: MMANetwork | None = None
    for number, config in enumerate(stages, start=1):
        folder = options.out / f"stage-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, network)
        checkpoint = folder / "checkpoint.safetensors"
        if checkpoint.exists():
            trainer.restore(checkpoint)
        network = trainer.average
        result = TrainMmaResult(weights=_export(folder, trainer), steps=trainer.step)
        if trainer.step < config.steps:
            progress(_steps(trainer, message=f"stage {number} of {len(stages)}"))
            result = _stage(options, trainer, folder, detector, progress)
    weights = options.out / result.weights.name
    shutil.copyfile(result.weights, weights)
    return result.model_copy(update={"weights": weights})


def _stage(
    options: TrainMmaOptions,
    trainer: Trainer,
    folder: Path,
    detector: Detector | None,
    progress: ProgressCallback,
) -> TrainMmaResult:
    config, roots = trainer.config, options.data_root
    sources, images = {}, {}
    for done, (name, source) in enumerate(config.sources.items()):
        progress(Progress("sources", done, len(config.sources), message=f"reading {source.pack}"))
        sources[name] = load_source(source, roots, detector, options.out)
        images[name] = _summary(sources[name])
        if sources[name].pack.codes == "aff-wild2":
            said = f"{source.pack}: {ASSUMED_CODES}"
            progress(Progress("sources", done, len(config.sources), message=said))
    validation = {}
    for name, part in config.validation.items():
        pack, faces, _ = load_faces(part, roots, detector, options.out)
        validation[name] = (pack, faces)
    log = _Log(folder / "log.csv", trainer.step)
    scores: dict[str, dict[str, float]] = {}
    for line in _train(config, trainer, Mixture(config, sources)):
        progress(_steps(trainer, line))
        log.add(trainer.step, line)
        if _validates(trainer):
            scores = _validate(trainer, validation)
            for name, figures in scores.items():
                log.add(trainer.step, {f"{name}/{key}": v for key, v in figures.items()})
                text = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                progress(_steps(trainer, message=f"{name}: {text}"))
            trainer.save(folder / "checkpoint.safetensors")
            _export(folder, trainer)
            draw_curves(log.path, folder / "curves.png")
    return TrainMmaResult(
        weights=_export(folder, trainer), steps=trainer.step, images=images, validation=scores
    )


def _steps(trainer: Trainer, info: dict[str, float] | None = None, message: str = "") -> Progress:
    return Progress("steps", trainer.step, trainer.config.steps, info or {}, message)


def _validates(trainer: Trainer) -> bool:
    return trainer.step % trainer.config.validate_every == 0 or (
        trainer.step == trainer.config.steps
    )


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
            if trainer.step % config.log_every == 0 or _validates(trainer):
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


def _export(folder: Path, trainer: Trainer) -> Path:
    config = trainer.config
    path = folder / f"{config.name}.safetensors"
    notes = {
        "training": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "training_digest": config_digest(config),
        "steps": str(trainer.step),
    }
    save_weights(path, config.name, trainer.average, config.phase_at(trainer.step - 1).size, notes)
    return path


def _summary(source: Source) -> dict[str, int]:
    pack = source.pack
    return vars(source.alignment) | {
        "images": len(pack),
        "expression": int((pack.expression >= 0).sum()),
        "outside": sum(pack.outside.values()),
        "valence_arousal": int((~np.isnan(source.valence_arousal).any(axis=1)).sum()),
        "units": int((~np.isnan(source.units).all(axis=1)).sum()),
    }


class _Log:
    """Long-form CSV: step, name, value. Lines past the checkpoint are dropped on resuming."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if path.exists() and step:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            # A kill may have cut the last line.
            whole = [row for row in rows if len(row) == 3 and row[0].isdecimal()]
            kept = [row for row in whole if int(row[0]) <= step]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["step", "name", "value"], *kept])

    def add(self, step: int, figures: dict[str, float]) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [step, name, f"{value:.6g}"] for name, value in figures.items()
            )
