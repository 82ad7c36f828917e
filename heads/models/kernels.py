"""Inner loops of a GRU step, written as vector code for the compiler behind numba.

A step multiplies the states of the videos that still run by one matrix and passes the sums
through the gates. Here a tile of some videos by one vector of units keeps its sums in registers
from the first product to the new state, and nothing is written in between. The vectors are as
wide as the processor's; LLVM turns them into what the processor has.

Importing this module needs numba (``pip install 'feie[fast]'``). Addresses are passed as
integers; `feie.heads.models.fused` is the only caller.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = (config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(",")
if platform.machine().lower() in ("x86_64", "amd64") and "+fma" not in _FEATURES:
    raise ImportError("this processor cannot multiply and add at once: the plain path is faster")
LANES: int = 16 if "+avx512f" in _FEATURES else 8 if "+avx2" in _FEATURES else 4
"""Units a vector."""
_ROWS = 4 if LANES == 8 else 8  # AVX2 has half the registers
BACK_VECTORS = 2
"""Vectors a panel of the backward product."""
_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_BITS = ir.VectorType(ir.IntType(32), LANES)


class _Code:
    """Writes vector instructions into one place of a function."""

    def __init__(self, builder: Any) -> None:
        self.b = builder
        self._fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_VECTOR, [_VECTOR] * 3),
            f"llvm.fma.v{LANES}f32",
        )

    def at(self, address: Any, floats: Any) -> Any:
        """Address so many floats further; a Python or a machine number."""
        if isinstance(floats, int):
            return self.b.add(address, ir.Constant(_INT, 4 * floats))
        return self.b.add(address, self.b.shl(floats, ir.Constant(_INT, 2)))

    def load(self, address: Any) -> Any:
        return self.b.load(self.b.inttoptr(address, _VECTOR.as_pointer()), align=4)

    def store(self, value: Any, address: Any) -> None:
        self.b.store(value, self.b.inttoptr(address, _VECTOR.as_pointer()), align=4)

    def spread(self, address: Any) -> Any:
        """One float in every lane."""
        value = self.b.load(self.b.inttoptr(address, _FLOAT.as_pointer()), align=4)
        single = self.b.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        lanes = ir.Constant(_BITS, [0] * LANES)
        return self.b.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), lanes)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        return self.b.call(self._fma, [a, b, c])

    def number(self, value: float) -> Any:
        return ir.Constant(_VECTOR, [value] * LANES)

    def bits(self, value: int) -> Any:
        return ir.Constant(_BITS, [value] * LANES)

    def exp(self, x: Any) -> Any:
        """Give e ** x to some 1e-7 relative; NaN stays NaN."""
        b = self.b
        for limit, test in ((87.0, ">"), (-87.0, "<")):
            outside = b.fcmp_ordered(test, x, self.number(limit))
            x = b.select(outside, self.number(limit), x)
        # Added to 1.5 * 2**23, a number loses its fraction: the low bits are round(x / ln 2).
        shifter = 12582912.0
        shifted = self.fma(x, self.number(1.4426950408889634), self.number(shifter))
        whole = b.fsub(shifted, self.number(shifter))
        rest = self.fma(whole, self.number(-0.693359375), x)
        rest = self.fma(whole, self.number(2.12194440e-4), rest)
        series = self.number(1.9875691500e-4)
        for term in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5, 1, 1):
            series = self.fma(series, rest, self.number(float(term)))
        power = b.add(b.bitcast(shifted, _BITS), self.bits(127))
        scale = b.bitcast(b.shl(power, self.bits(23)), _VECTOR)
        return b.fmul(series, scale)

    def sigmoid(self, x: Any) -> Any:
        one = self.number(1.0)
        return self.b.fdiv(one, self.b.fadd(one, self.exp(self.b.fneg(x))))

    def tanh(self, x: Any) -> Any:
        power = self.exp(self.b.fadd(x, x))
        half = self.b.fdiv(self.number(-2.0), self.b.fadd(self.number(1.0), power))
        return self.b.fadd(self.number(1.0), half)

    def product(
        self, rows: int, vectors: int, left: Any, stride: Any, panel: Any, depth: Any
    ) -> list[list[Any]]:
        """Sum left[row, k] * panel[k, vector] over `depth`, all in registers."""
        b = self.b
        before = b.block
        loop, after = b.append_basic_block("product"), b.append_basic_block("summed")
        b.branch(loop)
        b.position_at_end(loop)
        k = b.phi(_INT)
        k.add_incoming(ir.Constant(_INT, 0), before)
        sums = [[b.phi(_VECTOR) for _ in range(vectors)] for _ in range(rows)]
        place = self.at(panel, b.mul(k, ir.Constant(_INT, vectors * LANES)))
        right = [self.load(self.at(place, v * LANES)) for v in range(vectors)]
        here, new = self.at(left, k), []
        for row in sums:
            value = self.spread(here)
            new.append([self.fma(value, r, s) for r, s in zip(right, row, strict=True)])
            here = self.at(here, stride)
        following = b.add(k, ir.Constant(_INT, 1))
        k.add_incoming(following, b.block)
        for row, sum_row in zip(sums, new, strict=True):
            for phi, value in zip(row, sum_row, strict=True):
                phi.add_incoming(self.number(0.0), before)
                phi.add_incoming(value, b.block)
        b.cbranch(b.icmp_signed("<", following, depth), loop, after)
        b.position_at_end(after)
        return new


def _forward_tile(rows: int) -> Any:
    """Make the kernel of a step: so many videos, one vector of units."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, before, panel, gates, inner, hidden, bias, offset, width
    ):
        def codegen(context: Any, builder: Any, _: Any, values: Any) -> Any:
            before, panel, gates, inner, hidden, bias, offset, width = values
            code = _Code(builder)
            sums = code.product(rows, 3, before, width, panel, width)
            three = builder.mul(width, ir.Constant(_INT, 3))
            before, gates = code.at(before, offset), code.at(gates, offset)
            inner, hidden = code.at(inner, offset), code.at(hidden, offset)
            b_n = code.load(code.at(bias, offset))
            for to_r, to_z, to_n in sums:
                r_at, z_at = gates, code.at(gates, width)
                n_at = code.at(z_at, width)
                r = code.sigmoid(builder.fadd(to_r, code.load(r_at)))
                z = code.sigmoid(builder.fadd(to_z, code.load(z_at)))
                m = builder.fadd(to_n, b_n)
                n = code.tanh(code.fma(r, m, code.load(n_at)))
                h = code.fma(z, builder.fsub(code.load(before), n), n)
                for value, place in ((r, r_at), (z, z_at), (n, n_at), (m, inner), (h, hidden)):
                    code.store(value, place)
                before, gates = code.at(before, width), code.at(gates, three)
                inner, hidden = code.at(inner, width), code.at(hidden, width)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return tile


@intrinsic
def _slopes(  # type: ignore[no-untyped-def]
    typing, gates, inner, before, grad, carry, factor, d_n, back, offset, width
):
    """Gradients of one video's gates, one vector of units, and what z lets through."""

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> Any:
        gates, inner, before, grad, carry, factor, d_n, back, offset, width = values
        code, b = _Code(builder), builder
        one = code.number(1.0)
        z_at = code.at(code.at(gates, offset), width)
        r, z = code.load(code.at(gates, offset)), code.load(z_at)
        n = code.load(code.at(z_at, width))
        d = b.fadd(code.load(code.at(grad, offset)), code.load(code.at(carry, offset)))
        keep = b.fsub(one, z)
        to_n = b.fmul(b.fmul(d, keep), b.fsub(one, b.fmul(n, n)))
        through_r = b.fmul(to_n, r)
        to_r = b.fmul(b.fmul(through_r, b.fsub(one, r)), code.load(code.at(inner, offset)))
        moved = b.fsub(code.load(code.at(before, offset)), n)
        passed = b.fmul(d, z)
        to_z = b.fmul(b.fmul(passed, keep), moved)
        place = code.at(factor, offset)
        for value in (to_r, to_z, through_r):
            code.store(value, place)
            place = code.at(place, width)
        code.store(to_n, code.at(d_n, offset))
        code.store(passed, code.at(back, offset))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), codegen


def _back_tile(rows: int) -> Any:
    """Make the kernel that adds the gates' gradients times the matrix to what goes back."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, factor, panel, back, offset, width
    ):
        def codegen(context: Any, builder: Any, _: Any, values: Any) -> Any:
            factor, panel, back, offset, width = values
            code = _Code(builder)
            three = builder.mul(width, ir.Constant(_INT, 3))
            sums = code.product(rows, BACK_VECTORS, factor, three, panel, three)
            back = code.at(back, offset)
            for row in sums:
                for v, value in enumerate(row):
                    place = code.at(back, v * LANES)
                    code.store(builder.fadd(code.load(place), value), place)
                back = code.at(back, width)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return tile


_forward_many, _forward_4, _forward_1 = map(_forward_tile, (_ROWS, 4, 1))
_back_many, _back_4, _back_1 = map(_back_tile, (_ROWS, 4, 1))


@njit(cache=True, nogil=True)
def forward(first, end, starts, sizes, width, zeros, panels, bias, gates, inner, hidden):  # type: ignore[no-untyped-def]
    """Run the steps first to end; `zeros` and what follows are addresses.

    ``gates`` holds the input's share of all rows and receives r, z, n; ``inner`` and ``hidden``
    receive W h + b of n, and h.
    """
    for k in range(first, end):
        size, row = sizes[k], 4 * width * starts[k]
        before = zeros if k == 0 else hidden + 4 * width * starts[k - 1]
        for unit in range(0, width, LANES):
            panel = panels + 12 * width * unit
            i = 0
            while i < size:
                at = 4 * width * i
                place = row + at
                if size - i >= _ROWS:
                    _forward_many(
                        before + at, panel, gates + 3 * place, inner + place, hidden + place,
                        bias, unit, width,
                    )  # fmt: skip
                    i += _ROWS
                elif size - i >= 4:
                    _forward_4(
                        before + at, panel, gates + 3 * place, inner + place, hidden + place,
                        bias, unit, width,
                    )  # fmt: skip
                    i += 4
                else:
                    _forward_1(
                        before + at, panel, gates + 3 * place, inner + place, hidden + place,
                        bias, unit, width,
                    )  # fmt: skip
                    i += 1


@njit(cache=True, nogil=True)
def backward(  # type: ignore[no-untyped-def]
    first, end, starts, sizes, width, zeros, panels, gates, inner, hidden, grad, carry, factor, d_n
):
    """Run the steps end - 1 down to first; see `forward`.

    ``grad`` is that of h; ``carry`` holds what comes back from the step behind and receives what
    goes to the one before. ``factor`` (gradients on the hidden side of r, z, n) and ``d_n`` (of n
    on the input side) begin at the first row of step `first`.
    """
    origin = 4 * width * starts[first]
    for k in range(end - 1, first - 1, -1):
        size, row = sizes[k], 4 * width * starts[k]
        running = sizes[k + 1] if k + 1 < len(sizes) else 0
        before = zeros if k == 0 else hidden + 4 * width * starts[k - 1]
        for i in range(size):
            at = 4 * width * i
            place = row + at
            coming = carry + at if i < running else zeros
            for unit in range(0, width, LANES):
                _slopes(
                    gates + 3 * place, inner + place, before + at, grad + place, coming,
                    factor + 3 * (place - origin), d_n + place - origin, carry + at, unit, width,
                )  # fmt: skip
        for unit in range(0, width, BACK_VECTORS * LANES):
            panel = panels + 12 * width * unit
            i = 0
            while i < size:
                at = 4 * width * i
                left = factor + 3 * (row + at - origin)
                if size - i >= _ROWS:
                    _back_many(left, panel, carry + at, unit, width)
                    i += _ROWS
                elif size - i >= 4:
                    _back_4(left, panel, carry + at, unit, width)
                    i += 4
                else:
                    _back_1(left, panel, carry + at, unit, width)
                    i += 1
