"""`feie train-mma`: train an MMA extractor on labelled faces by a YAML configuration."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from feie.features.devices import check_precision, pick_device
from feie.features.errors import DataError, UsageError
from feie.features.faces.detectors import Detector, load_detector
from feie.features.mma.config import MmaConfig, find_config, read_config
from feie.features.mma.data.config import find_data
from feie.features.mma.data.crops import CROP_SEARCH
from feie.features.mma.data.face_rows import FaceRows, in_order, worker_count
from feie.features.mma.data.labelled import Labelled
from feie.features.mma.network import MMANetwork
from feie.features.mma.scoring.scores import score_pack
from feie.features.mma.training.curves import draw_curves
from feie.features.mma.training.sampling import Batch, Mixture, Source, load_faces, load_source
from feie.features.mma.training.soft_targets import blended
from feie.features.mma.training.trainer import Trainer, config_digest, opinion
from feie.features.mma.weights import load_weights, save_weights
from feie.pipeline.extractor.accounts import newly_unreadable, remarks, summary, unreadable
from feie.pipeline.extractor.options import TrainMmaOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["TrainMmaOptions", "TrainMmaResult", "run"]

_CHECKPOINT = "checkpoint.safetensors"
_CHUNK = 512


class TrainMmaResult(Result):
    """What a training run came to.

    Attributes
    ----------
    weights : Path
        The exported extractor.
    steps : int
        Optimiser steps of the last stage.
    images : dict of str to dict
        How the images of each source were aligned (of image files: those that were drawn), how
        many carry which label, and how many were left out, by reason.
    unreadable : dict of str to list of str
        Images of each source that could not be read and were replaced by other draws.
    validation : dict of str to dict
        Last figures on each validation set, by the averaged weights. Both are of the last
        stage, and empty where it was complete already.
    """

    weights: Path
    steps: int
    images: dict[str, dict[str, int]] = {}
    unreadable: dict[str, list[str]] = {}
    validation: dict[str, dict[str, float]] = {}

    def lines(self) -> list[str]:
        """Say what could not be read, what validation came to, and where the weights are."""
        said = [
            f"{source}: {len(names)} unreadable: {', '.join(names[:10])}"
            for source, names in self.unreadable.items()
            if names
        ]
        for pack, scores in self.validation.items():
            figures = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            said.append(f"{pack}: {figures}")
        return [*said, f"{self.steps} steps → {self.weights}"]


def run(options: TrainMmaOptions, progress: ProgressCallback = silent) -> TrainMmaResult:
    """Train, or go on training, and export the averaged weights.

    Raises
    ------
    UsageError, DataError
        A configuration, data, a checkpoint or a device that cannot be used.
    """
    stages = read_config(find_config(options.config))
    device = pick_device(options.device)
    for config in stages:
        check_precision(config.precision, device)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # shapes are few and fixed
    detector = load_detector(options.detector, CROP_SEARCH) if options.detector else None
    try:
        return _stages(options, stages, device, detector, progress)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{device} ran out of memory: lower the batch of the phases in {options.config}"
        ) from error


def _stages(
    options: TrainMmaOptions,
    stages: Sequence[MmaConfig],
    device: torch.device,
    detector: Detector | None,
    progress: ProgressCallback,
) -> TrainMmaResult:
    folders = [options.out / f"stage-{number}" for number in range(1, len(stages) + 1)]
    network: MMANetwork | None = None
    size = 0
    if stages[0].init is not None:
        loaded = load_weights(find_data(stages[0].init, options.data_root, "weights"))
        network, size = loaded.network, loaded.size
    for number, (config, folder) in enumerate(zip(stages, folders, strict=True), start=1):
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, network, device)
        initial = None if network is None else _Initial(network, size)
        checkpoint = folder / _CHECKPOINT
        if checkpoint.exists():
            trainer.restore(checkpoint)
        network, size = trainer.average, config.phase_at(config.steps - 1).size
        result = TrainMmaResult(weights=_export(folder, trainer), steps=trainer.step)
        if trainer.step < config.steps:
            _refuse_stale(folder, folders[number:])
            progress(_steps(trainer, message=f"stage {number} of {len(stages)}, on {device}"))
            result = _stage(options, trainer, initial, folder, detector, progress)
    weights = options.out / result.weights.name
    shutil.copyfile(result.weights, weights)
    return result.model_copy(update={"weights": weights})


def _refuse_stale(folder: Path, later: Sequence[Path]) -> None:
    """Say before hours of training, not after, that the stages behind it do not follow from it."""
    stale = [str(path) for path in later if (path / _CHECKPOINT).exists()]
    if stale:
        raise DataError(
            f"{folder.name} of {folder.parent} is to be trained, but {', '.join(stale)} followed "
            "from an earlier one: remove what follows to train it again, or choose another "
            "output folder"
        )


def _stage(
    options: TrainMmaOptions,
    trainer: Trainer,
    initial: _Initial | None,
    folder: Path,
    detector: Detector | None,
    progress: ProgressCallback,
) -> TrainMmaResult:
    config, roots = trainer.config, options.data_root
    sources = {}
    for done, (name, source) in enumerate(config.sources.items()):
        progress(Progress("sources", done, len(config.sources), message=f"reading {source.title}"))
        sources[name] = load_source(source, roots, detector, options.out, config.network.outputs)
        for said in remarks(sources[name].data):
            message = f"{source.title}: {said}"
            progress(Progress("sources", done, len(config.sources), message=message))
        if config.losses.distil and initial is not None:
            message = f"{source.title}: asking the weights that the stage starts from"
            progress(Progress("sources", done, len(config.sources), message=message))
            sources[name] = _distilled(sources[name], initial, config)
    validation = {
        name: load_faces(part, roots, detector, options.out)
        for name, part in config.validation.items()
    }
    trainer.objective.weigh(sources, config)
    log = _Log(folder / "log.csv", trainer.step)
    scores: dict[str, dict[str, float]] = {}
    named: dict[str, int] = {}
    workers = worker_count(options.workers, options.threads if trainer.device.type == "cpu" else 1)
    for line in _train(config, trainer, Mixture(config, sources), workers):
        progress(_steps(trainer, line))
        for message in newly_unreadable(sources, named):
            progress(_steps(trainer, message=message))
        log.add(trainer.step, line)
        if _validates(trainer):
            scores = _validate(trainer, validation, workers)
            for name, figures in scores.items():
                log.add(trainer.step, {f"{name}/{key}": v for key, v in figures.items()})
                text = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
                progress(_steps(trainer, message=f"{name}: {text}"))
            trainer.save(folder / _CHECKPOINT)
            _export(folder, trainer)
            draw_curves(log.path, folder / "curves.png")
    return TrainMmaResult(
        weights=_export(folder, trainer),
        steps=trainer.step,
        images={name: summary(source) for name, source in sources.items()},
        unreadable={name: unreadable(source) for name, source in sources.items()},
        validation=scores,
    )


class _Initial(NamedTuple):
    """What a stage starts from: averaged weights, and the image size they ended at."""

    network: MMANetwork
    size: int


def _distilled(source: Source, initial: _Initial, config: MmaConfig) -> Source:
    """Blend the targets of a source with the opinion of the weights that the stage starts from.

    Only labelled images have targets. An image that cannot be read keeps its label: it will be
    replaced when it is drawn.
    """
    targets = source.targets.copy()
    labelled = np.flatnonzero(source.data.expression >= 0)
    for rows in np.array_split(labelled, range(_CHUNK, len(labelled), _CHUNK)):
        faces, readable = source.faces.read(rows)
        if readable.any():
            seen = opinion(initial.network, faces[readable], initial.size, config.precision)
            rows = rows[readable]
            targets[rows] = blended(targets[rows], seen, config.losses.distil)
    return source.aiming(targets)


def _steps(trainer: Trainer, info: dict[str, float] | None = None, message: str = "") -> Progress:
    return Progress("steps", trainer.step, trainer.config.steps, info or {}, message)


def _validates(trainer: Trainer) -> bool:
    return trainer.step % trainer.config.validate_every == 0 or (
        trainer.step == trainer.config.steps
    )


def _train(
    config: MmaConfig, trainer: Trainer, mixture: Mixture, workers: int
) -> Iterator[dict[str, float]]:
    """Take the remaining steps; give mean losses at each line of the log and each validation."""
    sums: dict[str, float] = {}
    steps = seen = 0
    started = time.monotonic()
    on_gpu = trainer.device.type != "cpu"

    def prepare(step: int) -> Batch:
        batch = mixture.batch(step)
        # Only pinned memory is copied to a GPU while that computes.
        return Batch(*(part.pin_memory() for part in batch)) if on_gpu else batch

    for batch in in_order(prepare, range(trainer.step, config.steps), workers):
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
    trainer: Trainer, sets: dict[str, tuple[Labelled, FaceRows]], workers: int
) -> dict[str, dict[str, float]]:
    size = trainer.config.phase_at(trainer.step - 1).size
    figures = {}
    for name, (data, faces) in sets.items():
        chunks = np.array_split(np.arange(len(data)), range(_CHUNK, len(data), _CHUNK))
        predicted, scored = [], []
        for rows, (read, readable) in zip(
            chunks, in_order(faces.read, chunks, workers), strict=True
        ):
            predicted.append(trainer.predict(read, size)[readable])
            scored.append(rows[readable])
        affect = np.concatenate(predicted)
        data = data if len(affect) == len(data) else data.select(np.concatenate(scored))
        schema = trainer.config.network.outputs
        figures[name] = score_pack(data, affect, repeats=0, schema=schema).headline()
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
