"""What a job gives back: values, and the same values as tables that any output can render."""

from __future__ import annotations

from collections.abc import Sequence
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
