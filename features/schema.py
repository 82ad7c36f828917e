"""The vocabulary of columns: names, groups and the 26-number affect vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feie.features.errors import UsageError

VALENCE_AROUSAL = ("valence", "arousal")
EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
ACTION_UNITS = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU11",
    "AU12", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26",
)  # fmt: skip


@dataclass(frozen=True)
class Schema:
    """Named columns and their groups.

    Attributes
    ----------
    columns : tuple of str
        Column names, in the order in which they are stored.
    groups : dict of str to (int, int)
        Half-open column ranges, e.g. ``{"va": (0, 2)}``.
    """

    columns: tuple[str, ...]
    groups: Mapping[str, tuple[int, int]]

    def __post_init__(self) -> None:
        if len(set(self.columns)) != len(self.columns):
            raise UsageError(f"column names repeat: {self.columns}")
        for name, (start, stop) in self.groups.items():
            if not 0 <= start < stop <= len(self.columns):
                raise UsageError(f"group {name!r} spans {start}:{stop} of {len(self.columns)}")

    def __len__(self) -> int:
        return len(self.columns)

    @classmethod
    def of(cls, groups: Mapping[str, Sequence[str]]) -> Schema:
        """Lay groups of named columns one after another, in the order given."""
        columns: list[str] = []
        spans = {}
        for name, members in groups.items():
            spans[name] = (len(columns), len(columns) + len(members))
            columns += members
        return cls(tuple(columns), spans)

    def group(self, name: str) -> tuple[str, ...]:
        """Column names of a group; none where the schema lacks it."""
        return self.columns[slice(*self.groups.get(name, (0, 0)))]

    def indices(self, subset: Sequence[str]) -> list[int]:
        """Column indices of a subset of groups, in stored order.

        Parameters
        ----------
        subset : sequence of str
            Group names, in any order; empty means all columns.

        Raises
        ------
        UsageError
            A group that this schema lacks.
        """
        if not subset:
            return list(range(len(self.columns)))
        return sorted({i for name in self.named(subset) for i in range(*self.groups[name])})

    def named(self, subset: Sequence[str]) -> tuple[str, ...]:
        """Names of groups as the schema spells them, where ``VA`` may stand for ``va``.

        Raises
        ------
        UsageError
            A group that this schema lacks.
        """
        folded = {name.casefold(): name for name in self.groups}
        spelt = {n: n if n in self.groups else folded.get(n.casefold(), "") for n in subset}
        if unknown := [name for name, found in spelt.items() if not found]:
            raise UsageError(
                f"unknown group {', '.join(unknown)}; this store has {', '.join(self.groups)}"
            )
        return tuple(spelt[name] for name in subset)


AFFECT = Schema.of({"va": VALENCE_AROUSAL, "expr": EXPRESSIONS, "au": ACTION_UNITS})
"""The affect vector: valence and arousal in [-1, 1], seven expression probabilities that sum
to one, seventeen action-unit probabilities in [0, 1]."""

VA_EXPR8 = Schema.of({"va": VALENCE_AROUSAL, "expr": (*EXPRESSIONS, "contempt")})
"""Valence, arousal and the eight expressions of AffectNet: what the recipe of [S] (Savchenko,
arXiv 2403.11590) gives."""

SCHEMAS = {"affect": AFFECT, "va-expr8": VA_EXPR8}
"""Schemas by the names that configurations call them."""
