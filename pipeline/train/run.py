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
from feie.heads.config import PluginConfig, PluginOptions, TrainingConfig
from feie.heads.measures.baselines import LengthBaseline
from feie.heads.measures.metrics import MEASURES, known, mean_defined
from feie.heads.models.base import HeadModel
from feie.heads.models.plugin import check_named
from feie.heads.models.recurrence import backend
from feie.heads.runs.checkpoint import HEAD_JSON, STATE, find_again, new_run, place, save_head
from feie.heads.runs.files import disk_errors, load_tensors, read_json, write_atomically, write_json
from feie.heads.runs.trained import Calibration, TrainedHead
from feie.heads.training.trainer import Trainer, predict
from feie.pipeline.provenance import library_versions
from feie.pipeline.train.data import TrainingData
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.result import TrainHeadResult

OPTIONS, VIDEOS = "options.json", "videos.csv"


@dataclass(frozen=True)
class HeadRun:
    """A training with its run folder, begun or taken up again."""

    options: TrainHeadOptions
    data: TrainingData
    folder: Path
    trainer: Trainer


def begin(options: TrainHeadOptions, data: TrainingData, folder: Path | None = None) -> HeadRun:
    """Start a run, or take up the one in `folder` where it was put down; raises `FeieError`."""
    columns, targets = len(data.inputs.columns), len(data.targets)
    model = options.head.new(columns, targets, options.t, options.seed)
    device = pick_device(options.device)
    trainer = Trainer(model, data.train, data.val, options.training(), device)
    if folder is None:
        folder = _start(options, data, model)
    else:
        _check_origin(folder, _origin(options, data, model, folder))
        _restore(trainer, folder)
    if not (folder / VIDEOS).exists():
        _list_videos(folder, data)
    return HeadRun(options, data, folder, trainer)


def finish(run: HeadRun, seconds: float) -> TrainHeadResult:
    """Keep the best weights of a training that has ended as the run's head; raises `FeieError`."""
    options, data, folder, trainer = run.options, run.data, run.folder, run.trainer
    trainer.use_best()
    trainer.model.cpu()
    head = _head(trainer.model, data, trainer.config)
    prediction = head.predict_standardised(data.val.frames, data.val.seen)
    at = data.val.labelled
    found = {
        name: measure(prediction[at], data.val.labels[at]) for name, measure in MEASURES.items()
    }
    by_target = {
        name: {k: known(v) for k, v in zip(data.targets, values, strict=True)}
        for name, values in found.items()
    }
    mean = {name: known(mean_defined(values)) for name, values in found.items()}
    videos = {"train": data.count("train"), "val": data.count("val")}
    units = {"train": int(data.train.labelled.sum()), "val": int(at.sum())}
    frames = {"frames": units} if head.unit == "frame" else {}
    head.notes.update(
        subset=list(data.subset),
        training={
            **trainer.config.model_dump(mode="json"),
            "preset": options.preset,
            "recurrence": backend(),
            "epochs_trained": len(trainer.history),
            "best_epoch": trainer.best_epoch,
            f"val_{trainer.measure}": mean[trainer.measure],
            f"val_{trainer.measure}_by_target": by_target[trainer.measure],
        },
        videos={**videos, "faceless": data.faceless, "shortened": data.shortened},
        **frames,
        **_origin(options, data, trainer.model, folder),
        versions=library_versions(),
        git=git_describe(),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    save_head(head, folder)
    with disk_errors(folder):
        (folder / STATE).unlink(missing_ok=True)
    counts = units if head.unit == "frame" else videos
    return TrainHeadResult(
        run=str(folder),
        subset=list(data.subset),
        unit=head.unit,
        n_train=counts["train"],
        n_val=counts["val"],
        epochs=len(trainer.history),
        best_epoch=trainer.best_epoch,
        headline=trainer.measure,
        mean_pearson=mean["pearson"],
        pearson=by_target["pearson"],
        mean_ccc=mean["ccc"],
        ccc=by_target["ccc"],
        seconds=round(seconds, 2),
        notes=data.notes,
    )


def _origin(
    options: TrainHeadOptions, data: TrainingData, model: HeadModel, folder: Path
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
            **data.labels,
            "missing_label": list(options.missing_label),
        },
    }


def _start(options: TrainHeadOptions, data: TrainingData, model: HeadModel) -> Path:
    """Make the run folder, and put down first what a resumption needs."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    what = "-".join(data.subset if data.inputs.unit == "video" else (options.head.name,))
    folder = new_run(options.runs, options.name or f"{stamp}-{what}-s{options.seed}")
    origin = _origin(options, data, model, folder)
    asked = options.model_dump(mode="json")
    asked |= {what: origin[what]["path"] for what in ("store", "labels")}
    write_json(folder / OPTIONS, {"options": asked, **origin})
    return folder


def _list_videos(folder: Path, data: TrainingData) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["video", "label", "split"])
    table.writerows(data.videos)
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
    if isinstance(options.head, PluginOptions):
        check_named(options.head.code)
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


def _head(model: HeadModel, data: TrainingData, config: TrainingConfig) -> TrainedHead:
    dealt = data.train.dealt()
    if config.loss == "pearson":
        calibration = Calibration.fit(predict(model, dealt.frames), dealt.labels)
    else:
        calibration = Calibration.identity(len(data.targets))
    baseline = None
    if data.inputs.unit == "video":
        baseline = LengthBaseline.fit(data.train.frames.lengths, data.train.labels)
    return TrainedHead(
        model=model,
        targets=data.targets,
        inputs=data.inputs,
        standardiser=data.standardiser,
        calibration=calibration,
        label_mean=data.label_mean,
        baseline=baseline,
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
