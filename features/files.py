"""Files that are written whole or not at all, and read without waiting and without a link's aid.

What lies below an output or a store may have been put there by somebody else. So a file is begun
under a name that nobody can foretell, in a way that follows no link (``O_EXCL``, ``O_NOFOLLOW``),
and takes its own name when it is complete and on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from feie.features.errors import LinkError

_PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows lets few people make links, and has no such word
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_LONGEST_JSON = 256 << 20


def is_partial(name: str) -> bool:
    """Tell whether a file name is one of those that a killed writer leaves."""
    return _PARTIAL.fullmatch(name) is not None


def new_name(path: Path) -> Path:
    """Give a hidden name beside a file that nobody can foretell; see `is_partial`."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(16)}.partial")


def remove_all_partials(root: Path) -> None:
    """Delete what killed writers left anywhere below a folder; nobody may be writing there now."""
    for folder, _, names in os.walk(root):  # which follows no links
        for name in filter(is_partial, names):
            Path(folder, name).unlink(missing_ok=True)


def remove_partials(path: Path) -> None:
    """Delete what killed writers of a file left beside it; nobody may be writing it now."""
    start = f".{path.name[:50]}."
    for found in path.parent.iterdir():
        if found.name.startswith(start) and is_partial(found.name):
            found.unlink(missing_ok=True)


def new_file(path: Path, buffering: int = -1) -> IO[bytes]:
    """Open a file that must not be there yet, for writing and reading; a link is there, too.

    Parameters
    ----------
    path : Path
    buffering : int
        As `open` has it.

    Raises
    ------
    OSError
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
    return cast(IO[bytes], os.fdopen(os.open(path, flags, 0o666), "w+b", buffering))


@contextmanager
def written_whole(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """Give an empty file that replaces `path` at the end of the block; after an error it is gone.

    Parameters
    ----------
    path : Path
        If it is a link, the link is replaced and not what it points to.
    sync : bool
        Wait until the bytes are on the disk before they get their name.

    Raises
    ------
    OSError
        It cannot be written; what was there before is still there.
    """
    temporary = new_name(path)
    try:
        with new_file(temporary) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: Any, *, sync: bool = True) -> None:
    """Replace a file as a whole, see `written_whole`: a kill or a full disk leaves the old one.

    Raises
    ------
    OSError
        It cannot be written.
    """
    with written_whole(path, sync=sync) as file:
        file.write(data)


def appended(path: Path) -> IO[bytes]:
    """Open a file for appending that is no link.

    Raises
    ------
    OSError
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_LINK | _BINARY
    return cast(IO[bytes], os.fdopen(os.open(path, flags, 0o666), "ab"))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened_file(path: Path) -> IO[bytes]:
    """Open a file for reading; a pipe or a device in its place is an error and nobody waits.

    Raises
    ------
    OSError
    """
    descriptor = os.open(path, os.O_RDONLY | _AT_ONCE | _BINARY)
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return cast(IO[bytes], os.fdopen(descriptor, "rb"))
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device and no file", str(path))


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes.

    Raises
    ------
    OSError
    """
    with opened_file(path) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def json_object(text: bytes | str) -> dict[str, Any]:
    """Read a JSON object that somebody else may have written.

    Raises
    ------
    ValueError
        It is cut, no UTF-8, nested too deeply, or no object; in a few words.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object; see `json_object`.

    Raises
    ------
    OSError
        It is not there, or cannot be read.
    ValueError
        It holds something else.
    """
    with opened_file(path) as file:
        text = file.read(_LONGEST_JSON + 1)
    if len(text) > _LONGEST_JSON:
        raise ValueError(f"it is longer than {_LONGEST_JSON >> 20} MB")
    return json_object(text)


def refuse_link(path: Path) -> None:
    """Refuse a path that is a link.

    Raises
    ------
    LinkError
    """
    try:
        target = os.readlink(path)
    except OSError:  # no link, or nothing
        return
    raise LinkError(
        f"{path} is a link to {target}, and no link is followed below an output or a store: "
        "remove it, or choose another place"
    )


def refuse_links(root: Path, path: Path) -> None:
    """Refuse a path if it, or a folder on the way from `root` to it, is a link.

    The root itself may be one: it is the user's own word.

    Raises
    ------
    LinkError
        The message names the link.
    """
    at = root
    for part in path.relative_to(root).parts:
        at = at / part
        refuse_link(at)
