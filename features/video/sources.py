"""Finding the videos below a folder, naming them, and telling whether one has changed."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feie.features.errors import UsageError, VideoError
from feie.features.video.numbering import VIDEO_SUFFIXES, WHICH, frame_images

_READ_SIZE = 1 << 20


@dataclass(frozen=True)
class Source:
    """One video: a file, or a folder of numbered images.

    Attributes
    ----------
    video_id : str
        Path below the root without the file's suffix, ``/``-separated, NFC-normalised.
    path : Path
        Where to read it.
    relative : str
        Path below the root with suffix, ``/``-separated.
    kind : {"video", "frames"}
        A file, or a folder of numbered images.
    size : int
        Bytes: of the file, or of all numbered images together.
    mtime_ns : int
        Last change, ns since the epoch: of the file, or of the newest image.
    """

    video_id: str
    path: Path
    relative: str
    kind: Literal["video", "frames"]
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Discovery:
    """What lies below a root.

    Attributes
    ----------
    sources : tuple of Source
        Sorted by video id; ids are unique.
    ignored : tuple of str
        Files, relative to the root, that are no videos by their suffix, and hidden files;
        sorted.
    passed_over : tuple of str
        A sentence for each folder of numbered images that are no frames, and for each folder that
        could not be listed.
    unlisted : tuple of str
        The latter folders, relative to the root.
    """

    sources: tuple[Source, ...]
    ignored: tuple[str, ...]
    passed_over: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


def discover(root: Path) -> Discovery:
    """Find every video at or below `root`, in an order that depends on names only.

    Folders are searched recursively; a folder that holds frames, see `numbering.frame_images`, is
    itself one video (and is still searched). A folder that cannot be listed costs what is in it.
    Links to files and folders are followed, but each real folder is entered once, under its own
    name where it has one below the root, so that cycles of links end. Hidden entries and Zarr
    stores are not entered. A dangling link with a video's suffix is listed, so that reading it
    fails by name instead of silently.

    Parameters
    ----------
    root : Path
        A folder, a single video file, or a single folder of numbered images (whose id is then
        its own name).

    Raises
    ------
    UsageError
        The root does not exist, cannot be listed or holds no video, two sources have the same id,
        or a name holds control characters.
    """
    if not root.exists():
        raise UsageError(f"{root} does not exist; --videos wants a folder of videos")
    if not root.is_dir():
        if not _is_video(root.name):
            raise UsageError(f"{root} is not a video by its suffix; known are {_suffixes()}")
        return Discovery((file_source(root, root.name),), ())

    sources: list[Source] = []
    ignored: list[str] = []
    passed_over: list[str] = []
    unlisted: dict[str, str] = {}
    for folder, relative, files in _walk(root, unlisted):
        frames, why_not = frame_images(files)
        if frames:
            sources.append(_frames_source(folder, relative or root.resolve().name, list(frames)))
        elif why_not:
            passed_over.append(f"{relative or root}: its numbered images {why_not}; {WHICH}")
        for name in files:
            if name in frames:
                continue
            below = f"{relative}/{name}" if relative else name
            if _is_video(name):
                sources.append(file_source(folder / name, below))
            else:
                ignored.append(below)
    if not sources:
        found = f"{len(ignored)} other files" if ignored else "it is empty"
        raise UsageError(
            f"no videos below {root} ({found}); wanted are files with suffix {_suffixes()} "
            f"or folders of numbered images: {WHICH}"
        )
    _check_unique(sources)
    passed_over += [
        f"{folder}: this folder cannot be listed: {why}" for folder, why in unlisted.items()
    ]
    return Discovery(
        tuple(sorted(sources, key=lambda s: s.video_id)),
        tuple(sorted(ignored)),
        tuple(sorted(passed_over)),
        tuple(sorted(unlisted)),
    )


def fingerprint(source: Source, on_block: Callable[[], None] = lambda: None) -> str:
    """Hash of a source's bytes: ``sha256:`` and 64 hexadecimal digits.

    A frame folder is hashed as the sequence of its numbered images by name, each as name,
    size and bytes; other files in the folder do not count.

    Parameters
    ----------
    source : Source
        What to hash.
    on_block : callable, optional
        Called for each block that was read.

    Raises
    ------
    VideoError
        The source is gone or unreadable (reason ``missing``).
    """
    digest = hashlib.sha256()
    try:
        if source.kind == "video":
            for block in _blocks(source.path):
                digest.update(block)
                on_block()
        else:
            names, _ = frame_images(os.listdir(source.path))
            for name in sorted(names):
                path = source.path / name
                digest.update(f"{name}\0{path.stat().st_size}\0".encode())
                for block in _blocks(path):
                    digest.update(block)
                    on_block()
    except OSError as error:
        raise VideoError(
            "missing", f"{source.relative} cannot be read: {error.strerror}"
        ) from error
    return f"sha256:{digest.hexdigest()}"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_SIZE):
            yield block


def _is_video(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def _suffixes() -> str:
    return " ".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))


def _walk(
    root: Path, unlisted: dict[str, str] | None = None
) -> Iterator[tuple[Path, str, list[str]]]:
    """Every folder once, with its path below the root ("" for the root) and its file names.

    A folder below the root that cannot be listed is noted in `unlisted`, or else an error.
    """
    entered: set[tuple[int, int]] = set()
    # Folders reached through links wait until all real ones are done: where a folder has a
    # name of its own below the root, its videos carry that name.
    pending: list[tuple[Path, str]] = [(root, "")]
    linked: list[tuple[Path, str]] = []
    while pending or linked:
        folder, relative = pending.pop() if pending else linked.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if unlisted is not None and relative:
                unlisted[relative] = error.strerror or str(error)
                continue
            raise UsageError(f"{folder} cannot be listed: {error.strerror}") from error
        if any(entry.name == "zarr.json" for entry in entries):
            continue
        files: list[str] = []
        folders: list[tuple[Path, str]] = []
        for entry in entries:
            below = _checked(f"{relative}/{entry.name}" if relative else entry.name)
            if entry.is_dir():
                if entry.name.startswith("."):
                    continue
                target = linked if entry.is_symlink() else folders
                target.append((folder / entry.name, below))
            # Pipes, sockets and devices are left out: opening one could wait for ever.
            elif entry.is_file() or entry.is_symlink():
                files.append(entry.name)
        pending.extend(reversed(folders))
        yield folder, relative, files


def _checked(relative: str) -> str:
    if "\\" in relative or any(unicodedata.category(c) in ("Cc", "Cs") for c in relative):
        raise UsageError(
            f"the name {relative!r} holds a backslash, control characters or invalid Unicode; "
            f"rename it"
        )
    return relative


def files_below(root: Path) -> Iterator[tuple[Path, str]]:
    """Give every file below a folder and its path below it, in the order of `discover`.

    Raises
    ------
    UsageError
        A folder cannot be listed, or a name holds control characters.
    """
    for folder, relative, names in _walk(root):
        for name in names:
            yield folder / name, f"{relative}/{name}" if relative else name


def file_source(path: Path, relative: str) -> Source:
    """Name a file as one video.

    Parameters
    ----------
    path : Path
    relative : str
        Its path below the root.

    Raises
    ------
    UsageError
        It is neither a file nor a folder, or its name holds control characters.
    """
    try:
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
        regular = stat.S_ISREG(status.st_mode)
    except OSError:  # a dangling link, or deleted since it was listed: reading it says so
        size, mtime_ns, regular = 0, 0, True
    if not regular:
        raise UsageError(f"{path} is neither a file nor a folder")
    video_id = os.path.splitext(_checked(relative))[0]
    return Source(_normal(video_id), path, relative, "video", size, mtime_ns)


def _frames_source(folder: Path, relative: str, names: list[str]) -> Source:
    size = mtime_ns = 0
    for name in names:
        try:
            status = os.stat(folder / name)
        except OSError:  # as above: reading the folder names the image
            continue
        size += status.st_size
        mtime_ns = max(mtime_ns, status.st_mtime_ns)
    return Source(_normal(_checked(relative)), folder, relative, "frames", size, mtime_ns)


def _normal(video_id: str) -> str:
    # File systems differ in how they store accents; label files are written by people.
    return unicodedata.normalize("NFC", video_id)


def _check_unique(sources: list[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.video_id, source)
        if other is not source:
            raise UsageError(
                f"{other.relative} and {source.relative} have the same video id "
                f"{source.video_id!r}; rename or move one of them"
            )
