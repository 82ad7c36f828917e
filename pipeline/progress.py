"""How jobs report progress: a plain callback, so that no job knows a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """One report of a running job.

    Attributes
    ----------
    stage : str
        What is counted, e.g. ``"videos"`` or ``"epochs"``.
    done : float
        Units finished so far.
    total : float or None
        Units in all; None while unknown.
    info : dict
        Figures to show beside the bar, e.g. ``{"frames/s": 310.0, "failed": 1}``.
    message : str
        A line worth keeping on the screen or in a log; empty for none.
    """

    stage: str
    done: float
    total: float | None = None
    info: Mapping[str, float | int | str] = field(default_factory=dict)
    message: str = ""


ProgressCallback = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""
