"""Counts in sentences."""

from __future__ import annotations


def counted(number: int, thing: str, one: str = "", many: str = "") -> str:
    """Give ``1 video``, ``2 videos``, or with verbs ``1 video shows``, ``2 videos show``."""
    single = number == 1
    verb = one if single else many
    return f"{number} {thing}{'' if single else 's'}" + (f" {verb}" if verb else "")
