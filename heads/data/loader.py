"""Batches of a `VideoDataset`: videos padded to the longest of them, in an order that repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from feie.features.errors import UsageError
from feie.heads.data.dataset import VideoDataset, VideoItem


@dataclass(frozen=True)
class VideoBatch:
    """Several videos, the longest first.

    Attributes
    ----------
    ids : tuple of str
    frames : Tensor of float32, shape (videos, longest, columns)
        Zeros after the last frame of a video.
    lengths : Tensor of int64, shape (videos,)
        Falling, as `torch.nn.utils.rnn.pack_padded_sequence` likes them best.
    mask : Tensor of bool, shape (videos, longest)
        True where there is a frame.
    labels : Tensor of float32, shape (videos, targets), or None
    """

    ids: tuple[str, ...]
    frames: Tensor
    lengths: Tensor
    mask: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> Tensor:
        """The same without padding, shape (frames of all videos, columns); see `offsets`."""
        return self.frames[self.mask]

    @property
    def offsets(self) -> Tensor:
        """Rows of video i are ``rows[offsets[i]:offsets[i + 1]]``; shape (videos + 1,)."""
        return torch.cat([self.lengths.new_zeros(1), self.lengths.cumsum(0)])

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> VideoBatch:
        """Give the same on a device."""
        return self._each(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> VideoBatch:
        """Give the same in memory that a GPU copies from fastest; a `DataLoader` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> VideoBatch:
        labels = None if self.labels is None else change(self.labels)
        tensors = change(self.frames), change(self.lengths), change(self.mask)
        return VideoBatch(self.ids, *tensors, labels)


def collate(items: Sequence[VideoItem]) -> VideoBatch:
    """Put videos into one batch, the longest first; those of one length keep their order."""
    ordered = sorted(items, key=lambda item: -len(item.frames))
    lengths = torch.tensor([len(item.frames) for item in ordered])
    frames = pad_sequence([item.frames for item in ordered], batch_first=True)
    labels = [item.labels for item in ordered if item.labels is not None]
    return VideoBatch(
        ids=tuple(item.id for item in ordered),
        frames=frames,
        lengths=lengths,
        mask=torch.arange(frames.shape[1]) < lengths[:, None],
        labels=torch.stack(labels) if labels else None,
    )


class Batches(Sampler[list[int]]):
    """Which videos stand in which batch, anew in every epoch and the same for the same seed.

    Parameters
    ----------
    lengths : ndarray of int64, shape (videos,)
    batch_size : int
    shuffle : bool
        Otherwise in the order of the data set, or of length, in every epoch.
    seed : int
    by_length : bool
        Videos of like length share a batch.
    drop_last : bool
        Leave the last batch out where it is not full.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        by_length: bool,
        drop_last: bool,
    ) -> None:
        self._lengths = lengths
        self._size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._by_length = by_length
        self._drop_last = drop_last
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, 0 being the first; by itself it counts on."""
        self._epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self._lengths), self._size)
        return full + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        self._epoch += 1
        count = len(self._lengths)
        order = rng.permutation(count) if self._shuffle else np.arange(count)
        if self._by_length:
            order = order[np.argsort(self._lengths[order], kind="stable")]
        batches = [order[i : i + self._size] for i in range(0, count, self._size)][: len(self)]
        if self._by_length and self._shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        for batch in batches:
            yield batch.tolist()


def loader(
    dataset: VideoDataset,
    batch_size: int = 32,
    *,
    shuffle: bool = True,
    seed: int = 0,
    by_length: bool = False,
    drop_last: bool = False,
    workers: int = 0,
    **options: Any,
) -> DataLoader[VideoItem]:
    """Give batches of a data set, ready for training.

    Parameters
    ----------
    dataset : VideoDataset
    batch_size : int
        Videos a batch.
    shuffle : bool
        Deal the videos out anew in every epoch.
    seed : int
        The same seed gives the same batches in the same order, whatever the number of workers.
    by_length : bool
        Let videos of like length share a batch: fewer zeros, but a loss over the batch, such as
        Pearson's rho, then no longer sees what differs between short and long videos.
    drop_last : bool
        Leave the last batch out where it is not full.
    workers : int
        Processes that read ahead: of use where the data set is not in memory.
    **options
        Others of `torch.utils.data.DataLoader`, e.g. ``pin_memory=True`` or
        ``multiprocessing_context="spawn"``.

    Returns
    -------
    DataLoader
        Of `VideoBatch`. ``loader.batch_sampler.set_epoch(n)`` goes to a certain epoch.

    Raises
    ------
    UsageError
        A batch size below 1.

    Examples
    --------
    >>> import feie
    >>> train = feie.VideoDataset("features.zarr", "labels.csv", split="train")
    >>> for batch in feie.loader(train, batch_size=3, shuffle=False):
    ...     print(batch.ids, tuple(batch.frames.shape), batch.lengths.tolist())
    ('face-003', 'face-001', 'face-002') (3, 44, 26) [44, 39, 32]
    ('face-004',) (1, 48, 26) [48]
    """
    if batch_size < 1:
        raise UsageError(f"a batch holds at least one video (got batch_size={batch_size})")
    batches = Batches(
        dataset.lengths,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        by_length=by_length,
        drop_last=drop_last,
    )
    return DataLoader(
        dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers, **options
    )
