"""MRNN: a masked recurrent network over the frames of a video ([K] 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from feie.heads.config import MRNNConfig
from feie.heads.data.packing import Packing
from feie.heads.models.base import HeadModel, glorot, parameter_of
from feie.heads.models.recurrence import recur
from feie.heads.models.steps import add_mm, mm


class _MaskedDense(torch.autograd.Function):
    """Steps that the same videos reach form a segment: one product over (videos, steps * width).

    Blocks that no video reaches are not read, and their gradient is zero.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, packing: Packing) -> Tensor:
        z = hidden.new_zeros(*hidden.shape[:-2], packing.sizes[0], weight.shape[-1])
        for segment in packing.segments:
            part = z.narrow(-2, 0, segment[2])
            add_mm(part, _flat(hidden, segment), _blocks(weight, segment), out=part)
        ctx.packing = packing
        ctx.save_for_backward(hidden, weight)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing: Packing = ctx.packing
        hidden, weight = ctx.saved_tensors
        grad = grad.contiguous()
        d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)
        d_weight.narrow(-3, packing.steps, weight.shape[-3] - packing.steps).zero_()
        for segment in packing.segments:
            part = grad.narrow(-2, 0, segment[2])
            mm(_flat(hidden, segment).mT, part, out=_blocks(d_weight, segment))
            back = mm(part, _blocks(weight, segment).mT)
            back = back.reshape(*back.shape[:-1], -1, weight.shape[-2])
            _steps(d_hidden, segment).copy_(back.transpose(-3, -2))
        return d_hidden, d_weight, None


def _steps(hidden: Tensor, segment: tuple[int, int, int, int]) -> Tensor:
    """Rows of a segment, shape (steps, videos, width)."""
    a, b, size, row = segment
    rows = hidden.narrow(-2, row, size * (b - a))
    return rows.view(*rows.shape[:-2], b - a, size, rows.shape[-1])


def _flat(hidden: Tensor, segment: tuple[int, int, int, int]) -> Tensor:
    """Concatenated outputs of a segment's steps, shape (videos, steps * width)."""
    return _steps(hidden, segment).transpose(-3, -2).flatten(-2)


def _blocks(weight: Tensor, segment: tuple[int, int, int, int]) -> Tensor:
    """Blocks W_k of a segment's steps, shape (steps * width, dense)."""
    a, b, *_ = segment
    return weight.narrow(-3, a, b - a).flatten(-3, -2)


def masked_dense(hidden: Tensor, weight: Tensor, packing: Packing) -> Tensor:
    """Sum h_k W_k over k < length, and read nothing of what the mask removes.

    Parameters
    ----------
    hidden : Tensor, shape (rows, width)
        Packed; stacked runs have a first axis more, here and in the weights.
    weight : Tensor, shape (t, width, dense)
    packing : Packing

    Returns
    -------
    Tensor, shape (batch, dense)
        In sorted order.
    """
    z: Tensor = _MaskedDense.apply(hidden, weight, packing)  # type: ignore[no-untyped-call]
    return z


class MRNN(HeadModel):
    """Recurrence over frames, mask, dense layer over all t positions, linear output.

    ``z = sum_{k < length} W_k h_k + b``, ``y = V relu(z) + c``: the concatenated outputs of all t
    positions, zeroed from the length on, times one dense matrix, whose rows are the t blocks W_k.

    Initial weights (ours; [K] does not say): recurrent input matrices Glorot uniform, recurrent
    matrices orthogonal for each gate, recurrent biases zero (LSTM forget gate one), W_k uniform
    with variance 1 / (480 width) whatever t is, V Glorot uniform, b and c zero. They are
    drawn by NumPy from the seed, W last and block by block: a larger t only appends blocks.

    Parameters
    ----------
    config : MRNNConfig
    seed : int
        Of the initial weights.
    """

    def __init__(self, config: MRNNConfig, seed: int = 0) -> None:
        super().__init__()
        self.config: MRNNConfig = config
        gates = 3 if config.cell == "gru" else 4
        rng = np.random.default_rng([seed, 0x4D524E4E])
        self.recurrent = nn.ModuleList()
        for layer in range(config.layers):
            inputs = config.inputs if layer == 0 else config.width
            part = nn.ParameterDict(
                {
                    "w_input": glorot(rng, gates * config.width, inputs, fan_out=config.width),
                    "w_hidden": _orthogonal(rng, gates, config.width),
                    "b_input": nn.Parameter(torch.zeros(gates * config.width)),
                    "b_hidden": nn.Parameter(torch.zeros(gates * config.width)),
                }
            )
            if config.cell == "lstm":
                with torch.no_grad():
                    part["b_input"][config.width : 2 * config.width] = 1.0
            self.recurrent.append(part)
        self.dense_bias = nn.Parameter(torch.zeros(config.dense))
        self.output_weight = glorot(rng, config.targets, config.dense, fan_out=config.targets)
        self.output_bias = nn.Parameter(torch.zeros(config.targets))
        bound = (3.0 / (480 * config.width)) ** 0.5
        self.dense_weight = parameter_of(
            rng.uniform(-bound, bound, (config.t, config.width, config.dense))
        )

    def hidden(self, frames: Tensor, packing: Packing) -> Tensor:
        """Run the recurrent layers; gives the last one's outputs, packed, shape (rows, width)."""
        h = frames
        for part in self.recurrent:
            assert isinstance(part, nn.ParameterDict)
            h = recur(
                self.config.cell,
                h,
                part["w_input"],
                part["w_hidden"],
                part["b_input"],
                part["b_hidden"],
                packing,
            )
        return h

    @property
    def routed(self) -> list[nn.Parameter]:
        """Parameters whose first axis are the t blocks."""
        return [self.dense_weight]

    def start(self, longest: int, label_mean: Tensor | None) -> None:
        """Prepare the weights for training.

        Parameters
        ----------
        longest : int
            Frames of the longest training video. With the mask, blocks past it can never learn;
            they are set to zero, so that a longer video is not scored through random weights.
        label_mean : Tensor, shape (targets,), or None
            Where the output starts; None under a loss that no shift of the output changes: its
            bias has no gradient then and is left alone.
        """
        with torch.no_grad():
            if self.config.mask:
                self.dense_weight[longest:] = 0
            if label_mean is not None:
                self.output_bias.copy_(label_mean)
        self.output_bias.requires_grad_(label_mean is not None)

    def reach(self, packing: Packing) -> int:
        """How many blocks W_k a batch reaches: the longest length, or all t without the mask."""
        return packing.steps if self.config.mask else self.config.t

    def forward(self, frames: Tensor, packing: Packing) -> Tensor:
        """Score a batch of videos.

        Parameters
        ----------
        frames : Tensor, shape (rows, inputs)
            Frames packed as `packing` says.
        packing : Packing
            Of at most t steps.

        Returns
        -------
        Tensor, shape (batch, targets)
            In the order of ``packing.lengths``.

        Raises
        ------
        ValueError
            A video longer than t.
        """
        if packing.steps > self.config.t:
            raise ValueError(f"a video of {packing.steps} frames is longer than t={self.config.t}")
        if not self.config.mask:
            # All videos end together then, so their rows stay in this packing's order.
            frames, whole = _pad(frames, packing, self.config.t)
            return packing.restore(self._score(frames, whole))
        return packing.restore(self._score(frames, packing))

    def _score(self, frames: Tensor, packing: Packing) -> Tensor:
        """Give intensities in sorted order, shape (batch, targets)."""
        z = masked_dense(self.hidden(frames, packing), self.dense_weight, packing)
        return torch.relu(z + self.dense_bias) @ self.output_weight.t() + self.output_bias


def _pad(frames: Tensor, packing: Packing, t: int) -> tuple[Tensor, Packing]:
    """Append frames of zeros until every video has t; differentiable in `frames`."""
    batch = packing.sizes[0]
    out = frames.new_zeros(t * batch, frames.shape[1])
    places = packing.padded.to(frames.device)
    return out.index_copy(0, places, frames), Packing.of([t] * batch)


def _orthogonal(rng: np.random.Generator, gates: int, width: int) -> nn.Parameter:
    blocks = []
    for _ in range(gates):
        q, r = np.linalg.qr(rng.standard_normal((width, width)))
        blocks.append(q * np.sign(np.diag(r)))
    return parameter_of(np.concatenate(blocks))
