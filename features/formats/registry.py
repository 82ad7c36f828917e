"""The formats that `feie import` reads; a new one is a module with a `FORMAT` and a line here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from feie.features.errors import UsageError
from feie.features.formats.reading.files import look_at
from feie.features.formats.reading.imported import Format

# In the order in which they are asked whether they know a file: the most particular first.
_MODULES = (
    "own.hdf5",
    "own.hdf5_groups",
    "own.muse",
    "own.openface",
    "own.parquet",
    "own.npz",
    "own.safetensors",
    "others.openface",
    "others.pyfeat",
    "others.libreface",
    "others.muse",
    "others.arrays",
    "others.plain",
)


def formats() -> dict[str, Format]:
    """Every format by its name."""
    found = [import_module(f"feie.features.formats.{module}").FORMAT for module in _MODULES]
    return {known.name: known for known in found}


def recognise(root: Path) -> Format:
    """Tell the format of what lies at or below a root by a look at one file.

    Raises
    ------
    UsageError
        There is nothing that could be features.
    """
    sample = look_at(root)
    for known in formats().values():
        if known.recognises(root, sample):
            return known
    if sample.fault:
        raise UsageError(sample.fault)
    raise UsageError(
        f"{sample.first} is of no known format; say which with --format ({', '.join(formats())})"
    )


def find_format(name: str) -> Format:
    """Give the format of a name.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    known = formats()
    if name not in known:
        raise UsageError(f"unknown format {name!r}; known are {', '.join(known)}")
    return known[name]
