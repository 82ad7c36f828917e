"""The ablations of [K]: what each row of Tables 3 and 4 changes, and what was published."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from feie.features.errors import UsageError

TableName = Literal["subsets", "architecture"]
GROUPS = ("va", "expr", "au")


@dataclass(frozen=True)
class Row:
    """One line of an ablation.

    Attributes
    ----------
    name : str
        What stands in the table.
    slug : str
        What its run folders are called.
    changes : dict
        Options of `feie train-head` that differ from the full model's.
    """

    name: str
    slug: str
    changes: Mapping[str, Any] = field(default_factory=dict)


FULL = "MRNN (GRU 128, FC 32)"


def _subsets() -> tuple[Row, ...]:
    """All seven, from one group to three ([K] Table 3)."""
    picked = [c for size in (1, 2, 3) for c in combinations(GROUPS, size)]
    return tuple(Row(" + ".join(c), "-".join(c), {"subset": c}) for c in picked)


TABLES: dict[TableName, tuple[Row, ...]] = {
    "subsets": _subsets(),
    "architecture": (
        Row("FC 8", "fc8", {"dense": 8}),
        Row("FC 16", "fc16", {"dense": 16}),
        Row("FC 64", "fc64", {"dense": 64}),
        Row("2 x GRU", "2gru", {"layers": 2}),
        Row("LSTM", "lstm", {"cell": "lstm"}),
        Row("GRU 64", "gru64", {"width": 64}),
        Row("GRU 256", "gru256", {"width": 256}),
        Row("without routing", "no-routing", {"routing": False}),
        Row("without mask and routing", "no-mask", {"mask": False, "routing": False}),
        Row("MSE", "mse", {"loss": "mse"}),
        Row(FULL, "full"),
    ),
}
"""Rows in the order of the tables; the row *without routing* alone is ours."""

PUBLISHED: dict[str, float] = {"va + expr + au": 0.544, FULL: 0.544}
"""Mean Pearson of [K] on Hume-Reaction's validation split, of the rows known to us."""

PUBLISHED_NOTE = (
    "published: [K] on Hume-Reaction's validation split, 0.511 to 0.544 over all rows of Tables 3 "
    "and 4; the other version of the paper has every row 0.050 lower, so it is their order, not "
    "their level, that a reproduction should show"
)


def read_published(path: Path | None, rows: tuple[Row, ...]) -> dict[str, float]:
    """Give the published column, with what a CSV file (``row,published``) adds or replaces.

    Raises
    ------
    UsageError
        The file cannot be read, or names a row that the table lacks.
    """
    found = {row.name: PUBLISHED[row.name] for row in rows if row.name in PUBLISHED}
    if path is None:
        return found
    names = {key: row.name for row in rows for key in (row.name, row.slug)}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line in csv.DictReader(file):
                name = names.get(line["row"].strip())
                if name is None:
                    raise UsageError(
                        f"{path} names a row {line['row']!r}; the rows are {', '.join(names)}"
                    )
                found[name] = value = float(line["published"])
                if not -1 <= value <= 1:
                    raise UsageError(f"{path} gives {value:g} for {name}: no correlation")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} is no CSV with the columns row,published ({error!r})") from None
    return found
