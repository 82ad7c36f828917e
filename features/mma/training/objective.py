"""What a network is trained to do: the losses for which it has outputs, and their sum."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feie.features.mma.config import LossConfig, MmaConfig
from feie.features.mma.network import split_raw
from feie.features.mma.training.losses import (
    action_unit_loss,
    ccc_loss,
    expression_loss,
    matching_loss,
)
from feie.features.mma.training.relations import relation_matrix
from feie.features.mma.training.sampling import Batch, Source
from feie.features.schema import Schema

_NEEDS = {"ccc": {"va"}, "cce": {"expr"}, "bce": {"au"}, "dm": {"expr", "au"}}
"""Each loss, as configurations call it, and the groups that it takes."""


def rarity_weights(config: MmaConfig, sources: Mapping[str, Source]) -> NDArray[np.float32]:
    """Class weights of [S]: max_c N_c / N_y from the training labels.

    N_c is how often expression c is drawn, so that proportions of sources and their balance
    count; with one source that is drawn as it comes it is the number of its labels.

    Parameters
    ----------
    config : MmaConfig
        Proportions.
    sources : dict of str to Source
        The loaded sources.

    Returns
    -------
    ndarray (k,) float32
        At least 1; 0 for an expression that never occurs.
    """
    classes = len(config.network.outputs.group("expr"))
    drawn = np.zeros(classes)
    for name, source in sources.items():
        expression = source.data.expression
        labelled = expression >= 0
        share = np.diff(source.cumulative, prepend=0.0)[labelled]
        counts = np.bincount(expression[labelled], share, minlength=classes)
        drawn += config.sources[name].proportion * counts
    weights = np.zeros(classes, dtype=np.float32)
    np.divide(drawn.max(), drawn, out=weights, where=drawn > 0, casting="same_kind")
    return weights


class Objective(nn.Module):
    """The losses of a batch by task, and their weighted sum.

    The expression probabilities in L_DM are constants (ours): a gradient through them would
    reward the network for calling every face neutral, which entails no action unit.

    Parameters
    ----------
    config : LossConfig
        Weights and forms.
    schema : Schema
        Outputs of the network; a loss whose groups it lacks does not exist for it.
    """

    def __init__(self, config: LossConfig, schema: Schema) -> None:
        super().__init__()
        self.tasks = [name for name, needs in _NEEDS.items() if needs <= schema.groups.keys()]
        self._config = config
        self._schema = schema
        self.relations: Tensor
        self.register_buffer("relations", torch.from_numpy(relation_matrix(schema.group("expr"))))
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", None)

    def weigh(self, sources: Mapping[str, Source], config: MmaConfig) -> None:
        """Take class weights from the labels, where the configuration asks for them."""
        if config.losses.class_weights == "rarity" and "cce" in self.tasks:
            weights = torch.from_numpy(rarity_weights(config, sources))
            self.class_weights = weights.to(self.relations.device)

    def forward(self, raw: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute ``loss`` and what it sums, each task's loss without its weight.

        Parameters
        ----------
        raw : Tensor (b, columns)
            Raw outputs.
        batch : Batch
            Labels.
        """
        parts = split_raw(raw.float(), self._schema)
        losses = {task: getattr(self, f"_{task}")(parts, batch) for task in self.tasks}
        weighted = [getattr(self._config, task) * loss for task, loss in losses.items()]
        return {"loss": torch.stack(weighted).sum()} | losses

    def _ccc(self, parts: dict[str, Tensor], batch: Batch) -> Tensor:
        return ccc_loss(parts["va"].tanh(), batch.valence_arousal)

    def _cce(self, parts: dict[str, Tensor], batch: Batch) -> Tensor:
        if self._config.class_weights == "rarity" and self.class_weights is None:
            raise RuntimeError("class weights come from the labels: call weigh first")
        return expression_loss(
            parts["expr"], batch.expression, self._config.smoothing, self.class_weights
        )

    def _bce(self, parts: dict[str, Tensor], batch: Batch) -> Tensor:
        return action_unit_loss(parts["au"], batch.units, self._config.positive)

    def _dm(self, parts: dict[str, Tensor], batch: Batch) -> Tensor:
        return matching_loss(
            parts["expr"].detach().softmax(dim=1),
            parts["au"],
            self.relations,
            self._config.matching,
            counted=None if self._config.match_annotated else torch.isnan(batch.units),
        )
