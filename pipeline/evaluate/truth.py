"""The labels that a run is scored against, whether they are of videos or of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feie.features.store.reader import Store
from feie.features.text import counted
from feie.heads.config import SplitName
from feie.heads.data.frame_joining import join_frames
from feie.heads.data.frame_labels import load_frame_labels
from feie.heads.data.joining import join_all
from feie.heads.data.labels import Labels, load_labels
from feie.heads.runs.run import Run


@dataclass(frozen=True)
class Truth:
    """Labels of a split, joined with the stores of a run.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the label file.
    ids : tuple of str
        Of the videos.
    store_ids : sequence of sequence of str
        Of the same videos, by the ids of each store.
    values : ndarray of float64, shape (units, targets)
        Rows are videos, or every frame of them, NaN without a label.
    groups : ndarray of int64, shape (units,), or None
        What the bootstrap draws: subjects where they are known, videos of frames.
    subjects : int or None
    missing : tuple of str
        Labels without a usable video.
    notes : list of str
    of_videos : Labels or None
        The rows of the label file; None of frames.
    offsets : ndarray of int64, shape (videos + 1,), or None
        Of the frames of each video.
    """

    path: Path
    sha256: str
    ids: tuple[str, ...]
    store_ids: Sequence[Sequence[str]]
    values: NDArray[np.float64]
    groups: NDArray[np.int64] | None
    subjects: int | None
    missing: tuple[str, ...]
    notes: list[str]
    of_videos: Labels | None = None
    offsets: NDArray[np.int64] | None = None

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which units have a label."""
        known: NDArray[np.bool_] = np.all(np.isfinite(self.values), axis=1)
        return known

    def rows(self, video: int) -> slice:
        """Give the units of a video."""
        if self.offsets is None:
            return slice(video, video + 1)
        return slice(int(self.offsets[video]), int(self.offsets[video + 1]))


def read_truth(
    run: Run,
    stores: Sequence[Store],
    path: Path,
    split: SplitName,
    tolerance: float,
    missing: Sequence[float] = (),
) -> Truth:
    """Read the labels of a split as a run needs them.

    Raises
    ------
    FeieError
        They cannot be read, or too many lack a video.
    """
    if run.unit == "frame":
        labels = load_frame_labels(path)
        joined = join_frames(labels, split, stores[0], tolerance)
        return Truth(
            path=labels.path,
            sha256=labels.sha256,
            ids=joined.ids,
            store_ids=(joined.store_ids,),
            values=joined.values,
            groups=joined.video,
            subjects=None,
            missing=joined.missing,
            notes=[*labels.notes, *joined.notes],
            offsets=joined.offsets,
        )
    return _of_videos(load_labels(path, run.targets, tuple(missing)), run, stores, split, tolerance)


def _of_videos(
    labels: Labels, run: Run, stores: Sequence[Store], split: SplitName, tolerance: float
) -> Truth:
    joined = join_all(labels.of_split(split), stores, tolerance=tolerance)
    if (np.ptp(joined.labels.values, axis=0) == 0).all():
        joined.labels.check_varied()
    notes = list(labels.notes)
    if joined.missing:
        first = ", ".join(joined.missing[:3])
        notes.append(
            f"{counted(len(joined.missing), 'label', 'has', 'have')} no usable video"
            f"{' in every store' if run.fused else ''}, not scored: {first}"
        )
    groups = subjects_of(joined.labels)
    return Truth(
        path=labels.path,
        sha256=labels.sha256,
        ids=joined.labels.ids,
        store_ids=joined.store_ids,
        values=joined.labels.values,
        groups=groups,
        subjects=None if groups is None else int(groups.max()) + 1,
        missing=tuple(joined.missing),
        notes=notes,
        of_videos=joined.labels,
    )


def subjects_of(labels: Labels) -> NDArray[np.int64] | None:
    """Give each video the number of its subject, where a label file names them."""
    if labels.subjects is None:
        return None
    return np.unique(labels.subjects, return_inverse=True)[1]
