"""GRU and LSTM over packed batches, differentiated by hand: no padding, no wasted step.

`torch.nn.utils.rnn.pack_padded_sequence` has a backward pass on CPU that grows with the square of
the length, and padding computes what the mask throws away. Here all input projections are one
matrix product, every step works on the rows that still run, and the products for the weights'
gradients are again one each. Gate order and biases are those of `torch.nn.GRU` and
`torch.nn.LSTM`, so that weights can be exchanged.

Several runs of one shape can be stacked: every tensor then has the run as its first axis, each
run its own weights and rows, and all share one packing; see `feie.heads.training.stacked`.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from feie.heads.data.packing import Packing
from feie.heads.models.steps import Gradients, add_mm, earlier, mm, rows_of

Backend = Literal["plain", "fused"]
_CHOICE = "FEIE_RECURRENCE"


@functools.cache
def available() -> tuple[Backend, ...]:
    """Give the implementations that this machine has; ``fused`` needs numba."""
    try:
        importlib.import_module("feie.heads.models.kernels")
    except Exception:  # a numba that does not fit numpy or the processor fails in many ways
        return ("plain",)
    return ("plain", "fused")


def backend() -> Backend:
    """Say which implementation of the GRU runs on a CPU.

    ``fused`` where it is available, unless the environment variable ``FEIE_RECURRENCE`` is
    ``plain``. Both agree to rounding; each gives the same bytes again on the same machine.
    """
    chosen = os.environ.get(_CHOICE, "")
    return "plain" if chosen == "plain" else available()[-1]


@contextmanager
def using(choice: Backend) -> Iterator[None]:
    """Run one of `available` inside a block."""
    before = os.environ.get(_CHOICE)
    os.environ[_CHOICE] = choice
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CHOICE]
        else:
            os.environ[_CHOICE] = before


def _reversed_steps(packing: Packing, a: int, b: int) -> Iterator[tuple[int, int, int]]:
    """Yield, from step b - 1 down to a, first row in the run, rows, and rows one step later."""
    origin = packing.starts[a]
    for k in range(b - 1, a - 1, -1):
        running = packing.sizes[k + 1] if k + 1 < packing.steps else 0
        yield packing.starts[k] - origin, packing.sizes[k], running


def _top(tensor: Tensor, rows: int) -> Tensor:
    return tensor.narrow(-2, 0, rows)


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
        width, runs = w_hidden.shape[-1], x.shape[:-2]
        # The hidden biases of r and z join the input's; that of n stays inside r * (W h + b).
        bias = b_input.clone()
        bias[..., : 2 * width] += b_hidden[..., : 2 * width]
        bias, b_n = bias.unsqueeze(-2), b_hidden[..., 2 * width :].unsqueeze(-2)
        gates = x.new_empty(*runs, packing.rows, 3 * width)
        hidden, inner = x.new_empty(2, *runs, packing.rows, width).unbind()
        batch = packing.sizes[0]
        recurrent = x.new_empty(*runs, batch, 3 * width)
        w_x, w_h = w_input.mT, w_hidden.mT
        multiply = torch.mm if x.dim() == 2 else torch.bmm
        previous = x.new_zeros(*runs, batch, width)
        for a, b in packing.chunks:
            chunk = packing.rows_of(a, b)
            add_mm(bias, rows_of(x, chunk), w_x, out=rows_of(gates, chunk))
            for start, size in zip(packing.starts[a:b], packing.sizes[a:b], strict=True):
                before, product = previous.narrow(-2, 0, size), recurrent.narrow(-2, 0, size)
                multiply(before, w_h, out=product)
                gate = gates.narrow(-2, start, size)
                rz, n = gate.narrow(-1, 0, 2 * width), gate.narrow(-1, 2 * width, width)
                rz.add_(product.narrow(-1, 0, 2 * width)).sigmoid_()
                m = inner.narrow(-2, start, size)
                torch.add(product.narrow(-1, 2 * width, width), b_n, out=m)
                n.addcmul_(rz.narrow(-1, 0, width), m).tanh_()
                previous = hidden.narrow(-2, start, size)
                torch.lerp(n, before, rz.narrow(-1, width, width), out=previous)
        ctx.packing = packing
        ctx.save_for_backward(x, w_input, w_hidden, gates, inner, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing: Packing = ctx.packing
        x, w_input, w_hidden, gates, inner, hidden = ctx.saved_tensors
        width, runs = w_hidden.shape[-1], x.shape[:-2]
        total = Gradients(x, w_input, w_hidden, ctx.needs_input_grad[0])
        multiply_add = torch.addmm if x.dim() == 2 else torch.baddbmm
        carry = hidden.new_empty(*runs, packing.sizes[0], width)
        for a, b in reversed(packing.chunks):
            rows = packing.rows_of(a, b)
            r, z, n = rows_of(gates, rows).chunk(3, dim=-1)
            before = earlier(packing, hidden, a, b)
            # All that multiplies dh in the gradients of the three gates.
            factor = hidden.new_empty(*runs, r.shape[-2], 3 * width)
            f_r, f_z, f_n = factor.chunk(3, dim=-1)
            by_gate = factor.view(*factor.shape[:-1], 3, width)
            d_n = (1 - z).mul_(torch.addcmul(_one(n), n, n, value=-1))
            torch.mul(d_n, r, out=f_n)
            torch.mul(f_n, (1 - r).mul_(rows_of(inner, rows)), out=f_r)
            torch.mul((1 - z).mul_(z), before - n, out=f_z)
            d_hidden = rows_of(grad, rows).clone(memory_format=torch.contiguous_format)
            for start, size, running in _reversed_steps(packing, a, b):
                d, back = d_hidden.narrow(-2, start, size), carry.narrow(-2, 0, size)
                d.narrow(-2, 0, running).add_(carry.narrow(-2, 0, running))
                by_gate.narrow(-3, start, size).mul_(d.unsqueeze(-2))
                torch.mul(d, z.narrow(-2, start, size), out=back)
                multiply_add(back, factor.narrow(-2, start, size), w_hidden, out=back)
            total.add_hidden(factor, before)
            # The input side of n lacks the factor r; r and z are the same on both sides.
            torch.mul(d_hidden, d_n, out=f_n)
            total.add_input(factor, rows)
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
        width, runs = w_hidden.shape[-1], x.shape[:-2]
        bias = (b_input + b_hidden).unsqueeze(-2)
        gates = x.new_empty(*runs, packing.rows, 4 * width)
        hidden, cell = x.new_empty(2, *runs, packing.rows, width).unbind()
        w_x, w_h = w_input.mT, w_hidden.mT
        h, c = x.new_zeros(2, *runs, packing.sizes[0], width).unbind()
        for a, b in packing.chunks:
            chunk = packing.rows_of(a, b)
            add_mm(bias, rows_of(x, chunk), w_x, out=rows_of(gates, chunk))
            for start, size in zip(packing.starts[a:b], packing.sizes[a:b], strict=True):
                rows = slice(start, start + size)
                gate = rows_of(gates, rows)
                add_mm(gate, _top(h, size), w_h, out=gate)
                gate.narrow(-1, 0, 2 * width).sigmoid_()
                i, f, g, o = gate.chunk(4, dim=-1)
                g.tanh_()
                o.sigmoid_()
                c = torch.mul(f, _top(c, size), out=rows_of(cell, rows)).addcmul_(i, g)
                h = torch.mul(o, c.tanh(), out=rows_of(hidden, rows))
        ctx.packing = packing
        ctx.save_for_backward(x, w_input, w_hidden, gates, cell, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        packing: Packing = ctx.packing
        x, w_input, w_hidden, gates, cell, hidden = ctx.saved_tensors
        width, runs = w_hidden.shape[-1], x.shape[:-2]
        total = Gradients(x, w_input, w_hidden, ctx.needs_input_grad[0])
        carry_h, carry_c = hidden.new_empty(2, *runs, packing.sizes[0], width).unbind()
        for a, b in reversed(packing.chunks):
            rows = packing.rows_of(a, b)
            i, f, g, o = rows_of(gates, rows).chunk(4, dim=-1)
            squashed = rows_of(cell, rows).tanh()
            # What multiplies dc in the gradients of i, f and g, and dh in that of o.
            factor = hidden.new_empty(*runs, i.shape[-2], 4, width)
            torch.mul(g, (1 - i).mul_(i), out=factor[..., 0, :])
            torch.mul(earlier(packing, cell, a, b), (1 - f).mul_(f), out=factor[..., 1, :])
            torch.mul(i, torch.addcmul(_one(g), g, g, value=-1), out=factor[..., 2, :])
            torch.mul(squashed, (1 - o).mul_(o), out=factor[..., 3, :])
            to_cell = o * torch.addcmul(_one(o), squashed, squashed, value=-1)
            d_hidden = rows_of(grad, rows).clone(memory_format=torch.contiguous_format)
            for start, size, running in _reversed_steps(packing, a, b):
                step = slice(start, start + size)
                d, gate = rows_of(d_hidden, step), factor.narrow(-3, start, size)
                _top(d, running).add_(_top(carry_h, running))
                d_c = d * rows_of(to_cell, step)
                _top(d_c, running).add_(_top(carry_c, running))
                gate[..., :3, :].mul_(d_c.unsqueeze(-2))
                gate[..., 3, :].mul_(d)
                torch.mul(d_c, rows_of(f, step), out=_top(carry_c, size))
                mm(gate.flatten(-2), w_hidden, out=_top(carry_h, size))
            d_gates = factor.flatten(-2)
            total.add_hidden(d_gates, earlier(packing, hidden, a, b))
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
        Packed frames; stacked runs have a first axis more, here and in all other tensors.
    w_input, w_hidden : Tensor, shapes (gates * width, inputs) and (gates * width, width)
    b_input, b_hidden : Tensor, shape (gates * width,)
    packing : Packing

    Returns
    -------
    Tensor, shape (rows, width)
        h of every frame, packed as `x`.
    """
    function: type[torch.autograd.Function] = _Gru if cell == "gru" else _Lstm
    if cell == "gru" and backend() == "fused":
        from feie.heads.models import fused

        if fused.fits(x, w_hidden):
            function = fused.FusedGru
    out: Tensor = function.apply(x, w_input, w_hidden, b_input, b_hidden, packing)  # type: ignore[no-untyped-call]
    return out
