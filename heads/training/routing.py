"""Adam with routing: blocks of the dense layer that no video reached stay exactly as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RoutedAdam(torch.optim.Optimizer):
    """Adam in which every block of a routed parameter is an optimiser of its own.

    [K] 3.2 routes the gradient: a position k that the mask removed in every video of a batch
    takes no part in that step. A zero gradient is not enough for this: plain Adam still moves
    such weights by their momentum, decays their moments, and counts the step for the bias
    correction. Here a block W_k that was not reached keeps its value, both moments and its step
    count bit for bit; the update of a reached block equals that of a separate
    `torch.optim.Adam` over this block alone. Videos start at position 0, so what a batch
    reaches is always a prefix of the blocks, and only this prefix is read or written.

    Parameters
    ----------
    plain : iterable of Parameter
        Updated at every step, by ordinary Adam.
    routed : iterable of Parameter
        First axis = blocks.
    lr, betas, eps
        As in `torch.optim.Adam`; the defaults are its own.
    """

    def __init__(
        self,
        plain: Iterable[nn.Parameter],
        routed: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(plain), "routed": False},
            {"params": list(routed), "routed": True},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, reach: int) -> None:  # type: ignore[override]
        """Update all plain parameters and the first `reach` blocks of the routed ones.

        Parameters
        ----------
        reach : int
            Blocks that at least one video of the batch reached: its longest length.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                # A plain parameter is a single block that every batch reaches.
                blocks = parameter if group["routed"] else parameter.unsqueeze(0)
                grad = parameter.grad if group["routed"] else parameter.grad.unsqueeze(0)
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(len(blocks), dtype=torch.float64)
                    state["exp_avg"] = torch.zeros_like(blocks)
                    state["exp_avg_sq"] = torch.zeros_like(blocks)
                update(
                    blocks[:reach],
                    grad[:reach],
                    state["step"][:reach],
                    state["exp_avg"][:reach],
                    state["exp_avg_sq"][:reach],
                    group,
                )


def update(
    value: Tensor,
    grad: Tensor,
    step: Tensor,
    mean: Tensor,
    square: Tensor,
    group: dict[str, Any],
) -> None:
    """One Adam step on blocks that each have a count of their own, in place."""
    beta1, beta2 = group["betas"]
    step += 1
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    # value -= lr / c1 * mean / (sqrt(square / c2) + eps), with c = 1 - beta ** step of each block
    scale = (1 - beta1**step) / group["lr"]
    shape = (-1,) + (1,) * (value.dim() - 1)
    root = (scale / (1 - beta2**step).sqrt()).to(value).view(shape)
    floor = (scale * group["eps"]).to(value).view(shape)
    denominator = square.sqrt().mul_(root).add_(floor)
    value.addcdiv_(mean, denominator, value=-1)
