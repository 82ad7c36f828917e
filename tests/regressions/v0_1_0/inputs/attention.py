"""The plugin head of docs/extending.md of 0.1.0, made smaller."""

import torch
from torch import Tensor, nn

from feie.heads.plugin import HeadModel


class Attention(HeadModel):
    def __init__(self, inputs: int, targets: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(inputs, 1)
        self.read = nn.Sequential(
            nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, targets)
        )

    def score(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Score frames (videos, steps, inputs); mask (videos, steps) is true where there are any."""
        share = self.weigh(frames)[..., 0].masked_fill(~mask, -torch.inf).softmax(dim=1)
        return self.read((share[..., None] * frames).sum(dim=1))
