"""What `feie dump` asks of a format of its own, and the formats that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol

from feie.features.errors import UsageError
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import VideoBatch
from feie.features.schema import Schema

_MODULES = {
    "hdf5": "hdf5",
    "hdf5-groups": "hdf5_groups",
    "muse": "muse",
    "openface": "openface",
    "parquet": "parquet",
    "npz": "npz",
    "safetensors": "safetensors",
}
NAMES = tuple(_MODULES)


class FileWriter(Protocol):
    """Writes a dump that is one file; made by `OneFile.create`."""

    def write(self, batch: VideoBatch) -> None:
        """Write the next videos of the plan."""

    def close(self) -> None:
        """Complete the file; of one that is not closed nothing is kept."""


@dataclass(frozen=True)
class DumpFormat:
    """A format that `feie dump` writes.

    Attributes
    ----------
    name : str
        What ``feie dump --format`` calls it.
    suffix : str
        Of its files, with the dot.
    layout : tuple of str
        Lines of the data sheet that say how the numbers lie in it.
    geometry : bool
        It has room for the detector's score, box and landmarks.
    missing : bool
        Readers of it may be unable to leave out frames without a face: ``--missing`` fills them.
    batch_rows : int
        Rows that are handed over at a time.
    score : bool
        It always holds the detector's score.
    check : callable
        Raises `UsageError` where it has no room for the columns of a plan.
    names : callable
        Gives the names that the columns bear in it.
    """

    name: str
    suffix: str
    layout: Sequence[str]
    geometry: bool = False
    missing: bool = False
    batch_rows: int = 65_536
    score: bool = False
    check: Callable[[DumpPlan], None] = field(default=lambda plan: None)
    names: Callable[[Schema], Sequence[str]] = field(default=lambda schema: schema.columns)


@dataclass(frozen=True)
class OneFile(DumpFormat):
    """A dump that is one file: begun anew if it is interrupted."""

    create: Callable[[Path, DumpPlan], FileWriter] = field(kw_only=True)


@dataclass(frozen=True)
class Folder(DumpFormat):
    """A dump of one file a video: continued where it was interrupted.

    Attributes
    ----------
    encode : callable
        Gives the file of each video of a batch, as bytes; the same bytes for the same rows.
    """

    encode: Callable[[VideoBatch, DumpPlan], Iterator[bytes]] = field(kw_only=True)


def dump_format(name: str) -> OneFile | Folder:
    """Give the format of a name.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in _MODULES:
        raise UsageError(f"unknown format {name!r}; feie dump knows {', '.join(NAMES)}")
    found: OneFile | Folder = import_module(f"feie.features.formats.own.{_MODULES[name]}").DUMP
    return found
