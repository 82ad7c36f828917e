"""What an isolated engine tells the process that started it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from feie.pipeline.engine.protocol import Finished, Provenance


@dataclass(frozen=True)
class Ready:
    """The engine is loaded."""

    provenance: Provenance


@dataclass(frozen=True)
class At:
    """A thread is about to touch a source (`working`), or has left it."""

    number: int
    working: bool


@dataclass(frozen=True)
class Beat:
    """The engine is alive.

    Attributes
    ----------
    idle : dict of int to float
        Seconds for which the reading of each source in work has not moved, by number.
    hashes : dict of int to str
        Fingerprints of these sources, where they are known.
    """

    idle: dict[int, float]
    hashes: dict[int, str]
    frames: int


@dataclass(frozen=True)
class Done:
    """One more source is done, the next in order."""

    finished: Finished
    detector: dict[str, Any] | None


@dataclass(frozen=True)
class Over:
    """All sources of this session are done."""


@dataclass(frozen=True)
class Broke:
    """The engine cannot go on, and no video is to blame."""

    error: Exception


Message = Ready | At | Beat | Done | Over | Broke
