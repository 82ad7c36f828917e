"""What a job gives back: values, and the same values as tables that any output can render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

Cell = str | int | float | None
"""A figure is a number; None is a figure that could not be had."""


@dataclass(frozen=True)
class Table:
    """Plain rows, for a terminal, HTML or a file.

    Attributes
    ----------
    title : str
    columns : sequence of str
        Names of the columns; numbers are set to the right.
    rows : sequence of sequence of Cell
        Floats are shown with three decimals.
    totals : sequence of sequence of Cell
        Rows below a line, such as the mean.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    totals: Sequence[Sequence[Cell]] = field(default=())


class Result(BaseModel):
    """Base of every job's result; ``--json`` prints its fields."""

    @property
    def exit_code(self) -> int:
        """0 done; 3 where some videos failed."""
        return 0

    def tables(self) -> Sequence[Table]:
        """Give the result as tables."""
        return ()

    def lines(self) -> Sequence[str]:
        """Give what else is said below the tables, a line each: remarks, and files written."""
        return ()


def figure(value: float | None) -> str:
    """Write a figure for a line: three decimals, or that it is undefined."""
    return "undefined" if value is None else f"{value:.3f}"


def interval(pair: tuple[float, float] | None) -> str:
    """Write a 95 % interval for a cell; empty where none could be had."""
    return "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"


def failures(reasons: Mapping[str, str]) -> list[str]:
    """Name what failed, a line each; terminals show such lines in red."""
    return [f"failed {name}: {reason}" for name, reason in reasons.items()]


def some(names: Sequence[str]) -> str:
    """Name the first five."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
