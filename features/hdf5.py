"""HDF5 files of others: only what lies in the file itself is read.

HDF5 can name other files of the machine that reads it, by external links, external storage and
virtual data sets, and would hand their bytes out as if they were the file's own.
"""

from __future__ import annotations

from typing import Any

import h5py

_MOST_LINKS = 16


def member(file: h5py.File, path: str) -> Any:
    """Give the data set or group at a path of a file.

    Raises
    ------
    KeyError
        There is none.
    ValueError
        It, or a part of the way to it, lies in another file.
    """
    return _follow(file, file, path, 0)


def has_member(file: h5py.File, path: str) -> bool:
    """Tell whether there is something at a path; see `member`."""
    try:
        member(file, path)
    except KeyError:
        return False
    return True


def refuse_foreign(file: h5py.File) -> None:
    """Refuse a file of whose topmost data sets and groups one lies in another file.

    Raises
    ------
    ValueError
    """
    for name in file:
        try:
            member(file, name)
        except KeyError:  # a soft link to nothing
            continue


def _follow(file: h5py.File, start: Any, path: str, links: int) -> Any:
    at = file if path.startswith("/") else start
    for part in filter(None, path.split("/")):
        if not isinstance(at, h5py.Group):
            raise KeyError(f"{at.name} is no group")
        link = at.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ValueError(f"{part!r} is a link to another file, which is not read")
        if isinstance(link, h5py.SoftLink):
            if links == _MOST_LINKS:
                raise KeyError(f"{part!r} is a link to a link, and so on")
            at = _follow(file, at, link.path, links + 1)
        else:
            at = at[part]
    if isinstance(at, h5py.Dataset) and (at.external or at.is_virtual):
        raise ValueError(f"{at.name!r} takes its numbers from another file, which is not read")
    return at
