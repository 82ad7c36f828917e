"""`feie train-head --head frame-va`: valence and arousal of every frame, by the recipe of [S]."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from feie.features.errors import StoreError
from feie.features.store.reader import Store, open_store
from feie.heads.data.frame_labels import TARGETS, load_frame_labels
from feie.heads.data.inputs import InputConfig, Space, pick_columns
from feie.heads.measures.frame_scores import score_frames
from feie.heads.measures.metrics import known
from feie.heads.models.frame_va import HALF_WINDOW, FrameVA
from feie.heads.runs.checkpoint import new_run, place
from feie.heads.runs.files import write_atomically
from feie.heads.runs.frame_checkpoint import FrameHead, save_frame_head
from feie.heads.training.threads import one_thread
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.provenance import library_versions
from feie.pipeline.result import Result, figure
from feie.pipeline.train.frame_data import FrameSplit, read_frame_split
from feie.pipeline.train.log import LOG
from feie.pipeline.train.run import VIDEOS, git_describe


class TrainFrameVaOptions(BaseModel):
    """What training a frame-level head can be asked; see ``feie train-head --help`` for each.

    Attributes
    ----------
    labels : Path
        See `feie.heads.data.frame_labels.load_frame_labels`.
    box : int
        Frames on each side that the box filter averages; 25 make [S]'s 50 odd.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str = "features.zarr"
    labels: Path = Path("labels.csv")
    subset: tuple[str, ...] | None = Field(default=None, min_length=1)
    runs: Path = Path("runs")
    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    seed: int = Field(default=0, ge=0)
    lr: float = Field(default=1e-3, gt=0)
    batch: int = Field(default=1024, ge=2)
    epochs: int = Field(default=30, ge=1)
    box: int = Field(default=HALF_WINDOW, ge=0, le=100_000)
    space: Space = "logit"
    unmatched: float = Field(default=0.05, ge=0, le=1)


class TrainFrameVaResult(Result):
    """What training a frame-level head did.

    Attributes
    ----------
    run : str
    n_train, n_val : int
        Labelled frames.
    mean_ccc : float or None
        On the validation split, of the kept epoch.
    ccc : dict of str to (float or None)
    """

    run: str
    subset: list[str]
    n_train: int
    n_val: int
    epochs: int
    best_epoch: int
    mean_ccc: float | None
    ccc: dict[str, float | None]
    seconds: float
    notes: list[str]

    def lines(self) -> list[str]:
        """Say what was trained, and how well."""
        figures = ", ".join(f"{name} {figure(value)}" for name, value in self.ccc.items())
        return [
            *(f"note: {note}" for note in self.notes),
            f"{self.n_train} training and {self.n_val} validation frames, {self.epochs} epochs in "
            f"{self.seconds:g} s; best was {self.best_epoch}: mean CCC {figure(self.mean_ccc)} on "
            f"val ({figures}) → {self.run}",
        ]


def run(options: TrainFrameVaOptions, progress: ProgressCallback = silent) -> TrainFrameVaResult:
    """Train on the labelled frames with a face, choose the epoch on the validation split.

    The test split is not read. The run folder is one that `feie evaluate` and `feie predict` take.

    Raises
    ------
    FeieError
        Store and labels cannot be used together, or the folder cannot be written.
    """
    clock = time.monotonic()
    store = open_store(options.store)
    if not store.ids:
        raise StoreError(f"{options.store} holds no video that was extracted without failure")
    subset = store.schema.named(options.subset or tuple(store.schema.groups))
    names, groups = pick_columns(store.schema, subset)
    inputs = InputConfig(columns=names, groups=groups, space=options.space)
    labels = load_frame_labels(options.labels)
    columns = [store.schema.columns.index(name) for name in names]
    train, val = (
        read_frame_split(store, columns, inputs, labels, split, options.unmatched)
        for split in ("train", "val")
    )
    notes = [*labels.notes, *train.notes, *val.notes]
    log: list[tuple[int, float, float]] = []

    def notice(number: int, loss: float, found: float) -> None:
        log.append((number, loss, found))
        info = {"loss": round(loss, 4), "val CCC": round(found, 4)}
        progress(Progress("epochs", number, options.epochs, info=info))

    with one_thread():
        model = FrameVA.fit(
            train.frames,
            train.labels,
            (val.frames, val.labels),
            epochs=options.epochs,
            batch=options.batch,
            lr=options.lr,
            seed=options.seed,
            half=options.box,
            notice=notice,
        )
    best = max(log, key=lambda e: -np.inf if np.isnan(e[2]) else e[2])[0]
    mean = train.labels[train.labelled].mean(0)
    head = FrameHead(model, inputs, mean, {})
    at = val.labelled
    scores = score_frames(head.predict(val.frames)[at], val.labels[at], val.video[at])
    by_target = {k: known(v) for k, v in zip(TARGETS, scores.ccc, strict=True)}
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = new_run(options.runs, options.name or f"{stamp}-frame-va-s{options.seed}")
    write_atomically(folder / LOG, _log(log))
    _list_videos(folder, (train, val))
    head.notes.update(
        subset=list(subset),
        training={
            **options.model_dump(mode="json", include={"seed", "lr", "batch", "epochs"}),
            "best_epoch": best,
            "val_ccc": known(scores.mean_ccc),
            "val_ccc_by_target": by_target,
        },
        videos={"train": len(train.ids), "val": len(val.ids)},
        frames={"train": int(train.labelled.sum()), "val": int(at.sum())},
        store=_origin(store, options.store, folder),
        labels={**place(str(options.labels), folder), "sha256": labels.sha256},
        versions=library_versions(),
        git=git_describe(),
        ended=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    save_frame_head(head, folder)
    return TrainFrameVaResult(
        run=str(folder),
        subset=list(subset),
        n_train=int(train.labelled.sum()),
        n_val=int(at.sum()),
        epochs=len(log),
        best_epoch=best,
        mean_ccc=known(scores.mean_ccc),
        ccc=by_target,
        seconds=round(time.monotonic() - clock, 2),
        notes=notes,
    )


def _origin(store: Store, path: str, folder: Path) -> dict[str, object]:
    made_by = store.provenance
    return {
        **place(path, folder),
        "fingerprint": store.fingerprint,
        "extractor": made_by.get("extractor"),
        "detector": made_by.get("detector"),
    }


def _log(epochs: Sequence[tuple[int, float, float]]) -> bytes:
    lines = ["epoch,train_loss,val_ccc", *(f"{n},{loss!r},{found!r}" for n, loss, found in epochs)]
    return ("\n".join(lines) + "\n").encode()


def _list_videos(folder: Path, splits: Sequence[FrameSplit]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["video", "label", "split"])
    for part in splits:
        table.writerows((v, i, part.split) for v, i in zip(part.store_ids, part.ids, strict=True))
    write_atomically(folder / VIDEOS, text.getvalue().encode())
