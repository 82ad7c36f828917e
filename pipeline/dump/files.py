"""Writing dumps so that what has its final name is whole: one file anew, a folder continued."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from feie import __version__
from feie.features.errors import FeieError, StoreError, StoreLockedError, UsageError
from feie.features.files import (
    file_sha256,
    read_json,
    refuse_link,
    refuse_links,
    remove_partials,
    sync_directory,
    write_whole,
)
from feie.features.formats.own.reader import provenance_of
from feie.features.formats.writing.format import OneFile
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import batches
from feie.features.store.reader import Store

WORK = ".dumping"


@dataclass
class Written:
    """What a dump did.

    Attributes
    ----------
    written, kept, removed : int
        Videos written; found as they should be; and those that are no longer in the store, whose
        files were deleted.
    bytes : int
        Of all files of numbers together.
    """

    written: int = 0
    kept: int = 0
    removed: int = 0
    bytes: int = 0


@dataclass
class Pace:
    """Tells how far a dump is."""

    tell: Callable[[int, int, float], None]
    total: int
    done: int = 0
    frames: int = 0
    _start: float = field(default_factory=time.monotonic)

    def add(self, videos: int, frames: int) -> None:
        """Count what has been written."""
        self.done += videos
        self.frames += frames
        self.tell(self.done, self.total, self.frames / max(time.monotonic() - self._start, 1e-9))


@contextmanager
def working_folder(path: Path, dumping: Path) -> Iterator[Path]:
    """Make a folder for what is not finished, and be the only one who works there.

    Raises
    ------
    StoreLockedError
        Another process dumps to the same place.
    LinkError
        The folder or its lock is a link.
    """
    refuse_link(path)
    path.mkdir(parents=True, exist_ok=True)
    refuse_link(path / "lock")
    lock = FileLock(path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise StoreLockedError(
            f"another process dumps to {dumping}; wait for it, or choose another --out"
        ) from None
    try:
        yield path
    finally:
        lock.release()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says into one sentence."""
    try:
        yield
    except FeieError:
        raise
    except OSError as error:
        why = error.strerror or " ".join(str(error).split())
        raise StoreError(f"cannot write {path}: {why}") from error


def save(root: Path, name: str, data: bytes, *, sync: bool) -> None:
    """Write a file below a folder, whole; no link on the way is followed.

    Raises
    ------
    LinkError, OSError
    """
    path = root / name
    refuse_links(root, path)
    try:
        write_whole(path, data, sync=sync)
    except FileNotFoundError:  # the first of its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data, sync=sync)


def as_json(content: Mapping[str, Any]) -> bytes:
    """Write JSON for people and programs."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def made_now() -> dict[str, str]:
    """Say which feie wrote a dump, and when."""
    return {"feie": __version__, "at": datetime.now(UTC).isoformat(timespec="seconds")}


def sheet_of(out: Path) -> Path:
    """Name of the data sheet beside a dump that is one file."""
    return out.with_name(f"{out.name}.README.md")


def dump_file(store: Store, plan: DumpPlan, known: OneFile, out: Path, pace: Pace) -> Written:
    """Write a dump that is one file.

    The file appears under its name when it is complete and on the disk, after its data sheet and
    its provenance. A run that was interrupted is begun anew.

    Raises
    ------
    UsageError
        Something else is there already.
    StoreError
        The store is damaged, or the file cannot be written.
    """
    sheet, beside = sheet_of(out), provenance_of(out)
    with disk_errors(out):
        for path in (out, sheet, beside):
            refuse_link(path)
        if out.is_dir():
            raise UsageError(
                f"{out} is a folder; --out names a file, e.g. {out / 'features'}{known.suffix}"
            )
        if out.exists():
            _refuse_other(out, beside, plan)
            return Written(kept=len(plan.videos), bytes=out.stat().st_size)
        out.parent.mkdir(parents=True, exist_ok=True)
        work = out.with_name(f".{out.name}{WORK}")
        with working_folder(work, out):
            for left in work.glob(f"*{known.suffix}"):  # of a dump that was killed
                left.unlink()
            for path in (sheet, beside):
                remove_partials(path)
            partial = work / f"{secrets.token_hex(16)}{known.suffix}"
            try:
                write_file(store, plan, known, partial, pace)
                _sync(partial)
                said = {
                    **plan.description(),
                    "videos_table": plan.videos_table(),
                    "made": made_now(),
                    "files": {
                        out.name: {
                            "sha256": file_sha256(partial),
                            "bytes": partial.stat().st_size,
                        }
                    },
                }
                size = partial.stat().st_size
                write_whole(sheet, plan.sheet.encode())
                write_whole(beside, as_json(said))
                partial.replace(out)
                sync_directory(out.parent)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return Written(written=len(plan.videos), bytes=size)


def write_file(store: Store, plan: DumpPlan, known: OneFile, path: Path, pace: Pace) -> None:
    """Write the file of a dump that is one file."""
    writer = known.create(path, plan)
    try:
        for batch in batches(store, plan, score=known.score, most_rows=known.batch_rows):
            writer.write(batch)
            pace.add(len(batch.videos), len(batch.time))
    except BaseException:
        with suppress(Exception):  # what failed first is what counts
            writer.close()
        raise
    writer.close()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _refuse_other(out: Path, beside: Path, plan: DumpPlan) -> None:
    """Refuse a file that is not the very dump that is asked for."""
    try:
        said = read_json(beside)
        digest = said["files"][out.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{out} exists; choose another --out, or remove it first") from None
    wanted = json.loads(json.dumps(plan.description()))
    if any(said.get(name) != value for name, value in wanted.items()):
        raise UsageError(
            f"{out} is a dump of another state of the store or with other options; choose another "
            "--out, or remove it first"
        )
    if digest != file_sha256(out):
        raise UsageError(f"{out} is not as it was written; remove it and dump again")
