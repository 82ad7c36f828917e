"""`feie import`: per-frame features that other tools computed become a store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import pandas as pd
from pydantic import computed_field

from feie.features.errors import StoreError, UsageError, VideoError
from feie.features.formats.reading.imported import FeatureFiles, Format, ImportedVideo
from feie.features.formats.registry import find_format, recognise
from feie.features.schema import Schema
from feie.features.store.layout import OK
from feie.features.store.reader import Store, open_store, read_attributes
from feie.features.store.records import StoreSettings
from feie.features.store.writer import StoreWriter
from feie.pipeline.imports.options import ImportFeaturesOptions
from feie.pipeline.imports.plan import Plan, Task, plan, timed_otherwise
from feie.pipeline.imports.records import UNTIMED, record_of, untimed
from feie.pipeline.known import KnownVideos, refuse_track_names, said_before
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.provenance import library_versions
from feie.pipeline.result import Result, failures, some

__all__ = ["ImportFeaturesOptions", "ImportFeaturesResult", "run"]


class ImportFeaturesResult(Result):
    """What `feie import` did.

    Attributes
    ----------
    format : str
        Of the files, as told or as found.
    files, videos : int
        Found; a file may hold several videos.
    imported, skipped : int
        Done in this run; done before and unchanged.
    failures : dict of str to str
        Videos of these files that cannot be read, and why.
    replaced : int
        Videos of those imported that the store held from other bytes.
    frames : int
        Frames written in this run.
    face_share : float
        Share of those frames with a face, or, of features that need none, with all numbers.
    groups : dict of str to (int, int)
        Groups of columns in the store.
    notes : dict of str to int
        What was decided, and of how many videos that is true.
    ignored : list of str
        Files that were passed over.
    planned : list of str
        With a dry run: the ids that would be imported.
    """

    store: str
    format: str
    files: int
    videos: int
    imported: int = 0
    skipped: int = 0
    replaced: int = 0
    failures: dict[str, str] = {}
    frames: int = 0
    face_share: float = 0.0
    seconds: float = 0.0
    frames_per_second: float = 0.0
    groups: dict[str, tuple[int, int]] = {}
    notes: dict[str, int] = {}
    ignored: list[str] = []
    planned: list[str] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def failed(self) -> int:
        """Number of `failures`."""
        return len(self.failures)

    @property
    def exit_code(self) -> int:
        """3 where videos failed, now or before."""
        return 3 if self.failed else 0

    def lines(self) -> list[str]:
        """Say what was done, or would be, and name what was not."""
        todo = f"{len(self.planned)} to import"
        said = [
            *self.planned,
            f"{self.files} files of format {self.format}, {self.videos} videos: "
            f"{todo if self.planned else f'{self.imported} imported'}, "
            f"{self.skipped} done before, {self.failed} failed",
        ]
        if self.replaced:
            said.append(
                f"{self.replaced} replaced what the store held of the same id from other bytes"
            )
        if self.frames:
            said.append(
                f"{self.frames} frames, {self.face_share:.1%} of them valid, "
                f"{self.frames_per_second:g} frames/s → {self.store}"
            )
            groups = ", ".join(f"{name} ({b - a})" for name, (a, b) in self.groups.items())
            said.append(f"groups of columns: {groups}")
        said += [f"{note}: {count} videos" for note, count in self.notes.items()]
        said += failures(self.failures)
        if self.ignored:
            said.append(f"passed over ({len(self.ignored)}): {some(self.ignored)}")
        return said


def run(
    options: ImportFeaturesOptions, progress: ProgressCallback = silent
) -> ImportFeaturesResult:
    """Import every video of these files that the store does not hold yet.

    One video is in memory at a time. One that cannot be read is kept as a named failure; the run
    goes on.

    Raises
    ------
    FeieError
        Nothing can be done as asked: no such files, an unknown format, no video that could be
        read, a store of other columns or options.
    """
    if options.store.resolve() == options.source.resolve():
        raise UsageError(f"--store and the source are the same place: {options.source}")
    if not options.source.exists():
        raise UsageError(f"{options.source} does not exist; give a file or a folder of features")
    store = _there(options)
    form = _format(options, store)
    if store is not None and options.fps is None:
        # A store goes on as it was begun.
        options = options.model_copy(update={"fps": store.provenance["options"].get("import_fps")})
    files = form.open(options.source, options.reading())
    if options.all_faces:
        refuse_track_names(files.files)
    videos = pd.DataFrame(columns=["status", "message"])
    stale: list[str] = []
    if store is not None:
        stale = timed_otherwise(store, options.fps)
        # What has no fingerprint is read again.
        videos = store.videos.copy()
        videos.loc[stale, "fingerprint"] = ""
    known = KnownVideos(videos, options.all_faces)
    todo = plan(files, known, progress)
    if stale:
        _refuse_lost(options, stale, known, todo)
    result = ImportFeaturesResult(
        store=str(options.store),
        format=form.name,
        files=len(files.files),
        videos=todo.videos,
        skipped=todo.videos - sum(len(task.wanted) for task in todo.tasks),
        ignored=list(files.ignored),
    )
    if options.dry_run:
        result.planned = [video_id for task in todo.tasks for video_id in task.wanted]
        return result
    _import(options, store, files, todo, known, result, progress)
    return result


def _refuse_lost(
    options: ImportFeaturesOptions, stale: list[str], known: KnownVideos, todo: Plan
) -> None:
    """Refuse other times where some videos would keep their old ones."""
    again = {name for task in todo.tasks for base in task.wanted for name in known.ids(base)}
    if lost := [name for name in stale if name not in again]:
        raise UsageError(
            f"{len(lost)} videos of {options.store} are not in {options.source}, e.g. {lost[0]!r}, "
            f"and would keep their old times: give all its files with --fps, or another --store"
        )


def _format(options: ImportFeaturesOptions, store: Store | None) -> Format:
    """Give the format that is named, else that of the store, else the one that files look like."""
    name = options.format
    if name == "auto" and store is not None:
        name = store.provenance["options"].get("import_format", name)
    return recognise(options.source) if name == "auto" else find_format(name)


def _there(options: ImportFeaturesOptions) -> Store | None:
    """Open the store that is to go on; None where none was finished being laid out."""
    path = options.store
    if not (path / "zarr.json").is_file():
        return None
    try:
        store = open_store(path)
    except StoreError:
        if "spec_version" in read_attributes(str(path)):
            raise
        return None
    return store if store.committed else None


def _import(
    options: ImportFeaturesOptions,
    store: Store | None,
    files: FeatureFiles,
    todo: Plan,
    known: KnownVideos,
    result: ImportFeaturesResult,
    progress: ProgressCallback,
) -> None:
    started = time.monotonic()
    found = _videos(files, todo.tasks)
    early, schema, embedding = _columns(store, found)
    settings = _settings(options, result.format, files, schema, embedding)
    total = sum(len(task.wanted) for task in todo.tasks)
    notes: Counter[str] = Counter()
    done: set[str] = set()
    faces = 0
    with StoreWriter(
        options.store,
        settings,
        commit_videos=options.commit_videos,
        commit_seconds=options.commit_seconds,
    ) as writer:
        detector = files.origin.get("detector")
        if detector is not None and todo.tasks:
            writer.use_detector(detector)
        writer.touch(known.touched)
        for (task, base), group in _by_source(chain(early, found)):
            records = [record_of(video, task.file, schema, embedding) for video in group]
            done.add(base)
            gone = set(known.ids(base)) - {record.id for record in records}
            if not said_before(records, writer.known):
                writer.append(*records, instead_of=gone)
            message = ""
            for video, record in zip(group, records, strict=True):
                if record.failed:
                    result.failures[record.id] = message = record.message
                else:
                    notes.update(video.notes)
                    result.frames += len(record.time)
                    faces += int(record.valid.sum())
            if not message:
                result.imported += 1
                row = known.row(base)
                result.replaced += row is not None and row["status"] == OK
            rate = round(result.frames / max(time.monotonic() - started, 1e-9))
            info = {"frames/s": rate, "failed": len(result.failures)}
            text = f"{records[0].id}: {message}" if message else ""
            progress(Progress("videos", len(done), total, info, text))
    result.seconds = round(time.monotonic() - started, 3)
    result.frames_per_second = round(result.frames / max(result.seconds, 1e-9), 1)
    result.face_share = faces / result.frames if result.frames else 0.0
    result.groups = dict(schema.groups)
    result.notes = dict(notes)
    result.failures = dict(sorted(result.failures.items()))


Found = tuple[Task, str, ImportedVideo]
"""A task, the id that it wanted, and what came of it (of all faces, one of several)."""


def _videos(files: FeatureFiles, tasks: list[Task]) -> Iterator[Found]:
    """Read what is wanted, one video at a time; whatever cannot be read comes as a failure."""
    for task in tasks:
        missing = dict.fromkeys(task.wanted)
        failure = task.failure
        if not failure:
            try:
                for video in files.read(task.file, set(task.wanted)):
                    base = _base(video.video_id, task)
                    missing.pop(base, None)
                    yield task, base, video
                failure = f"broken: {task.file.relative} holds no such video any more"
            except VideoError as error:
                failure = str(error)
        for video_id in missing:
            yield task, video_id, ImportedVideo.failed(video_id, failure)


def _base(video_id: str, task: Task) -> str:
    return video_id if video_id in task.wanted else video_id.rpartition("#")[0]


def _by_source(found: Iterator[Found]) -> Iterator[tuple[tuple[Task, str], list[ImportedVideo]]]:
    """Put the faces of one video together: they are committed together."""
    key: tuple[Task, str] | None = None
    group: list[ImportedVideo] = []
    for task, base, video in found:
        if key is not None and key[1] != base:
            yield key, group
            group = []
        key = (task, base)
        group.append(video)
    if key is not None:
        yield key, group


def _columns(store: Store | None, found: Iterator[Found]) -> tuple[list[Found], Schema, int]:
    """Settle the columns of the store: those it has, or those of the first video that is sound.

    Returns
    -------
    early : list
        What was read for it, to be imported before the rest.
    schema : Schema
    embedding : int
        Width of the embedding; 0 for none.
    """
    if store is not None:
        width = store.array("embedding").shape[1] if store.has_embedding else 0
        return [], store.schema, int(width)
    early: list[Found] = []
    for item in found:
        early.append(item)
        video = item[2]
        if not video.failure:
            if untimed(video):
                raise UsageError(f"{item[0].file.relative}: {UNTIMED}")
            width = 0 if video.embedding is None else video.embedding.shape[1]
            return early, video.schema, width
    if not early:
        raise UsageError("there is no video in these files")
    raise UsageError(
        f"none of these {len(early)} videos can be imported, so there is no store; the first is "
        f"{early[0][2].failure}"
    )


def _settings(
    options: ImportFeaturesOptions,
    format_name: str,
    files: FeatureFiles,
    schema: Schema,
    embedding: int,
) -> StoreSettings:
    origin = files.origin
    said = {
        "import_format": format_name,
        "import_groups": list(options.groups),
        "import_group": options.group,
        "import_fps": options.fps,
    }
    return StoreSettings(
        schema=schema,
        extractor=origin.get("extractor") or {"name": format_name, "sha256": None},
        options={**origin.get("options", {}), **said}
        | ({"all_faces": True} if options.all_faces else {}),
        embedding_dim=embedding,
        session={
            "versions": library_versions(),
            "command": "import",
            "arguments": options.arguments(format_name),
        },
        corrected=frozenset({"import_fps"}),
    )
