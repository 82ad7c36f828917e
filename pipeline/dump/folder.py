"""Writing a dump of one file a video: a later run keeps the files that are as they should be."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feie.features.errors import UsageError
from feie.features.files import (
    appended,
    file_sha256,
    json_object,
    opened_file,
    read_json,
    refuse_link,
    refuse_links,
    remove_all_partials,
    sync_directory,
)
from feie.features.formats.own.reader import PROVENANCE, FileEntry, file_entries
from feie.features.formats.writing.format import Folder
from feie.features.formats.writing.names import is_below, safe_names
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import VideoBatch, batches
from feie.features.store.reader import Store
from feie.pipeline.dump.files import (
    WORK,
    Pace,
    Written,
    as_json,
    disk_errors,
    made_now,
    save,
    working_folder,
)

SHEET = "README.md"
_JOURNAL = "journal.jsonl"


def file_names(plan: DumpPlan, known: Folder) -> dict[str, str]:
    """Give the path of each video's file below the folder."""
    ids = sorted(video.video_id for video in plan.videos)
    names = safe_names(ids, known.suffix, taken=(PROVENANCE, SHEET, WORK))
    return dict(zip(ids, names, strict=True))


def dump_folder(store: Store, plan: DumpPlan, known: Folder, out: Path, pace: Pace) -> Written:
    """Write a dump of one file a video.

    Each file appears under its name when it is whole. What is there from an earlier run with the
    same settings is kept where the video's numbers and the file's bytes are as they were; files of
    videos that are gone from the store are deleted. ``provenance.json`` is written last: a folder
    without it is not complete.

    Raises
    ------
    UsageError
        The folder holds something else, or a dump with other settings.
    StoreError
        The store is damaged, or the folder cannot be written.
    """
    with disk_errors(out):
        _refuse_foreign(out)
        with working_folder(out / WORK, out) as work:
            remove_all_partials(out)
            index = _Index(out, work, plan)
            names = file_names(plan, known)
            found = Written(removed=index.remove_all_but(set(names.values())))
            for batch in batches(store, plan, score=known.score):
                _write_batch(batch, plan, known, names, index, found)
                pace.add(len(batch.videos), len(batch.time))
            index.finish(names)
            found.bytes = sum(entry.bytes for entry in index.files.values())
            shutil.rmtree(work, ignore_errors=True)
    return found


def _write_batch(
    batch: VideoBatch,
    plan: DumpPlan,
    known: Folder,
    names: Mapping[str, str],
    index: _Index,
    found: Written,
) -> None:
    hashes = [_rows_hash(video) for video in batch]
    files = [names[video.video_id] for video in batch.videos]
    todo = [
        i
        for i, (name, digest) in enumerate(zip(files, hashes, strict=True))
        if not index.is_as_it_should_be(name, digest)
    ]
    found.kept += len(files) - len(todo)
    if not todo:
        return
    found.written += len(todo)
    chosen = batch if len(todo) == len(files) else batch.pick(todo)
    for i, data in zip(todo, known.encode(chosen, plan), strict=True):
        index.add(files[i], batch.videos[i].video_id, hashes[i], data)
    index.flush()


def _rows_hash(video: VideoBatch) -> str:
    """Hash all that goes into the file of a video."""
    said = video.videos[0]
    digest = hashlib.sha256(f"{said.video_id}\n{said.fps!r}\n".encode())
    for name, values in video.arrays().items():
        digest.update(f"{name} {values.shape}\n".encode())
        digest.update(values.data if values.flags.c_contiguous else values.tobytes())
    return digest.hexdigest()


def _refuse_foreign(out: Path) -> None:
    """Refuse a place where something else lies."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; this format is a folder: choose another --out")
    if not out.is_dir() or (out / WORK).is_dir() or not any(out.iterdir()):
        return
    try:
        ours = "feie_dump" in read_json(out / PROVENANCE)
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UsageError(f"{out} holds other things; choose a new folder for --out")


class _Index:
    """Which files of a folder are done, kept so that a kill loses no more than a batch.

    While a dump is being written this is a journal of one line a file, in the working folder;
    ``provenance.json`` takes its place when all is done.
    """

    def __init__(self, out: Path, work: Path, plan: DumpPlan) -> None:
        self._out = out
        self._work = work
        self._plan = plan
        self._journal = work / _JOURNAL
        self._settings = json.loads(json.dumps(plan.settings()))
        self._unsaved: list[str] = []
        self._begun = False
        self.files: dict[str, FileEntry] = {}
        self._complete = self._load()

    def _load(self) -> bool:
        """Read what an earlier run left; tells whether it had come to its end."""
        path = self._out / PROVENANCE
        for place in (self._journal, path):
            refuse_link(place)
        try:
            if self._journal.exists():
                with opened_file(self._journal) as file:
                    lines = [*_json_lines(file.read())]
                if lines:
                    self._refuse_other(lines[0])
                    self.files = file_entries({str(e.pop("file")): e for e in lines[1:]})
                    return False
            said = read_json(path)
            self._refuse_other(said["settings"])
            self.files = file_entries(said["files"])
            return True
        except FileNotFoundError:
            return False
        except UsageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{path} is damaged; choose another --out") from None

    def _refuse_other(self, settings: Mapping[str, Any]) -> None:
        for name, wanted in self._settings.items():
            there = settings.get(name)
            if there != wanted:
                short = len(f"{there}{wanted}") < 100
                raise UsageError(
                    f"{self._out} holds a dump with "
                    + (f"{name} {there!r}, now {wanted!r} is wanted" if short else f"other {name}")
                    + ": choose another --out"
                )

    def is_as_it_should_be(self, name: str, rows: str) -> bool:
        """Tell whether a file holds these rows and is as it was written."""
        entry = self.files.get(name)
        if entry is None or entry.rows != rows:
            return False
        refuse_links(self._out, self._out / name)
        try:
            return file_sha256(self._out / name) == entry.sha256
        except OSError:
            return False

    def remove_all_but(self, names: set[str]) -> int:
        """Delete the files of videos that are not asked for any more; gives their number."""
        gone = [name for name in self.files if name not in names]
        for name in filter(is_below, gone):
            refuse_links(self._out, self._out / name)
        for name in gone:
            self._begin()
            del self.files[name]
            if is_below(name):
                (self._out / name).unlink(missing_ok=True)
        return len(gone)

    def _begin(self) -> None:
        """Before the first change: the folder is not complete from now on."""
        if self._begun:
            return
        # Anew, as the journal of a run that was killed may end in half a line.
        lines = [json.dumps(self._settings), *map(_line, self.files.items())]
        save(self._work, _JOURNAL, ("\n".join(lines) + "\n").encode(), sync=True)
        (self._out / PROVENANCE).unlink(missing_ok=True)
        self._begun, self._complete = True, False

    def add(self, name: str, video_id: str, rows: str, data: bytes) -> None:
        """Write the file of a video."""
        self._begin()
        save(self._out, name, data, sync=False)
        digest = hashlib.sha256(data).hexdigest()
        self.files[name] = FileEntry(video=video_id, rows=rows, sha256=digest, bytes=len(data))
        self._unsaved.append(_line((name, self.files[name])))

    def flush(self) -> None:
        """Note in the journal what has been written."""
        with appended(self._journal) as file:
            file.writelines(f"{line}\n".encode() for line in self._unsaved)
        self._unsaved.clear()

    def finish(self, names: Mapping[str, str]) -> None:
        """Write the data sheet and, last, the provenance."""
        table = self._plan.videos_table()
        table["file"] = [names[video_id] for video_id in table["id"]]
        said = {**self._plan.description(), "settings": self._settings, "videos_table": table}
        if self._complete and self._still_says(said):
            return
        entries = {name: entry.model_dump() for name, entry in sorted(self.files.items())}
        said |= {"made": made_now(), "files": entries}
        save(self._out, SHEET, self._plan.sheet.encode(), sync=True)
        save(self._out, PROVENANCE, as_json(said), sync=True)
        sync_directory(self._out)

    def _still_says(self, said: Mapping[str, Any]) -> bool:
        """Tell whether the provenance that is there is what would be written again."""
        there = read_json(self._out / PROVENANCE)
        return all(there.get(name) == value for name, value in said.items())


def _json_lines(text: bytes) -> Iterator[dict[str, Any]]:
    """Give the lines of a journal up to one that a kill has cut."""
    for line in text.split(b"\n"):
        try:
            yield json_object(line)
        except ValueError:
            return


def _line(item: tuple[str, FileEntry]) -> str:
    return json.dumps({"file": item[0], **item[1].model_dump()})


def sample_bytes(batch: Iterator[VideoBatch], plan: DumpPlan, known: Folder) -> int:
    """Bytes of the files of some videos, which are not written."""
    return sum(len(data) for part in batch for data in known.encode(part, plan))
