"""Losses over a batch of videos, each finite with finite gradients on any batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from feie.heads.config import LossName

EPSILON = 1e-8


def _moments(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shift = prediction.mean(0) - target.mean(0)
    p = prediction - prediction.mean(0)
    y = target - target.mean(0)
    return shift, (p * y).mean(0), (p * p).mean(0), (y * y).mean(0)


def _mean(figures: Tensor, weights: Tensor | None) -> Tensor:
    return figures.mean() if weights is None else (figures * weights).sum() / weights.sum()


def pearson_loss(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - mean over targets of Pearson's rho over the batch ([K] Eq. 4).

    Parameters
    ----------
    prediction, target : Tensor, shape (batch, targets)
    weights : Tensor, shape (targets,), optional
        Of the targets in the mean ([S]); equal by default.

    Returns
    -------
    Tensor, scalar in [0, 2]

    Notes
    -----
    The epsilon stands inside the square roots: a constant column, or a batch of one video, has
    rho = 0 and a finite gradient there (outside them it would be NaN).
    """
    _, cov, var_p, var_y = _moments(prediction, target)
    rho = cov / ((var_p + EPSILON).sqrt() * (var_y + EPSILON).sqrt())
    return 1 - _mean(rho, weights)


def ccc_loss(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - mean over targets of the concordance correlation over the batch; shapes as above."""
    shift, cov, var_p, var_y = _moments(prediction, target)
    return 1 - _mean(2 * cov / (var_p + var_y + shift * shift + EPSILON), weights)


def mse_loss(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error over videos and targets; shapes as above."""
    return _mean((prediction - target).square().mean(0), weights)


LOSSES: dict[LossName, Callable[..., Tensor]] = {
    "pearson": pearson_loss,
    "ccc": ccc_loss,
    "mse": mse_loss,
}
