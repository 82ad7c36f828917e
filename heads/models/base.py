"""What every head inherits, those of feie and those of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feie.features.errors import UsageError
from feie.heads.config import HeadConfig
from feie.heads.data.packing import Packing


class HeadModel(nn.Module):
    """The network of a head; a class that inherits has to give `score`, and may give the rest.

    A head of feie is made of its config and a seed; one of others as ``NAME(inputs=…, targets=…)``.
    It must keep all it learns in parameters. Weights that torch draws at random depend on the
    seed of the training.

    Attributes
    ----------
    config : HeadConfig
        Kind and shape; of a head of others set by feie.
    """

    config: HeadConfig

    def score(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Score a batch of videos.

        Parameters
        ----------
        frames : Tensor, shape (videos, steps, inputs)
            Standardised; zero past the end of each video.
        mask : Tensor of bool, shape (videos, steps)
            Which steps a video has; at least its first one.

        Returns
        -------
        Tensor, shape (videos, targets)
            Under Pearson's rho of any scale and shift, which are fitted afterwards. A video's row
            must not depend on the other videos of the batch.
        """
        raise NotImplementedError

    @property
    def routed(self) -> list[nn.Parameter]:
        """Parameters whose first axis are blocks that only long videos reach; usually none."""
        return []

    def reach(self, packing: Packing) -> int:
        """How many of the blocks a batch reaches."""
        return 1

    def start(self, longest: int, label_mean: Tensor | None) -> None:
        """Prepare the weights for training.

        Parameters
        ----------
        longest : int
            Frames of the longest training video.
        label_mean : Tensor, shape (targets,), or None
            Where the output may start; None under a loss that no shift of the output changes.
        """

    def penalty(self) -> Tensor | None:
        """Give the part of the loss that depends on the weights alone, if there is one."""
        return None

    def forward(self, frames: Tensor, packing: Packing) -> Tensor:
        """Score packed videos.

        Parameters
        ----------
        frames : Tensor, shape (rows, inputs)
            Frames packed as `packing` says. Of a head of frames each frame is a video of its own.
        packing : Packing

        Returns
        -------
        Tensor, shape (batch, targets)
            In the order of ``packing.lengths``.
        """
        shape = packing.steps, packing.sizes[0]
        places = packing.padded.to(frames.device)
        padded = frames.new_zeros(shape[0] * shape[1], frames.shape[1])
        mask = torch.zeros(len(padded), dtype=torch.bool, device=frames.device)
        padded = padded.index_copy(0, places, frames).view(*shape, -1).transpose(0, 1)
        mask = mask.index_fill(0, places, True).view(shape).t()
        scores = self.score(padded, mask)
        if not isinstance(scores, Tensor):
            raise UsageError(
                f"{type(self).__name__}: `score` must return a tensor, not {type(scores).__name__}"
            )
        return packing.restore(scores)

    def smooth(
        self, scores: NDArray[np.float64], offsets: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Do what a head of frames does over time, after its scores; nothing by default.

        Parameters
        ----------
        scores : ndarray, shape (rows, targets)
        offsets : ndarray, shape (videos + 1,)
            Rows of video i are ``offsets[i]:offsets[i + 1]``.
        """
        return scores


def parameter_of(values: np.ndarray[Any, np.dtype[np.float64]]) -> nn.Parameter:
    """Make a parameter of what NumPy drew."""
    return nn.Parameter(torch.from_numpy(values).to(torch.get_default_dtype()))


def glorot(rng: np.random.Generator, rows: int, columns: int, *, fan_out: int) -> nn.Parameter:
    """Draw a matrix, uniform with variance 2 / (columns + fan_out)."""
    bound = (6.0 / (columns + fan_out)) ** 0.5
    return parameter_of(rng.uniform(-bound, bound, (rows, columns)))
