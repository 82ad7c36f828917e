"""The GRU of `heads.models.recurrence` with its steps fused, by numba, for one run on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from feie.heads.data.packing import Packing
from feie.heads.models import kernels
from feie.heads.models.steps import Gradients, earlier


def fits(x: Tensor, w_hidden: Tensor) -> bool:
    """Whether the kernels can take this layer; a stack, a GPU or float64 they cannot."""
    width = w_hidden.shape[-1]
    return (
        x.dim() == 2
        and x.device.type == "cpu"
        and x.dtype == w_hidden.dtype == torch.float32
        and width % (kernels.BACK_VECTORS * kernels.LANES) == 0
    )


def _layout(packing: Packing) -> tuple[Any, Any]:
    return np.array(packing.starts, np.int64), np.array(packing.sizes, np.int64)


def _panels(w_hidden: Tensor, width: int) -> Tensor:
    """For the forward product: (units / lanes, from unit, gate, lane)."""
    parts = w_hidden.detach().view(3, width // kernels.LANES, kernels.LANES, width)
    return parts.permute(1, 3, 0, 2).contiguous()


def _back_panels(w_hidden: Tensor, width: int) -> Tensor:
    """For the backward product: (units / panel's width, gate and unit, unit of the panel)."""
    parts = w_hidden.view(3 * width, -1, kernels.BACK_VECTORS * kernels.LANES)
    return parts.transpose(0, 1).contiguous()


class FusedGru(torch.autograd.Function):
    """As `feie.heads.models.recurrence._Gru`, to rounding."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        b_input: Tensor,
        b_hidden: Tensor,
        packing: Packing,
    ) -> Tensor:
        width = w_hidden.shape[1]
        bias = b_input.clone()
        bias[: 2 * width] += b_hidden[: 2 * width]
        b_n = b_hidden[2 * width :].contiguous()
        gates = x.new_empty(packing.rows, 3 * width)
        hidden, inner = x.new_empty(2, packing.rows, width).unbind()
        zeros = x.new_zeros(packing.sizes[0], width)
        panels = _panels(w_hidden, width)
        layout = _layout(packing)
        # Tensors that live to the end of this function, so that their addresses hold.
        held = zeros, panels, b_n, gates, inner, hidden
        addresses = [tensor.data_ptr() for tensor in held]
        w_x = w_input.t()
        for a, b in packing.chunks:
            chunk = packing.rows_of(a, b)
            torch.addmm(bias, x[chunk], w_x, out=gates[chunk])
            kernels.forward(a, b, *layout, width, *addresses)
        ctx.packing = packing
        ctx.save_for_backward(x, w_input, w_hidden, gates, inner, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        packing: Packing = ctx.packing
        x, w_input, w_hidden, gates, inner, hidden = ctx.saved_tensors
        width = w_hidden.shape[1]
        total = Gradients(x, w_input, w_hidden, ctx.needs_input_grad[0])
        grad = grad.contiguous()
        zeros = hidden.new_zeros(packing.sizes[0], width)
        carry = torch.empty_like(zeros)
        panels = _back_panels(w_hidden, width)
        most = max(packing.rows_of(a, b).stop - packing.starts[a] for a, b in packing.chunks)
        factor, d_n = hidden.new_empty(most, 3 * width), hidden.new_empty(most, width)
        layout = _layout(packing)
        held = zeros, panels, gates, inner, hidden, grad, carry, factor, d_n
        addresses = [tensor.data_ptr() for tensor in held]
        for a, b in reversed(packing.chunks):
            rows = packing.rows_of(a, b)
            kernels.backward(a, b, *layout, width, *addresses)
            d_gates = factor[: rows.stop - rows.start]
            total.add_hidden(d_gates, earlier(packing, hidden, a, b))
            d_gates[:, 2 * width :] = d_n[: rows.stop - rows.start]
            total.add_input(d_gates, rows)
        return total.result()
