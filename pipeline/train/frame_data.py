"""What a frame-level head reads: the frames of a split's videos with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import LabelError, UsageError
from feie.features.store.reader import Store
from feie.features.text import counted
from feie.heads.data.frame_labels import FrameLabels, lay_over
from feie.heads.data.inputs import InputConfig, to_logits
from feie.heads.data.joining import find_videos
from feie.heads.data.labels import SplitName
from feie.heads.data.ragged import Ragged

_BLOCK = 1 << 16


@dataclass(frozen=True)
class FrameSplit:
    """Frames of the videos of a split.

    Attributes
    ----------
    split : str
    ids, store_ids : tuple of str
        A video each, as in the labels and as in the store.
    frames : Ragged
        Every frame, in the head's space; NaN where no face was found.
    labels : ndarray of float64, shape (rows, 2)
        NaN without one.
    notes : list of str
        What was left out.
    """

    split: SplitName
    ids: tuple[str, ...]
    store_ids: tuple[str, ...]
    frames: Ragged
    labels: NDArray[np.float64]
    notes: list[str]

    @property
    def video(self) -> NDArray[np.int64]:
        """Which video each row is of, shape (rows,)."""
        return np.repeat(np.arange(len(self.frames)), self.frames.lengths)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which rows have a label, shape (rows,)."""
        return ~np.isnan(self.labels[:, 0])


def read_frames(
    store: Store, columns: Sequence[int], inputs: InputConfig, ids: Sequence[str]
) -> Ragged:
    """Read every frame of some videos into a head's space; NaN where no face was found."""
    rows = store.read(ids, columns)
    values = rows.values
    values[~rows.valid] = np.nan
    if inputs.space == "logit":
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            whole = ~np.isnan(block).any(axis=1)
            block[whole] = to_logits(block[whole], inputs.groups)
    return Ragged(values, rows.offsets)


def read_frame_split(
    store: Store,
    columns: Sequence[int],
    inputs: InputConfig,
    labels: FrameLabels,
    split: SplitName,
    tolerance: float,
) -> FrameSplit:
    """Join the labels of a split with the store's frames.

    Parameters
    ----------
    store : Store
    columns : sequence of int
        Of the store, in the order of `inputs`.
    inputs : InputConfig
    labels : FrameLabels
    split : {"train", "val", "test"}
    tolerance : float
        Largest share of videos that the store may lack (unless 0, one always may), and of labels
        that may lie behind the end of their video.

    Raises
    ------
    FeieError
        Too many do, or nothing has a label.
    """
    if labels.by == "frame" and store.provenance["options"].get("fps") is not None:
        fps = store.provenance["options"]["fps"]
        raise UsageError(
            f"{store.path} was resampled to {fps:g} frames/s, so numbers of frames in "
            f"{labels.path} do not count its rows: give times (a column time, in seconds)"
        )
    rows = labels.rows_of(split)
    found = find_videos([labels.ids[row] for row in rows], store.ids)
    missing = [labels.ids[row] for row, video in zip(rows, found, strict=True) if video is None]
    allowed = max(1.0, tolerance * len(rows)) if tolerance else 0.0
    if len(missing) > allowed or len(missing) == len(rows):
        raise LabelError(
            f"{len(missing)} of the {counted(len(rows), 'video')} of split {split!r} of "
            f"{labels.path} are not in {store.path}, e.g. {missing[0]!r} (the store has "
            f"{', '.join(map(repr, store.ids[:2]))}); at most {tolerance:.0%} may be missing "
            f"(--unmatched)"
        )
    kept = [(row, video) for row, video in zip(rows, found, strict=True) if video is not None]
    videos = [video for _, video in kept]
    frames = read_frames(store, columns, inputs, videos)
    laid, beyond, worst = [], 0, ("", 0)
    for (row, video), length in zip(kept, frames.lengths, strict=True):
        times = store[video].time if labels.by == "time" else int(length)
        values, behind = lay_over(labels.places[row], labels.values[row], times)
        laid.append(values)
        beyond += behind
        worst = max(worst, (labels.ids[row], behind), key=lambda pair: pair[1])
    values = np.concatenate(laid)
    known = int((~np.isnan(values[:, 0])).sum())
    notes = []
    if missing:
        first = ", ".join(missing[:3])
        notes.append(
            f"{counted(len(missing), 'video')} of split {split!r} not in the store: {first}"
        )
    if beyond:
        text = (
            f"{counted(beyond, 'label')} of split {split!r} behind the end of the video, most in "
            f"{worst[0]!r} ({worst[1]})"
        )
        if beyond > tolerance * (beyond + known):
            raise LabelError(
                f"{labels.path}: {text}: are these the same videos, and are frames counted from 0?"
            )
        notes.append(text)
    if known < 2:
        raise LabelError(f"{labels.path} labels fewer than two frames of split {split!r}")
    ids = tuple(labels.ids[row] for row, _ in kept)
    return FrameSplit(split, ids, tuple(videos), frames, values, notes)
