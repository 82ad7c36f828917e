"""GRU and LSTM over packed batches, differentiated by hand: no padding, no wasted step.

`torch.nn.utils.rnn.pack_padded_sequence` has a backward pass on CPU that grows with the square of
the length, and padding computes what the mask throws away. Here all input projections are one
matrix product, every step works on the rows that still run, and the products for the weights'
gradients are again one each. Gate order and biases are those of `torch.nn.GRU` and
`torch.nn.LSTM`, so that weights can be exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from feie.heads.packing import Packing


def _reversed_steps(packing: Packing, a: int, b: int) -> Iterator[tuple[int, int, int]]:
    """Yield, from step b - 1 down to a, first row in the run, rows, and rows one step later."""
    origin = packing.starts[a]
    for k in range(b - 1, a - 1, -1):
        running = packing.sizes[k + 1] if k + 1 < packing.steps else 0
        yield packing.starts[k] - origin, packing.sizes[k], running


def _earlier(packing: Packing, state: Tensor, a: int, b: int) -> Tensor:
    """State one step before each row of the steps a to b; zeros before the first step."""
    first = packing.sizes[0]
    rows = packing.rows_of(a, b)
    if a > 0:
        return state.index_select(0, packing.previous[rows.start - first : rows.stop - first])
    out = state.new_zeros(rows.stop, state.shape[1])
    out[first:] = state.index_select(0, packing.previous[: rows.stop - first])
    return out


class _Gradients:
    """Gradients of a layer's weights, added up over runs of steps."""

    def __init__(self, x: Tensor, w_input: Tensor, w_hidden: Tensor, needs_x: bool) -> None:
        self.x, self.weight = x, w_input
        self.d_x = torch.empty_like(x) if needs_x else None
        self.d_w_input = torch.zeros_like(w_input)
        self.d_w_hidden = torch.zeros_like(w_hidden)
        self.d_b_input = w_input.new_zeros(len(w_input))
        self.d_b_hidden = w_hidden.new_zeros(len(w_hidden))

    def add_hidden(self, d_gates: Tensor, earlier: Tensor) -> None:
        self.d_w_hidden.addmm_(d_gates.t(), earlier)
        self.d_b_hidden += d_gates.sum(0)

    def add_input(self, d_gates: Tensor, rows: slice) -> None:
        self.d_w_input.addmm_(d_gates.t(), self.x[rows])
        self.d_b_input += d_gates.sum(0)
        if self.d_x is not None:
            torch.mm(d_gates, self.weight, out=self.d_x[rows])

    def result(self) -> tuple[Tensor | None, ...]:
        """In the order of the arguments of `forward`."""
        weights = self.d_w_input, self.d_w_hidden, self.d_b_input, self.d_b_hidden
        return self.d_x, *weights, None


class _Gru(torch.autograd.Function):
    """r, z = sigmoid(.), n = tanh(x + r * (W h + b)), h' = n + z (h - n)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        b_input: Tensor,
        b_hidden: Tensor,
        packing: Packing,
    ) -> Tensor:
        width = w_hidden.shape[1]
        # The hidden biases of r and z join the input's; that of n stays inside r * (W h + b).
        bias = b_input.clone()
        bias[: 2 * width] += b_hidden[: 2 * width]
        gates = x.new_empty(packing.rows, 3 * width)
        hidden, inner = x.new_empty(2, packing.rows, width).unbind()
        batch = packing.sizes[0]
        recurrent = x.new_empty(batch, 3 * width)
        w_x, w_h, b_n = w_input.t(), w_hidden.t(), b_hidden[2 * width :]
        previous = x.new_zeros(batch, width)
        for a, b in packing.chunks:
            chunk = packing.rows_of(a, b)
            torch.addmm(bias, x[chunk], w_x, out=gates[chunk])
            for start, size in zip(packing.starts[a:b], packing.sizes[a:b], strict=True):
                rows = slice(start, start + size)
                before, gate, product = previous[:size], gates[rows], recurrent[:size]
                torch.mm(before, w_h, out=product)
                rz, n = gate[:, : 2 * width], gate[:, 2 * width :]
                rz.add_(product[:, : 2 * width]).sigmoid_()
                m = torch.add(product[:, 2 * width :], b_n, out=inner[rows])
                n.addcmul_(rz[:, :width], m).tanh_()
                previous = hidden[rows]
                torch.lerp(n, before, rz[:, width:], out=previous)
        ctx.packing = packing
        ctx.save_for_backward(x, w_input, w_hidden, gates, inner, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing: Packing = ctx.packing
        x, w_input, w_hidden, gates, inner, hidden = ctx.saved_tensors
        width = w_hidden.shape[1]
        total = _Gradients(x, w_input, w_hidden, ctx.needs_input_grad[0])
        carry = hidden.new_empty(packing.sizes[0], width)
        for a, b in reversed(packing.chunks):
            rows = packing.rows_of(a, b)
            r, z, n = gates[rows].split(width, dim=1)
            earlier = _earlier(packing, hidden, a, b)
            # All that multiplies dh in the gradients of the three gates.
            factor = hidden.new_empty(len(r), 3, width)
            d_n = (1 - z).mul_(torch.addcmul(_one(n), n, n, value=-1))
            torch.mul(d_n, r, out=factor[:, 2])
            torch.mul(factor[:, 2], (1 - r).mul_(inner[rows]), out=factor[:, 0])
            torch.mul((1 - z).mul_(z), earlier - n, out=factor[:, 1])
            d_hidden = grad[rows].clone(memory_format=torch.contiguous_format)
            for start, size, running in _reversed_steps(packing, a, b):
                d, gate = d_hidden[start : start + size], factor[start : start + size]
                d[:running].add_(carry[:running])
                gate.mul_(d.unsqueeze(1))
                back = torch.mul(d, z[start : start + size], out=carry[:size])
                back.addmm_(gate.view(size, 3 * width), w_hidden)
            d_gates = factor.view(-1, 3 * width)
            total.add_hidden(d_gates, earlier)
            # The input side of n lacks the factor r; r and z are the same on both sides.
            torch.mul(d_hidden, d_n, out=d_gates[:, 2 * width :])
            total.add_input(d_gates, rows)
        return total.result()


class _Lstm(torch.autograd.Function):
    """i, f, o = sigmoid(.), g = tanh(.), c' = f c + i g, h' = o tanh(c')."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_input: Tensor,
        w_hidden: Tensor,
        b_input: Tensor,
        b_hidden: Tensor,
        packing: Packing,
    ) -> Tensor:
        width = w_hidden.shape[1]
        bias = b_input + b_hidden
        gates = x.new_empty(packing.rows, 4 * width)
        hidden, cell = x.new_empty(2, packing.rows, width).unbind()
        w_x, w_h = w_input.t(), w_hidden.t()
        h, c = x.new_zeros(2, packing.sizes[0], width).unbind()
        for a, b in packing.chunks:
            chunk = packing.rows_of(a, b)
            torch.addmm(bias, x[chunk], w_x, out=gates[chunk])
            for start, size in zip(packing.starts[a:b], packing.sizes[a:b], strict=True):
                rows = slice(start, start + size)
                gate = gates[rows].addmm_(h[:size], w_h)
                gate[:, : 2 * width].sigmoid_()
                gate[:, 2 * width : 3 * width].tanh_()
                gate[:, 3 * width :].sigmoid_()
                i, f, g, o = gate.chunk(4, dim=1)
                c = torch.mul(f, c[:size], out=cell[rows]).addcmul_(i, g)
                h = torch.mul(o, c.tanh(), out=hidden[rows])
        ctx.packing = packing
        ctx.save_for_backward(x, w_input, w_hidden, gates, cell, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing: Packing = ctx.packing
        x, w_input, w_hidden, gates, cell, hidden = ctx.saved_tensors
        width = w_hidden.shape[1]
        total = _Gradients(x, w_input, w_hidden, ctx.needs_input_grad[0])
        carry_h, carry_c = hidden.new_empty(2, packing.sizes[0], width)
        for a, b in reversed(packing.chunks):
            rows = packing.rows_of(a, b)
            i, f, g, o = gates[rows].split(width, dim=1)
            squashed = cell[rows].tanh()
            # What multiplies dc in the gradients of i, f and g, and dh in that of o.
            factor = hidden.new_empty(len(i), 4, width)
            torch.mul(g, (1 - i).mul_(i), out=factor[:, 0])
            torch.mul(_earlier(packing, cell, a, b), (1 - f).mul_(f), out=factor[:, 1])
            torch.mul(i, torch.addcmul(_one(g), g, g, value=-1), out=factor[:, 2])
            torch.mul(squashed, (1 - o).mul_(o), out=factor[:, 3])
            to_cell = o * torch.addcmul(_one(o), squashed, squashed, value=-1)
            d_hidden = grad[rows].clone(memory_format=torch.contiguous_format)
            for start, size, running in _reversed_steps(packing, a, b):
                step = slice(start, start + size)
                d, gate = d_hidden[step], factor[step]
                d[:running].add_(carry_h[:running])
                d_c = d * to_cell[step]
                d_c[:running].add_(carry_c[:running])
                gate[:, :3].mul_(d_c.unsqueeze(1))
                gate[:, 3].mul_(d)
                torch.mul(d_c, f[step], out=carry_c[:size])
                torch.mm(gate.view(size, 4 * width), w_hidden, out=carry_h[:size])
            d_gates = factor.view(-1, 4 * width)
            total.add_hidden(d_gates, _earlier(packing, hidden, a, b))
            total.add_input(d_gates, rows)
        return total.result()


def _one(like: Tensor) -> Tensor:
    return like.new_ones(())


def recur(
    cell: str,
    x: Tensor,
    w_input: Tensor,
    w_hidden: Tensor,
    b_input: Tensor,
    b_hidden: Tensor,
    packing: Packing,
) -> Tensor:
    """Run one recurrent layer from a zero state and give the outputs of every step.

    Parameters
    ----------
    cell : {"gru", "lstm"}
    x : Tensor, shape (rows, inputs)
        Packed frames.
    w_input, w_hidden : Tensor, shapes (gates * width, inputs) and (gates * width, width)
    b_input, b_hidden : Tensor, shape (gates * width,)
    packing : Packing

    Returns
    -------
    Tensor, shape (rows, width)
        h of every frame, packed as `x`.
    """
    function = _Gru if cell == "gru" else _Lstm
    out: Tensor = function.apply(x, w_input, w_hidden, b_input, b_hidden, packing)  # type: ignore[no-untyped-call]
    return out
