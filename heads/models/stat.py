"""STAT heads of [S]: four statistics of every column over a video, and a small classifier."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from feie.heads.config import StatConfig
from feie.heads.data.packing import Packing
from feie.heads.models.base import HeadModel, glorot

STATISTICS = ("mean", "sd", "min", "max")


def statistics(frames: Tensor, packing: Packing) -> Tensor:
    """Mean, population sd, minimum and maximum of each column over each video.

    Parameters
    ----------
    frames : Tensor, shape (rows, columns)
        Packed as `packing` says.

    Returns
    -------
    Tensor, shape (batch, 4 * columns)
        In sorted order, one statistic after the other.
    """
    owner = torch.from_numpy(packing.places[1]).to(frames.device)
    count = torch.from_numpy(packing.lengths[packing.order]).to(frames)[:, None]
    shape = len(count), frames.shape[1]
    mean = frames.new_zeros(shape).index_add_(0, owner, frames) / count
    square = frames.new_zeros(shape).index_add_(0, owner, (frames - mean[owner]).square())
    index = owner[:, None].expand_as(frames)
    low, high = (
        frames.new_zeros(shape).scatter_reduce_(0, index, frames, how, include_self=False)
        for how in ("amin", "amax")
    )
    return torch.cat([mean, (square / count).sqrt(), low, high], dim=1)


class Stat(HeadModel):
    """``y = sigmoid(V s + c)`` of the statistics s, or with a hidden layer in between.

    Weights are Glorot uniform, drawn by NumPy from the seed; biases are zero.

    Parameters
    ----------
    config : StatConfig
    seed : int
        Of the initial weights.
    """

    def __init__(self, config: StatConfig, seed: int = 0) -> None:
        super().__init__()
        self.config: StatConfig = config
        rng = np.random.default_rng([seed, 0x53544154])
        inputs = len(STATISTICS) * config.inputs
        if config.hidden:
            self.hidden_weight = glorot(rng, config.hidden, inputs, fan_out=config.hidden)
            self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))
        width = config.hidden or inputs
        self.output_weight = glorot(rng, config.targets, width, fan_out=config.targets)
        self.output_bias = nn.Parameter(torch.zeros(config.targets))

    def start(self, longest: int, label_mean: Tensor | None) -> None:
        """Begin at the mean label, where the loss fixes the level."""
        if label_mean is not None:
            with torch.no_grad():
                self.output_bias.copy_(torch.logit(label_mean.clamp(0.02, 0.98)))

    def penalty(self) -> Tensor:
        """Give the part of the loss that depends on the weights alone."""
        total = self.output_weight.square().sum()
        if self.config.hidden:
            total = total + self.hidden_weight.square().sum()
        return self.config.l2 * total

    def forward(self, frames: Tensor, packing: Packing) -> Tensor:
        """Score a batch of videos; shapes as in `feie.heads.models.mrnn.MRNN.forward`."""
        z = statistics(frames, packing)
        if self.config.hidden:
            z = torch.relu(z @ self.hidden_weight.t() + self.hidden_bias)
        return packing.restore(torch.sigmoid(z @ self.output_weight.t() + self.output_bias))
