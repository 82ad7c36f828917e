"""Words of messages and files: counts, figures, and what a mistyped name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_FEW = 12


def counted(number: int, thing: str, one: str = "", many: str = "") -> str:
    """Give ``1 video``, ``2 videos``, or with verbs ``1 video shows``, ``2 videos show``."""
    single = number == 1
    verb = one if single else many
    return f"{number} {thing}{'' if single else 's'}" + (f" {verb}" if verb else "")


def significant(value: float) -> str:
    """Write a figure of a file with eight significant digits at any scale; NaN as nothing."""
    return "" if value != value else f"{value:.8g}"


def suggest(name: str, known: Iterable[str]) -> str:
    """End a message about an unknown name: similar names, or all of them where they are few.

    Examples
    --------
    >>> suggest("valance", ["valence", "arousal"])
    "; did you mean 'valence'?"
    >>> suggest("joy", ["anger", "fear"])
    '; it has anger, fear'
    """
    names = list(known)
    if close := get_close_matches(name, names, n=3):
        return f"; did you mean {' or '.join(map(repr, close))}?"
    if not names:
        return "; it has none"
    return f"; it has {', '.join(names[:_FEW])}{', …' if len(names) > _FEW else ''}"
