"""Frame-level valence and arousal of [S]: linear, tanh, and a box filter over time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feie.heads.config import HALF_WINDOW, FrameVaConfig
from feie.heads.data.packing import Packing
from feie.heads.models.base import HeadModel, glorot


def box_filter(series: NDArray[np.float64], half: int = HALF_WINDOW) -> NDArray[np.float64]:
    """Mean over the frames i - half to i + half that there are.

    Parameters
    ----------
    series : ndarray, shape (frames, columns)
        One video.
    half : int
    """
    n = len(series)
    sums = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series, axis=0)])
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    out: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)[:, None]
    return out


class FrameVA(HeadModel):
    """``tanh(W x + b)`` of every frame, then `box_filter` over each video.

    W is Glorot uniform, drawn by NumPy from the seed; b is zero.

    Parameters
    ----------
    config : FrameVaConfig
    seed : int
        Of the initial weights.
    """

    def __init__(self, config: FrameVaConfig, seed: int = 0) -> None:
        super().__init__()
        self.config: FrameVaConfig = config
        rng, targets = np.random.default_rng([seed, 0x5641]), config.targets
        self.weight = glorot(rng, targets, config.inputs, fan_out=targets)
        self.bias = nn.Parameter(torch.zeros(targets))

    def forward(self, frames: Tensor, packing: Packing) -> Tensor:
        """Score frames, each a video of its own; shapes as in `HeadModel.forward`."""
        return torch.tanh(frames @ self.weight.t() + self.bias)

    def smooth(
        self, scores: NDArray[np.float64], offsets: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Filter each video; shapes as in `HeadModel.smooth`."""
        out = scores.copy()
        for start, stop in pairwise(offsets):
            out[start:stop] = box_filter(scores[start:stop], self.config.box)
        return out
