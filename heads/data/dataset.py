"""The videos of a store as a torch data set: one video an item, each as long as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import default_collate_fn_map

from feie.features.errors import StoreError, UsageError
from feie.features.store.reader import RaggedRows, Store, open_store
from feie.heads.config import InputConfig, LongPolicy, MissingPolicy, Space, SplitName
from feie.heads.data.inputs import (
    SD_FLOOR,
    Standardiser,
    pick_columns,
    prepare,
)
from feie.heads.data.joining import join
from feie.heads.data.labels import Labels, load_labels
from feie.heads.data.ragged import Ragged

_ANY_LENGTH = 100_000


@dataclass(frozen=True)
class VideoItem:
    """One video of a `VideoDataset`.

    Attributes
    ----------
    id : str
        Its id in the store.
    frames : Tensor of float32, shape (frames, columns)
    labels : Tensor of float32, shape (targets,), or None
        NaN where the label file is blank; None without one.
    """

    id: str
    frames: Tensor
    labels: Tensor | None


def _refuse_default(items: Sequence[VideoItem], *, collate_fn_map: Any = None) -> None:
    """Stand in for torch's own way to make a batch, which knows no videos of unlike length."""
    raise UsageError(
        "videos are of unlike length: give the DataLoader collate_fn=feie.collate, or use "
        "feie.loader"
    )


default_collate_fn_map[VideoItem] = _refuse_default


class VideoDataset(Dataset[VideoItem]):
    """Videos of a store, with their labels where a table of them is given.

    What `feie train-head` trains on is ``VideoDataset(store, labels, split="train", t=480,
    standardise=True)``. Videos that show no face in any frame are left out, see `left_out`. A data
    set may be handed to worker processes, forked or spawned.

    Parameters
    ----------
    store : Store, str or Path
        An open store, or where one lies.
    labels : Labels, str or Path, optional
        A label table, see `feie.heads.data.labels.load_labels`; without one, every video of the
        store.
    split : {"train", "val", "test"}, optional
        Of the label table; all rows by default.
    targets : sequence of str
        Columns of the label table; its numeric ones by default.
    subset : sequence of str
        Groups of columns, e.g. ``("va", "au")``; all by default.
    embedding : bool
        Give the extractor's embeddings in place of the columns.
    stride : int
        Every stride-th frame is given.
    t : int, optional
        Most frames of a video; see `long`. As many as there are by default.
    missing : {"drop", "hold", "zero"}
        Frames without a face are left out, show the last face, or are zeros: after
        standardisation, the training mean.
    long : {"uniform", "head"}
        Videos of more than `t` frames are resampled, or cut.
    space : {"prob", "logit"}
        Columns as stored, or before the extractor's output functions; see
        `feie.heads.data.inputs.to_logits`.
    standardise : bool or Standardiser
        Bring every column to mean 0 and standard deviation 1: those of these videos, or as
        measured on others, ``VideoDataset(…, split="val", standardise=train.standardiser)``.
    in_memory : bool
        Read all frames now, which takes seconds; else each when it is asked for, for stores that
        are larger than the memory. Measuring means and deviations needs them in memory.
    unmatched : float
        Largest share of labels that may lack a video.

    Attributes
    ----------
    store : Store
    columns : tuple of str
        Names of the columns of ``frames``; of embeddings, numbers.
    targets : tuple of str
        Names of the labels; none without a table.
    ids : tuple of str
        Ids of the videos, in order.
    labels : Tensor of float32, shape (videos, targets), or None
    standardiser : Standardiser or None
    left_out : dict of str to str
        Videos, by id, that are not given, and why.

    Raises
    ------
    FeieError
        The store, the labels or the options cannot be used, alone or together.

    Examples
    --------
    >>> import feie
    >>> train = feie.VideoDataset("features.zarr", "labels.csv", split="train", subset=["va", "au"])
    >>> len(train), train.targets, len(train.columns)
    (4, ('Amusement', 'Fear'), 19)
    >>> item = train[0]
    >>> item.id, item.frames.shape, item.labels
    ('face-001', torch.Size([39, 19]), tensor([0., 0.]))
    """

    def __init__(
        self,
        store: Store | str | Path,
        labels: Labels | str | Path | None = None,
        *,
        split: SplitName | None = None,
        targets: Sequence[str] = (),
        subset: Sequence[str] = (),
        embedding: bool = False,
        stride: int = 1,
        t: int | None = None,
        missing: MissingPolicy = "drop",
        long: LongPolicy = "uniform",
        space: Space = "prob",
        standardise: bool | Standardiser = False,
        in_memory: bool = True,
        unmatched: float = 0.05,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        if embedding and (subset or space != "prob"):
            raise UsageError("embeddings have neither a subset of groups nor a space")
        if standardise is True and not in_memory:
            raise UsageError(
                "standardise=True measures all frames, which in_memory=False leaves in the store: "
                "give the standardiser of another data set, or read into memory"
            )
        self._embedding = embedding
        if embedding and not self.store.has_embedding:
            raise UsageError(
                f"{self.store.path} keeps no embeddings; `feie extract --embedding` does"
            )
        groups: dict[str, tuple[int, int]] = {}
        if embedding:
            width = self.store.array("embedding").shape[1]
            columns = tuple(str(i) for i in range(width))
        else:
            columns, groups = pick_columns(self.store.schema, subset)
        self.columns: tuple[str, ...] = columns
        self._config = InputConfig(
            columns=columns,
            groups=groups,
            t=_ANY_LENGTH if t is None else t,
            stride=stride,
            missing=missing,
            long=long,
            space=space,
        )
        self.left_out: dict[str, str] = {}
        ids, table = self._wanted(labels, split, targets, unmatched)
        self.targets: tuple[str, ...] = () if table is None else table.targets
        faces = [self.store[video].faces > 0 for video in ids]
        kept = np.flatnonzero(faces)
        for video, shown in zip(ids, faces, strict=True):
            if not shown:
                self.left_out[video] = "no frame shows a face"
        self.ids = tuple(ids[i] for i in kept.tolist())
        if not self.ids:
            raise StoreError(f"{self.store.path} holds no video with a face that is asked for here")
        self.labels = None if table is None else torch.from_numpy(table.values[kept]).float()
        self.standardiser = standardise if isinstance(standardise, Standardiser) else None
        self._frames: Tensor | None = None
        self._offsets: NDArray[np.int64] | None = None
        if in_memory:
            self._load(measure=standardise is True)

    def _wanted(
        self,
        labels: Labels | str | Path | None,
        split: SplitName | None,
        targets: Sequence[str],
        unmatched: float,
    ) -> tuple[Sequence[str], Labels | None]:
        if labels is None:
            if split is not None or targets:
                raise UsageError("a split and targets are of a label table: give labels, too")
            return self.store.ids, None
        table = labels if isinstance(labels, Labels) else load_labels(labels, targets)
        if split is not None:
            table = table.of_split(split)
        joined = join(
            table,
            self.store.ids,
            self.store.path,
            failed=self.store.failures,
            tolerance=unmatched,
        )
        self.left_out.update(dict.fromkeys(joined.missing, "no usable video in the store"))
        return joined.store_ids, joined.labels

    def _load(self, measure: bool) -> None:
        if self._embedding:
            parts = [self._prepared(video) for video in self.ids]
            lengths = [len(part.values) for part in parts]
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            frames = Ragged(np.concatenate([part.values for part in parts]), offsets)
        else:
            places = [self.store.columns.index(c) for c in self.columns]
            frames = prepare(self.store.read(self.ids, places), self._config).frames
        if measure:
            self.standardiser = Standardiser.fit(frames, floor=SD_FLOOR[self._config.space])
        frames = self._finished(frames)
        self._frames, self._offsets = torch.from_numpy(frames.values), frames.offsets

    def _prepared(self, video_id: str) -> Ragged:
        video = self.store[video_id]
        if self._embedding:
            values = video.embedding.astype(np.float32)
        else:
            values = video.affect[:, [self.store.columns.index(c) for c in self.columns]]
        offsets = np.array([0, len(video)], np.int64)
        return prepare(RaggedRows(values, video.valid, offsets, [video_id]), self._config).frames

    def _finished(self, frames: Ragged) -> Ragged:
        if self.standardiser is not None:
            return self.standardiser.apply(frames, reuse=True)
        if self._config.missing == "zero":
            np.nan_to_num(frames.values, copy=False)
        return frames

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, video: int) -> VideoItem:
        if not -len(self) <= video < len(self):
            raise IndexError(f"video {video} of {len(self)}")
        video %= len(self)
        if self._frames is None or self._offsets is None:
            values = self._finished(self._prepared(self.ids[video])).values
            frames = torch.from_numpy(values)
        else:
            frames = self._frames[self._offsets[video] : self._offsets[video + 1]]
        labels = None if self.labels is None else self.labels[video]
        return VideoItem(self.ids[video], frames, labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each item, shape (videos,); of what is not in memory, those in the store."""
        if self._offsets is not None:
            return np.diff(self._offsets)
        return np.array([len(self.store[video]) for video in self.ids], np.int64)
