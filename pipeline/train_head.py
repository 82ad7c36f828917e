"""`feie train-head`: a masked recurrent head from a store and a label file, in minutes."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feie.features.errors import HeadError, UsageError
from feie.heads.baselines import LengthBaseline
from feie.heads.checkpoint import HEAD_JSON, STATE, find_again, new_run, place, save_head
from feie.heads.files import (
    disk_errors,
    load_tensors,
    read_json,
    save_tensors,
    write_atomically,
    write_json,
)
from feie.heads.head import Calibration, Head
from feie.heads.inputs import SD_FLOOR, Space, Standardiser
from feie.heads.losses import LossName
from feie.heads.metrics import known, mean_defined, pearson
from feie.heads.mrnn import MRNN, MRNNConfig
from feie.heads.ragged import LongPolicy, MissingPolicy
from feie.heads.recurrence import backend
from feie.heads.stat import Stat, StatConfig
from feie.heads.threads import one_thread
from feie.heads.training import (
    PRESETS,
    Epoch,
    Examples,
    Model,
    PresetName,
    Schedule,
    Trainer,
    TrainingConfig,
    predict,
)
from feie.pipeline.head_data import HeadData, describe, read_head_data
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.provenance import library_versions

HeadName = Literal["mrnn", "stat-linear", "stat-mlp"]
_STAT_HIDDEN = 128
OPTIONS, LOG, VIDEOS = "options.json", "training.csv", "videos.csv"


class TrainHeadOptions(BaseModel):
    """What `feie train-head` is asked to do; see ``feie train-head --help`` for each.

    ``lr``, ``batch``, ``epochs`` and ``patience`` come from the preset unless given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str = "features.zarr"
    labels: Path = Path("labels.csv")
    subset: tuple[str, ...] = Field(default=("va", "expr", "au"), min_length=1)
    targets: tuple[str, ...] = ()
    runs: Path = Path("runs")
    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    seed: int = Field(default=0, ge=0)
    preset: PresetName = "default"
    head: HeadName = "mrnn"
    loss: LossName = "pearson"
    weights: tuple[float, ...] = ()
    l2: float = Field(default=1 / 512, ge=0)
    schedule: Schedule = "constant"
    lr: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    clip: float | None = Field(default=None, gt=0)
    cell: Literal["gru", "lstm"] = "gru"
    layers: int = Field(default=1, ge=1, le=2)
    width: int = Field(default=128, ge=1, le=4096)
    dense: int = Field(default=32, ge=1, le=4096)
    mask: bool = True
    routing: bool = True
    t: int = Field(default=480, ge=1, le=100_000)
    frame_stride: int = Field(default=1, ge=1, le=10_000)
    missing: MissingPolicy = "drop"
    long: LongPolicy = "uniform"
    space: Space = "prob"
    unmatched: float = Field(default=0.05, ge=0, le=1)
    checkpoint_seconds: float = Field(default=20.0, ge=0)
    device: str = "cpu"
    tensorboard: bool = False
    resume: Path | None = None

    def training(self) -> TrainingConfig:
        """Give the preset, with what was asked for in its place."""
        names = ("lr", "batch", "epochs", "patience")
        chosen = {k: v for k in names if (v := getattr(self, k)) is not None}
        others = ("loss", "weights", "schedule", "clip", "seed", "routing")
        rest = {name: getattr(self, name) for name in others}
        return TrainingConfig.model_validate({**PRESETS[self.preset], **chosen, **rest})


class TrainHeadResult(BaseModel):
    """What `feie train-head` did.

    Attributes
    ----------
    run : str
        Folder of the head.
    n_train, n_val : int
        Videos.
    epochs, best_epoch : int
        Trained; the one whose weights were kept.
    mean_pearson : float or None
        Over the targets, on the validation split, of the kept weights.
    pearson : dict of str to (float or None)
        None where a constant column leaves it undefined.
    seconds : float
    notes : list of str
        What a user should know.
    """

    run: str
    subset: list[str]
    n_train: int
    n_val: int
    epochs: int
    best_epoch: int
    mean_pearson: float | None
    pearson: dict[str, float | None]
    seconds: float
    notes: list[str]


def run(options: TrainHeadOptions, progress: ProgressCallback = silent) -> TrainHeadResult:
    """Train a head on the training split, choose its epoch on the validation split.

    The test split is not read. The run folder gets the head (`head.safetensors`, `head.json`),
    `training.csv` and `videos.csv`; until it ends, a state from which ``resume`` goes on to the
    same result as an undisturbed run.

    Raises
    ------
    FeieError
        Store, labels or options cannot be used, or the run folder cannot be written.
    """
    clock = time.monotonic()
    if options.resume is not None:
        folder, options = options.resume, _stored_options(options.resume)
    else:
        folder = None
    material = read_material(options)
    for note in material.notes:
        progress(Progress("epochs", 0, message=note))
    head_run = begin(options, material, folder)
    with one_thread():
        _train(head_run, progress)
        return finish(head_run, time.monotonic() - clock)


@dataclass(frozen=True)
class Material:
    """What heads of one subset and one way to read the store are trained on.

    Attributes
    ----------
    data : HeadData
        Its frames are standardised.
    standardiser : Standardiser
    train, val : Examples
    notes : list of str
        What was decided for the user.
    """

    data: HeadData
    standardiser: Standardiser
    train: Examples
    val: Examples
    notes: list[str]


@dataclass(frozen=True)
class HeadRun:
    """A training with its run folder, begun or taken up again."""

    options: TrainHeadOptions
    material: Material
    folder: Path
    trainer: Trainer


def read_material(options: TrainHeadOptions) -> Material:
    """Read and standardise what these options train on; raises `FeieError`."""
    data = read_head_data(
        options.store,
        options.labels,
        subset=options.subset,
        targets=options.targets,
        t=options.t,
        stride=options.frame_stride,
        missing=options.missing,
        long=options.long,
        space=options.space,
        unmatched=options.unmatched,
    )
    frames, values = data.prepared.frames, data.joined.labels.values
    standardiser = Standardiser.fit(frames, data.train, SD_FLOOR[options.space])
    frames = standardiser.apply(frames, reuse=True)
    train, val = (Examples(frames.select(rows), values[rows]) for rows in (data.train, data.val))
    return Material(data, standardiser, train, val, describe(data))


def begin(options: TrainHeadOptions, material: Material, folder: Path | None = None) -> HeadRun:
    """Start a run, or take up the one in `folder` where it was put down; raises `FeieError`."""
    data, config = material.data, options.training()
    model = _model(options, len(data.inputs.columns), len(data.labels.targets))
    device = device_named(options.device)
    trainer = Trainer(model, material.train, material.val, config, device)
    if folder is None:
        folder = _start(options, data)
    else:
        _check_origin(folder, _origin(options, data, folder))
        _restore(trainer, folder)
    if not (folder / VIDEOS).exists():
        _list_videos(folder, data)
    return HeadRun(options, material, folder, trainer)


def _model(options: TrainHeadOptions, inputs: int, targets: int) -> Model:
    """Build an untrained model of the kind and shape that was asked for."""
    if options.head != "mrnn":
        hidden = 0 if options.head == "stat-linear" else _STAT_HIDDEN
        shape = StatConfig(inputs=inputs, targets=targets, hidden=hidden, l2=options.l2)
        return Stat(shape, options.seed)
    names = ("t", "cell", "layers", "width", "dense", "mask")
    given = {name: getattr(options, name) for name in names}
    return MRNN(MRNNConfig(inputs=inputs, targets=targets, **given), options.seed)


def device_named(name: str) -> torch.device:
    """Find a device by its name, ``auto`` for a GPU where there is one; raises `UsageError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (AssertionError, NotImplementedError, RuntimeError):
        raise UsageError(f"--device {name!r} cannot be used on this machine") from None
    return device


def finish(run: HeadRun, seconds: float) -> TrainHeadResult:
    """Keep the best weights of a training that has ended as the run's head; raises `FeieError`."""
    options, material, folder, trainer = run.options, run.material, run.folder, run.trainer
    data, val = material.data, material.val
    trainer.use_best()
    trainer.model.cpu()
    head = _finish(trainer.model, data, material.standardiser, material.train, trainer.config)
    prediction = head.predict_standardised(val.frames)
    rho = pearson(prediction, val.labels)
    by_target = {k: known(v) for k, v in zip(data.labels.targets, rho, strict=True)}
    head.notes.update(
        subset=list(options.subset),
        training={
            **trainer.config.model_dump(mode="json"),
            "preset": options.preset,
            "recurrence": backend(),
            "epochs_trained": len(trainer.history),
            "best_epoch": trainer.best_epoch,
            "val_pearson": known(mean_defined(rho)),
            "val_pearson_by_target": by_target,
        },
        videos={"train": len(data.train), "val": len(data.val), "faceless": data.prepared.faceless,
                "shortened": data.prepared.shortened},
        **_origin(options, data, folder),
        versions=library_versions(),
        git=_git_describe(),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    save_head(head, folder)
    with disk_errors(folder):
        (folder / STATE).unlink(missing_ok=True)
    return TrainHeadResult(
        run=str(folder),
        subset=list(options.subset),
        n_train=len(data.train),
        n_val=len(data.val),
        epochs=len(trainer.history),
        best_epoch=trainer.best_epoch,
        mean_pearson=known(mean_defined(rho)),
        pearson=by_target,
        seconds=round(seconds, 2),
        notes=material.notes,
    )


def _origin(options: TrainHeadOptions, data: HeadData, folder: Path) -> dict[str, Any]:
    """Which store and labels these are; a resumed run must find the same."""
    made_by = data.store.provenance
    return {
        "store": {
            **place(options.store, folder),
            "fingerprint": data.store.fingerprint,
            "extractor": made_by.get("extractor"),
            "detector": made_by.get("detector"),
        },
        "labels": {
            **place(str(options.labels), folder),
            "sha256": data.labels.sha256,
            "split_made": data.labels.split_made,
            "missing": list(data.joined.missing),
        },
    }


def _start(options: TrainHeadOptions, data: HeadData) -> Path:
    """Make the run folder, and put down first what a resumption needs."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = new_run(
        options.runs, options.name or f"{stamp}-{'-'.join(options.subset)}-s{options.seed}"
    )
    origin = _origin(options, data, folder)
    asked = options.model_dump(mode="json")
    asked |= {what: origin[what]["path"] for what in ("store", "labels")}
    write_json(folder / OPTIONS, {"options": asked, **origin})
    return folder


def _list_videos(folder: Path, data: HeadData) -> None:
    text, labels = io.StringIO(), data.joined.labels
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["video", "label", "split"])
    table.writerows(zip(data.joined.store_ids, labels.ids, labels.split, strict=True))
    write_atomically(folder / VIDEOS, text.getvalue().encode())


def _stored_options(folder: Path) -> TrainHeadOptions:
    if (folder / HEAD_JSON).exists():
        raise HeadError(f"{folder} is finished, there is nothing to resume")
    if not (folder / OPTIONS).exists():
        raise HeadError(f"{folder} is no run of feie train-head: it has no {OPTIONS}")
    stored = read_json(folder / OPTIONS)
    try:
        there = {what: find_again(stored[what], folder) for what in ("store", "labels")}
        return TrainHeadOptions.model_validate({**stored["options"], **there})
    except (AttributeError, KeyError, TypeError, ValidationError):
        raise HeadError(f"{folder / OPTIONS} is damaged or of another version of feie") from None


def _check_origin(folder: Path, origin: dict[str, Any]) -> None:
    stored = read_json(folder / OPTIONS)
    for what, key in (("store", "fingerprint"), ("labels", "sha256")):
        if stored[what].get(key) != origin[what][key]:
            raise HeadError(
                f"{origin[what]['path']} has changed since {folder} was started, so it cannot "
                f"be resumed; train again"
            )


def _restore(trainer: Trainer, folder: Path) -> None:
    """Take up the state of a run, if it got as far as putting one down."""
    path = folder / STATE
    if not path.exists():
        return
    try:
        trainer.restore(*load_tensors(path))
    except (HeadError, KeyError, TypeError, ValueError) as error:
        raise HeadError(
            f"{path} is damaged ({error}); remove it and resume to begin from the first epoch"
        ) from None


class Logbook:
    """Writes every epoch of a run to its log, and puts its state down now and then."""

    def __init__(self, run: HeadRun) -> None:
        self._run, self._every = run, run.options.checkpoint_seconds
        self._lines = _read_log(run.folder / LOG)[: len(run.trainer.history)]
        self._saved = self._clock = time.monotonic()
        done = len(run.trainer.history)
        self._board = _tensorboard(run.folder, done) if run.options.tensorboard else None

    def note(self, epoch: Epoch) -> None:
        """Take note of the epoch that has just ended."""
        folder, trainer, now = self._run.folder, self._run.trainer, time.monotonic()
        seconds, self._clock = now - self._clock, now
        rate = trainer.optimiser.param_groups[0]["lr"]
        self._lines.append(
            f"{epoch.epoch},{epoch.train_loss!r},{epoch.val_pearson!r},{rate!r},{seconds:.3f}"
        )
        header = "epoch,train_loss,val_pearson,lr,seconds"
        write_atomically(folder / LOG, ("\n".join([header, *self._lines]) + "\n").encode())
        if self._board is not None:
            self._board.add_scalar("loss/train", epoch.train_loss, epoch.epoch)
            self._board.add_scalar("pearson/val", epoch.val_pearson, epoch.epoch)
            self._board.add_scalar("lr", rate, epoch.epoch)
            self._board.flush()
        if now - self._saved >= self._every and not trainer.finished:
            save_tensors(folder / STATE, *trainer.state())
            self._saved = time.monotonic()


def _tensorboard(folder: Path, done: int) -> Any:
    """Open TensorBoard's log; what a killed run wrote past its last state is dropped there."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs TensorBoard: pip install 'feie[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)


def _train(run: HeadRun, progress: ProgressCallback) -> None:
    """Train to the end."""
    trainer, total, book = run.trainer, run.trainer.config.epochs, Logbook(run)
    for epoch in trainer.epochs():
        book.note(epoch)
        progress(_report(epoch, trainer, total))
    if len(trainer.history) < total:
        progress(
            Progress(
                "epochs", total, total,
                message=f"stopped after epoch {len(trainer.history)}: no better validation "
                f"Pearson since epoch {trainer.best_epoch}",
            )
        )  # fmt: skip


def _read_log(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except FileNotFoundError:
        return []


def _report(epoch: Epoch, trainer: Trainer, total: int) -> Progress:
    return Progress(
        "epochs",
        epoch.epoch,
        total,
        info={
            "loss": round(epoch.train_loss, 4),
            "val ρ": round(epoch.val_pearson, 4),
            "best": round(trainer.best_pearson, 4),
        },
    )


def _finish(
    model: Model,
    data: HeadData,
    standardiser: Standardiser,
    train: Examples,
    config: TrainingConfig,
) -> Head:
    faces = train.with_faces()
    if config.loss == "pearson":
        calibration = Calibration.fit(predict(model, faces.frames), faces.labels)
    else:
        calibration = Calibration.identity(len(data.labels.targets))
    return Head(
        model=model,
        targets=data.labels.targets,
        inputs=data.inputs,
        standardiser=standardiser,
        calibration=calibration,
        label_mean=train.labels.mean(0),
        baseline=LengthBaseline.fit(train.frames.lengths, train.labels),
        notes={},
    )


def _git_describe() -> str | None:
    """Say which commit this is, in a checkout of feie."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    # Without its optional locks git leaves the index alone, which another git may be using.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
