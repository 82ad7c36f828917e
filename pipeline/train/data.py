"""What training a head reads: labels joined with the store's frames, and each split's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError, LabelError, StoreError
from feie.features.store.reader import Store, open_store
from feie.features.text import counted
from feie.heads.config import InputConfig
from feie.heads.data.frame_joining import join_frames
from feie.heads.data.frame_labels import TARGETS, load_frame_labels
from feie.heads.data.inputs import SD_FLOOR, Prepared, Standardiser, pick_columns, prepare
from feie.heads.data.joining import Join, join
from feie.heads.data.labels import Labels, load_labels
from feie.heads.data.ragged import Ragged
from feie.heads.runs.trained import units_seen
from feie.heads.training.trainer import Examples
from feie.pipeline.train.options import TrainHeadOptions

_SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


@dataclass(frozen=True)
class TrainingData:
    """What heads of one subset, unit and way to read the store are trained on.

    Attributes
    ----------
    store : Store
    subset : tuple of str
        Groups of its columns.
    inputs : InputConfig
    targets : tuple of str
    labels : mapping
        ``sha256`` of the label file, ``split_made``, and ids that are ``missing`` in the store.
    videos : tuple of (str, str, str)
        Id in the store, id in the labels and split of each video, those of training first.
    standardiser : Standardiser
        Of the training rows.
    label_mean : ndarray of float64, shape (targets,)
    train, val : Examples
        Standardised.
    faceless, shortened : int
        Videos.
    notes : list of str
        What was decided for the user.
    """

    store: Store
    subset: tuple[str, ...]
    inputs: InputConfig
    targets: tuple[str, ...]
    labels: Mapping[str, Any]
    videos: tuple[tuple[str, str, str], ...]
    standardiser: Standardiser
    label_mean: NDArray[np.float64]
    train: Examples
    val: Examples
    faceless: int
    shortened: int
    notes: list[str]

    def count(self, split: str) -> int:
        """How many videos a split has."""
        return sum(found == split for _, _, found in self.videos)


def read_training_data(options: TrainHeadOptions) -> TrainingData:
    """Read and standardise the training and validation split; the test split is not read.

    Raises
    ------
    FeieError
        Store and labels cannot be used together, or show too little to learn or choose by.
    """
    store_path, unit = options.store, options.head.config.unit
    store = open_store(store_path)
    if not store.ids:
        raise StoreError(f"{store_path} holds no video that was extracted without failure")
    subset = store.schema.named(options.subset or tuple(store.schema.groups))
    columns, groups = pick_columns(store.schema, subset)
    inputs = InputConfig(
        columns=columns,
        groups=groups,
        unit=unit,
        t=options.t,
        stride=options.frame_stride,
        missing=options.missing,
        long=options.long,
        space=options.space,
    )
    read = _read_frames if unit == "frame" else _read_videos
    return read(options, store, subset, inputs)


def _read_videos(
    options: TrainHeadOptions, store: Store, subset: tuple[str, ...], inputs: InputConfig
) -> TrainingData:
    """Read what a head of videos learns from: a label a video."""
    labels = load_labels(options.labels, options.targets, options.missing_label)
    for split in _SPLITS:
        labels.of_split(split)
    # A split's frames lie together, so that nothing needs to copy them.
    wanted = labels.take(np.concatenate([np.flatnonzero(labels.split == s) for s in _SPLITS]))
    joined = join(
        wanted, store.ids, options.store, failed=store.failures, tolerance=options.unmatched
    )
    _check_varied(joined, options.store, np.ones(len(joined.labels), np.bool_), "")
    prepared = _prepared(store, joined.store_ids, inputs)
    _check_faces(joined.labels, "train", prepared.seen)
    _check_faces(joined.labels, "val", prepared.seen)
    _check_varied(joined, options.store, prepared.seen, " with a face")
    rows = [np.flatnonzero(joined.labels.split == split) for split in _SPLITS]
    standardiser = Standardiser.fit(prepared.frames, rows[0], SD_FLOOR[options.space])
    frames, values = standardiser.apply(prepared.frames, reuse=True), joined.labels.values
    train, val = (Examples(frames.select(chosen), values[chosen]) for chosen in rows)
    return TrainingData(
        store=store,
        subset=subset,
        inputs=inputs,
        targets=labels.targets,
        labels={
            "sha256": labels.sha256,
            "split_made": labels.split_made,
            "missing": list(joined.missing),
        },
        videos=tuple(
            zip(joined.store_ids, joined.labels.ids, map(str, joined.labels.split), strict=True)
        ),
        standardiser=standardiser,
        label_mean=train.labels.mean(0),
        train=train,
        val=val,
        faceless=prepared.faceless,
        shortened=prepared.shortened,
        notes=_describe(labels, joined, store, inputs, prepared),
    )


def _read_frames(
    options: TrainHeadOptions, store: Store, subset: tuple[str, ...], inputs: InputConfig
) -> TrainingData:
    """Read what a head of frames learns from: a label a frame."""
    labels = load_frame_labels(options.labels)
    joins = [join_frames(labels, split, store, options.unmatched) for split in _SPLITS]
    prepared = [_prepared(store, joined.store_ids, inputs) for joined in joins]
    # Frames without a face are filled in to be predicted, and not learnt from.
    whole = prepared[0].whole
    assert whole is not None  # of a head of frames
    learnt = np.where(whole[:, None], joins[0].values, np.nan)
    usable = np.flatnonzero(np.isfinite(learnt).all(axis=1))
    if len(usable) < 2:
        raise HeadError("fewer than two frames have both a face and a label of valence-arousal")
    rows = Ragged(prepared[0].frames.values[usable], np.array([0, len(usable)]))
    standardiser = Standardiser.fit(rows)
    train, val = (
        Examples(
            standardiser.apply(ready.frames), values, "frame", units_seen(ready.frames, "frame")
        )
        for ready, values in zip(prepared, (learnt, joins[1].values), strict=True)
    )
    notes = list(labels.notes)
    for joined in joins:
        notes += joined.notes
    return TrainingData(
        store=store,
        subset=subset,
        inputs=inputs,
        targets=TARGETS,
        labels={
            "sha256": labels.sha256,
            "split_made": labels.split_made,
            "missing": [video for joined in joins for video in joined.missing],
        },
        videos=tuple(
            (video, name, split)
            for joined, split in zip(joins, _SPLITS, strict=True)
            for video, name in zip(joined.store_ids, joined.ids, strict=True)
        ),
        standardiser=standardiser,
        label_mean=np.nanmean(joins[0].values, axis=0),
        train=train,
        val=val,
        faceless=sum(ready.faceless for ready in prepared),
        shortened=0,
        notes=notes,
    )


def _prepared(store: Store, videos: Sequence[str], inputs: InputConfig) -> Prepared:
    return prepare(
        store.read(videos, [store.schema.columns.index(c) for c in inputs.columns]), inputs
    )


def _check_varied(joined: Join, store: str, chosen: NDArray[np.bool_], which: str) -> None:
    """Refuse labels that nothing can be learnt from, or no epoch be chosen by.

    Every target must vary in training; in validation one is enough.
    """
    labels = joined.labels
    for split in ("train", "val"):
        part = labels.take(np.flatnonzero((labels.split == split) & chosen))
        if not len(part):
            raise LabelError(
                f"no video of split {split!r} of {labels.path} is in {store}: it lacks "
                f"{', '.join(map(repr, joined.missing[:3]))}"
            )
        if split == "train" or (np.ptp(part.values, axis=0) == 0).all():
            part.check_varied(which)


def _check_faces(labels: Labels, split: Literal["train", "val"], faces: NDArray[np.bool_]) -> None:
    what = {"train": "training", "val": "validation"}[split]
    ours = np.flatnonzero(labels.split == split)
    count = int(faces[ours].sum())
    if count >= 2:
        return
    without = [labels.ids[i] for i in ours[~faces[ours]]]
    named = ", ".join(map(repr, without[:5])) + (", …" if len(without) > 5 else "")
    shown = f"no {what} video has" if not count else f"only one {what} video has"
    lacking = f" (without: {named})" if without else ""
    raise HeadError(
        f"{shown} a frame with a face{lacking}; a correlation needs at least 2: move videos "
        f"into split {split!r}, or extract again with another detector"
    )


def _describe(
    labels: Labels, joined: Join, store: Store, inputs: InputConfig, prepared: Prepared
) -> list[str]:
    """Everything that was decided for the user, in sentences."""
    notes = list(labels.notes)
    if missing := joined.missing:
        first = ", ".join(missing[:3])
        notes.append(
            f"{counted(len(missing), 'label', 'has', 'have')} no usable video in "
            f"{store.path}, left out: {first}{', …' if len(missing) > 3 else ''}"
        )
    if prepared.faceless:
        notes.append(
            f"{counted(prepared.faceless, 'video', 'shows', 'show')} no face in any frame: "
            f"left out of training, predicted as the mean label of the training videos"
        )
    if prepared.shortened:
        how = "resampled uniformly" if inputs.long == "uniform" else "cut"
        notes.append(
            f"{counted(prepared.shortened, 'video', 'is', 'are')} longer than "
            f"t={inputs.t} frames and {'was' if prepared.shortened == 1 else 'were'} "
            f"{how} to that length"
        )
    return notes
