"""The four losses of the MMA, each masked to the samples that carry the annotation.

A batch in which nobody carries an annotation gives exactly zero, with zero gradients. Masks weigh
and do not select: shapes that follow from the labels would make a GPU wait for them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_EPSILON = 1e-8


def ccc_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L_CCC = 1 - (CCC_valence + CCC_arousal) / 2 over the samples that carry VA.

    CCC = 2 cov / (var + var + (difference of means)^2), with population moments; two constant
    vectors have 0, never NaN.

    Parameters
    ----------
    prediction : Tensor (b, 2)
        Valence and arousal in [-1, 1].
    target : Tensor (b, 2)
        Annotations; NaN where unknown. A sample counts when both are known.

    Returns
    -------
    Tensor ()
        Zero where fewer than two samples carry VA (no correlation exists).
    """
    known = ~torch.isnan(target).any(dim=1, keepdim=True)
    count = known.sum()
    weight = known.to(prediction.dtype) / count.clamp(min=1)
    target = torch.where(known, target, 0.0)
    mean_p, mean_t = ((weight * values).sum(dim=0) for values in (prediction, target))
    dp, dt = prediction - mean_p, target - mean_t
    spread = (weight * (dp.square() + dt.square())).sum(dim=0) + (mean_p - mean_t).square()
    ccc = 2 * (weight * dp * dt).sum(dim=0) / (spread + _EPSILON)
    return torch.where(count >= 2, 1 - ccc.mean(), 0.0)


def expression_loss(
    logits: Tensor,
    target: Tensor,
    smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """L_CCE: categorical cross-entropy over the samples that carry an expression.

    Parameters
    ----------
    logits : Tensor (b, k)
        Expression outputs before the softmax.
    target : Tensor (b, k)
        Distribution over the expressions, sharp or soft; a row of NaN where unknown.
    smoothing : float
        Share of the target's mass spread evenly over the classes.
    class_weights : Tensor (k,), optional
        Factor of each class's part, as [S] has it (arXiv 2403.11590): the mean is over samples
        and not over their weights, so that weights raise the loss. See
        `feie.features.mma.training.objective.rarity_weights`.
    """
    known = ~torch.isnan(target).any(dim=1)
    losses = F.cross_entropy(
        logits,
        torch.where(known[:, None], target, 0.0).to(logits.dtype),
        weight=class_weights,
        label_smoothing=smoothing,
        reduction="none",
    )
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def action_unit_loss(logits: Tensor, target: Tensor, positive: float = 1.0) -> Tensor:
    """L_BCE: binary cross-entropy over the annotated action units only.

    An action unit that a data set does not annotate is unknown, not absent.

    -(w a log p + (1 - a) log(1 - p)), averaged over what is annotated; w = 1 is the paper's.

    Parameters
    ----------
    logits : Tensor (b, 17)
        Action-unit outputs before the logistic function.
    target : Tensor (b, 17)
        Activations in [0, 1] (soft targets allowed); NaN where unknown.
    positive : float
        Weight w of the positive part, above 0: more than 1 for action units that are rare.
    """
    known = ~torch.isnan(target)
    target = torch.where(known, target, 0.0)
    losses = -target * positive * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)


def matching_loss(
    expression: Tensor,
    unit_logits: Tensor,
    relations: Tensor,
    form: Literal["nll", "bce"] = "nll",
    counted: Tensor | None = None,
) -> Tensor:
    """L_DM, distribution matching between expressions and action units (Eq. 1-2).

    r'_AU = sum over expressions of r_expr * r_AU|expr. Form ``nll`` is the paper's
    -sum_AU r'_AU log r_AU; ``bce`` adds -(1 - r'_AU) log(1 - r_AU), so that action units which
    the expression does not entail are pushed down too. Summed over action units, averaged over
    the batch. Every sample counts, labelled or not.

    Parameters
    ----------
    expression : Tensor (b, 7)
        Expression probabilities r_expr.
    unit_logits : Tensor (b, 17)
        Action-unit outputs before the logistic function.
    relations : Tensor (7, 17)
        r_AU|expr, see `feie.features.mma.training.relations.relation_matrix`.
    form : {"nll", "bce"}
        The paper's form, or the full soft-target form.
    counted : Tensor (b, 17) bool, optional
        Action units that count; all where not given, as in the paper.
    """
    if expression.shape[0] == 0:
        return unit_logits.sum() * 0.0
    entailed = entailed_units(expression, relations)
    loss = -entailed * F.logsigmoid(unit_logits)
    if form == "bce":
        loss = loss - (1 - entailed) * F.logsigmoid(-unit_logits)
    if counted is not None:
        loss = torch.where(counted, loss, 0.0)
    return loss.sum(dim=1).mean()


def entailed_units(expression: Tensor, relations: Tensor) -> Tensor:
    """Eq. 1: r'_AU (b, 17) from expression probabilities (b, 7) and relations (7, 17)."""
    return (expression @ relations).clamp(0.0, 1.0)
