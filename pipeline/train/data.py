"""What training a head reads: labels joined with the store's frames, and each split's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError, LabelError, StoreError
from feie.features.store.reader import Store, open_store
from feie.features.text import counted
from feie.heads.data.inputs import (
    SD_FLOOR,
    InputConfig,
    Prepared,
    Standardiser,
    pick_columns,
    prepare,
)
from feie.heads.data.joining import Join, join
from feie.heads.data.labels import Labels, load_labels
from feie.heads.training.trainer import Examples
from feie.pipeline.train.options import TrainHeadOptions

_SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")


@dataclass(frozen=True)
class HeadData:
    """Joined labels and prepared frames, and the rows of each split.

    Attributes
    ----------
    store : Store
    subset : tuple of str
        Groups of its columns.
    labels : Labels
        The whole file.
    joined : Join
        Labels of the training and validation split that have a video.
    inputs : InputConfig
    prepared : Prepared
        Frames of the videos of `joined`, in its order.
    train, val : ndarray of int64
        Rows of `joined`: the training videos stand first.
    """

    store: Store
    subset: tuple[str, ...]
    labels: Labels
    joined: Join
    inputs: InputConfig
    prepared: Prepared
    train: NDArray[np.int64]
    val: NDArray[np.int64]


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


def read_material(options: TrainHeadOptions) -> Material:
    """Read and standardise what these options train on; raises `FeieError`."""
    data = read_head_data(options)
    frames, values = data.prepared.frames, data.joined.labels.values
    standardiser = Standardiser.fit(frames, data.train, SD_FLOOR[options.space])
    frames = standardiser.apply(frames, reuse=True)
    train, val = (Examples(frames.select(rows), values[rows]) for rows in (data.train, data.val))
    return Material(data, standardiser, train, val, describe(data))


def read_head_data(options: TrainHeadOptions) -> HeadData:
    """Read the training and validation split; the test split is not read.

    Raises
    ------
    FeieError
        Store and labels cannot be used together, or show too little to learn or choose by.
    """
    store_path = options.store
    store = open_store(store_path)
    if not store.ids:
        raise StoreError(f"{store_path} holds no video that was extracted without failure")
    subset = store.schema.named(options.subset or tuple(store.schema.groups))
    columns, groups = pick_columns(store.schema, subset)
    labels = load_labels(options.labels, options.targets, options.missing_label)
    for split in _SPLITS:
        labels.of_split(split)
    # A split's frames lie together, so that nothing needs to copy them.
    wanted = labels.take(np.concatenate([np.flatnonzero(labels.split == s) for s in _SPLITS]))
    joined = join(wanted, store.ids, store_path, failed=store.failures, tolerance=options.unmatched)
    inputs = InputConfig(
        columns=columns,
        groups=groups,
        t=options.t,
        stride=options.frame_stride,
        missing=options.missing,
        long=options.long,
        space=options.space,
    )
    _check_varied(joined, store_path, np.ones(len(joined.labels), np.bool_), "")
    rows = store.read(joined.store_ids, [store.schema.columns.index(c) for c in columns])
    prepared = prepare(rows, inputs)
    faces = prepared.frames.lengths > 0
    _check_faces(joined.labels, "train", faces)
    _check_faces(joined.labels, "val", faces)
    _check_varied(joined, store_path, faces, " with a face")
    return HeadData(
        store=store,
        subset=subset,
        labels=labels,
        joined=joined,
        inputs=inputs,
        prepared=prepared,
        train=np.flatnonzero(joined.labels.split == "train"),
        val=np.flatnonzero(joined.labels.split == "val"),
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


def describe(data: HeadData) -> list[str]:
    """Everything that was decided for the user, in sentences."""
    notes = list(data.labels.notes)
    if missing := data.joined.missing:
        first = ", ".join(missing[:3])
        notes.append(
            f"{counted(len(missing), 'label', 'has', 'have')} no usable video in "
            f"{data.store.path}, left out: "
            f"{first}{', …' if len(missing) > 3 else ''}"
        )
    if data.prepared.faceless:
        notes.append(
            f"{counted(data.prepared.faceless, 'video', 'shows', 'show')} no face in any frame: "
            f"left out of training, predicted as the mean label of the training videos"
        )
    if data.prepared.shortened:
        how = "resampled uniformly" if data.inputs.long == "uniform" else "cut"
        notes.append(
            f"{counted(data.prepared.shortened, 'video', 'is', 'are')} longer than "
            f"t={data.inputs.t} frames and {'was' if data.prepared.shortened == 1 else 'were'} "
            f"{how} to that length"
        )
    return notes
