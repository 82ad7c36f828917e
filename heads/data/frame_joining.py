"""Labels of frames joined with a store's frames, and the lines that predictions of frames are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import LabelError, UsageError
from feie.features.store.reader import Store
from feie.features.text import counted, significant
from feie.heads.config import SplitName
from feie.heads.data.frame_labels import FrameLabels, lay_over
from feie.heads.data.joining import find_videos


@dataclass(frozen=True)
class FrameJoin:
    """Labels of every stored frame of a split's videos.

    Attributes
    ----------
    ids, store_ids : tuple of str
        A video each, as in the labels and as in the store.
    offsets : ndarray of int64, shape (videos + 1,)
    values : ndarray of float64, shape (rows, 2)
        NaN without one.
    missing : tuple of str
        Videos of the labels that the store lacks.
    notes : list of str
        What was left out.
    """

    ids: tuple[str, ...]
    store_ids: tuple[str, ...]
    offsets: NDArray[np.int64]
    values: NDArray[np.float64]
    missing: tuple[str, ...]
    notes: list[str]

    @property
    def video(self) -> NDArray[np.int64]:
        """Which video each row is of, shape (rows,)."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.offsets))


def join_frames(labels: FrameLabels, split: SplitName, store: Store, tolerance: float) -> FrameJoin:
    """Join the labels of a split with the store's frames.

    Parameters
    ----------
    labels : FrameLabels
    split : {"train", "val", "test"}
    store : Store
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
    laid, beyond, worst = [], 0, ("", 0)
    for row, video in kept:
        times = store[video].time if labels.by == "time" else len(store[video])
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
    return FrameJoin(
        ids=tuple(labels.ids[row] for row, _ in kept),
        store_ids=tuple(video for _, video in kept),
        offsets=np.concatenate([[0], np.cumsum([len(part) for part in laid])]),
        values=values,
        missing=tuple(missing),
        notes=notes,
    )


def frame_lines(
    store: Store,
    names: Sequence[str],
    videos: Sequence[str],
    offsets: NDArray[np.int64],
    targets: Sequence[str],
    prediction: NDArray[np.float64],
) -> bytes:
    """Write ``id,frame,time`` and the targets: frames count from 0, times are seconds.

    Parameters
    ----------
    store : Store
    names, videos : sequence of str
        Ids to write, and those of the store.
    offsets : ndarray, shape (videos + 1,)
    targets : sequence of str
    prediction : ndarray, shape (rows, targets)
    """
    text = io.StringIO()
    text.write(",".join(["id", "frame", "time", *targets]) + "\n")
    for i, (name, video) in enumerate(zip(names, videos, strict=True)):
        quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name
        rows = prediction[offsets[i] : offsets[i + 1]]
        text.writelines(
            f"{quoted},{number},{time:.6f},{','.join(map(significant, row))}\n"
            for number, (time, row) in enumerate(zip(store[video].time, rows, strict=True))
        )
    return text.getvalue().encode()
