"""What the recurrences share: products of stacked runs, earlier states, gradients of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from feie.heads.data.packing import Packing


def rows_of(tensor: Tensor, rows: slice) -> Tensor:
    """Give some packed rows, of each run where they are stacked."""
    return tensor.narrow(-2, rows.start, rows.stop - rows.start)


def mm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix product, of each run where they are stacked."""
    product: Tensor = (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out=out)
    return product


def add_mm(
    term: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None, beta: float = 1.0
) -> Tensor:
    """Beta times the term plus the product, of each run where they are stacked."""
    function = torch.addmm if a.dim() == 2 else torch.baddbmm
    total: Tensor = function(term, a, b, beta=beta, out=out)
    return total


def earlier(packing: Packing, state: Tensor, a: int, b: int) -> Tensor:
    """Give the state one step before each row of the steps a to b; zeros before the first step."""
    first = packing.sizes[0]
    rows = packing.rows_of(a, b)
    if a > 0:
        previous = packing.previous[rows.start - first : rows.stop - first]
        return state.index_select(-2, previous.to(state.device))
    out = state.new_zeros(*state.shape[:-2], rows.stop, state.shape[-1])
    previous = packing.previous[: rows.stop - first].to(state.device)
    out.narrow(-2, first, len(previous)).copy_(state.index_select(-2, previous))
    return out


class Gradients:
    """Gradients of a layer's weights, added up over runs of steps."""

    def __init__(self, x: Tensor, w_input: Tensor, w_hidden: Tensor, needs_x: bool) -> None:
        self.x, self.weight = x, w_input
        self.d_x = torch.empty_like(x) if needs_x else None
        # Summed up transposed: with few inputs that is the faster way round.
        self.d_w_input = torch.zeros_like(w_input.mT, memory_format=torch.contiguous_format)
        self.d_w_hidden = torch.zeros_like(w_hidden)
        self.d_b_input = w_input.new_zeros(w_input.shape[:-1])
        self.d_b_hidden = w_hidden.new_zeros(w_hidden.shape[:-1])

    def add_hidden(self, d_gates: Tensor, before: Tensor) -> None:
        """Add those on the hidden side, from the state before each row."""
        add_mm(self.d_w_hidden, d_gates.mT, before, out=self.d_w_hidden)
        self.d_b_hidden += d_gates.sum(-2)

    def add_input(self, d_gates: Tensor, rows: slice) -> None:
        """Add those on the input side."""
        add_mm(self.d_w_input, rows_of(self.x, rows).mT, d_gates, out=self.d_w_input)
        self.d_b_input += d_gates.sum(-2)
        if self.d_x is not None:
            mm(d_gates, self.weight, out=rows_of(self.d_x, rows))

    def result(self) -> tuple[Tensor | None, ...]:
        """In the order of the arguments of `forward`."""
        d_w_input = self.d_w_input.mT.contiguous()
        weights = d_w_input, self.d_w_hidden, self.d_b_input, self.d_b_hidden
        return self.d_x, *weights, None
