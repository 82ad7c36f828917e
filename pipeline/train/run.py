"""A training with its folder: begun, taken up again after a kill, and finished as a head."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feie.features.devices import pick_device
from feie.features.errors import HeadError
from feie.heads.data.inputs import Standardiser
from feie.heads.head import Calibration, Head
from feie.heads.measures.baselines import LengthBaseline
from feie.heads.measures.metrics import known, mean_defined, pearson
from feie.heads.models.mrnn import MRNN, MRNNConfig
from feie.heads.models.plugin import PluginConfig, check_named, new_plugin_head
from feie.heads.models.recurrence import backend
from feie.heads.models.stat import Stat, StatConfig
from feie.heads.runs.checkpoint import HEAD_JSON, STATE, find_again, new_run, place, save_head
from feie.heads.runs.files import disk_errors, load_tensors, read_json, write_atomically, write_json
from feie.heads.training.trainer import Examples, Model, Trainer, TrainingConfig, predict
from feie.pipeline.provenance import library_versions
from feie.pipeline.result import Result, figure
from feie.pipeline.train.data import HeadData, Material
from feie.pipeline.train.options import HEADS, TrainHeadOptions

_STAT_HIDDEN = 128
OPTIONS, VIDEOS = "options.json", "videos.csv"


class TrainHeadResult(Result):
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

    def lines(self) -> list[str]:
        """Say what was trained, and how well."""
        return [
            f"{self.n_train} training and {self.n_val} validation videos, {self.epochs} epochs in "
            f"{self.seconds:g} s; best was {self.best_epoch}: mean Pearson "
            f"{figure(self.mean_pearson)} on val → {self.run}"
        ]


@dataclass(frozen=True)
class HeadRun:
    """A training with its run folder, begun or taken up again."""

    options: TrainHeadOptions
    material: Material
    folder: Path
    trainer: Trainer


def begin(options: TrainHeadOptions, material: Material, folder: Path | None = None) -> HeadRun:
    """Start a run, or take up the one in `folder` where it was put down; raises `FeieError`."""
    data, config = material.data, options.training()
    model = _model(options, len(data.inputs.columns), len(data.labels.targets))
    device = pick_device(options.device)
    trainer = Trainer(model, material.train, material.val, config, device)
    if folder is None:
        folder = _start(options, data, model)
    else:
        _check_origin(folder, _origin(options, data, model, folder))
        _restore(trainer, folder)
    if not (folder / VIDEOS).exists():
        _list_videos(folder, data)
    return HeadRun(options, material, folder, trainer)


def _model(options: TrainHeadOptions, inputs: int, targets: int) -> Model:
    """Build an untrained model of the kind and shape that was asked for."""
    if options.head not in HEADS:
        return new_plugin_head(options.head, inputs, targets, options.seed)
    if options.head != "mrnn":
        hidden = 0 if options.head == "stat-linear" else _STAT_HIDDEN
        shape = StatConfig(inputs=inputs, targets=targets, hidden=hidden, l2=options.l2)
        return Stat(shape, options.seed)
    names = ("t", "cell", "layers", "width", "dense", "mask")
    given = {name: getattr(options, name) for name in names}
    return MRNN(MRNNConfig(inputs=inputs, targets=targets, **given), options.seed)


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
        subset=list(data.subset),
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
        **_origin(options, data, trainer.model, folder),
        versions=library_versions(),
        git=git_describe(),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    save_head(head, folder)
    with disk_errors(folder):
        (folder / STATE).unlink(missing_ok=True)
    return TrainHeadResult(
        run=str(folder),
        subset=list(data.subset),
        n_train=len(data.train),
        n_val=len(data.val),
        epochs=len(trainer.history),
        best_epoch=trainer.best_epoch,
        mean_pearson=known(mean_defined(rho)),
        pearson=by_target,
        seconds=round(seconds, 2),
        notes=material.notes,
    )


def _origin(
    options: TrainHeadOptions, data: HeadData, model: Model, folder: Path
) -> dict[str, Any]:
    """Which store, labels and code of others these are; a resumed run must find the same."""
    made_by, code = data.store.provenance, {}
    if isinstance(model.config, PluginConfig):
        code = {"code": {"path": model.config.name, "sha256": model.config.sha256}}
    return code | {
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
            "missing_label": list(options.missing_label),
        },
    }


def _start(options: TrainHeadOptions, data: HeadData, model: Model) -> Path:
    """Make the run folder, and put down first what a resumption needs."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = new_run(
        options.runs, options.name or f"{stamp}-{'-'.join(data.subset)}-s{options.seed}"
    )
    origin = _origin(options, data, model, folder)
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


def stored_options(folder: Path) -> TrainHeadOptions:
    """Read what a run that has not ended was asked to do.

    Raises
    ------
    HeadError
        It has ended, is no such run, or needs code that the user has not named.
    """
    if (folder / HEAD_JSON).exists():
        raise HeadError(f"{folder} is finished, there is nothing to resume")
    if not (folder / OPTIONS).exists():
        raise HeadError(f"{folder} is no run of feie train-head: it has no {OPTIONS}")
    stored = read_json(folder / OPTIONS)
    try:
        there = {what: find_again(stored[what], folder) for what in ("store", "labels")}
        options = TrainHeadOptions.model_validate({**stored["options"], **there})
    except (AttributeError, KeyError, TypeError, ValidationError):
        raise HeadError(f"{folder / OPTIONS} is damaged or of another version of feie") from None
    check_named(options.head)
    return options


def _check_origin(folder: Path, origin: dict[str, Any]) -> None:
    stored = read_json(folder / OPTIONS)
    for what, key in (("store", "fingerprint"), ("labels", "sha256"), ("code", "sha256")):
        if what in origin and stored[what].get(key) != origin[what][key]:
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


def git_describe() -> str | None:
    """Say which commit this is, in a checkout of feie."""
    root = Path(__file__).resolve().parents[2]
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
