"""`feie extract`: every video of a folder becomes rows of a store, once."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from pydantic import computed_field

from feie.features.errors import FeieError, StoreNotFoundError, UsageError, VideoError
from feie.features.faces.stream import FaceOptions
from feie.features.store.backends.location import is_url
from feie.features.store.backends.opening import backend_of
from feie.features.store.reader import Store, open_store
from feie.features.store.records import StoreSettings, VideoRecord
from feie.features.store.writer import StoreWriter, check_part
from feie.features.video.sources import Discovery, Source, discover, fingerprint
from feie.pipeline.engine.choose import running_engine
from feie.pipeline.engine.detector import likely_detector, own_detector
from feie.pipeline.engine.options import ExtractOptions
from feie.pipeline.engine.protocol import Provenance
from feie.pipeline.extract.reproduce import arguments_of
from feie.pipeline.known import KnownVideos, refuse_track_names, said_before
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result, failures, some

__all__ = ["ExtractOptions", "ExtractResult", "run"]


class ExtractResult(Result):
    """What `feie extract` did.

    Attributes
    ----------
    videos : int
        Videos found below the folder.
    extracted, skipped : int
        Done in this run; done before and unchanged.
    failed : int
        Videos of this folder that failed, now or before.
    failures : dict of str to str
        Which they are, and why.
    replaced : int
        Videos of those extracted that the store held from other bytes.
    frames : int
        Frames written in this run.
    face_share : float
        Share of those frames with a face.
    fallback_frames : int
        Frames in which only the second or a later of several detectors found a face.
    ignored : list of str
        Files that are no videos by their suffix.
    faceless : list of str
        Videos extracted in this run in which no frame shows a face.
    remarks : list of str
        Folders passed over, and what was done to pictures besides decoding them.
    warnings : dict of str to int
        Lines that libpng and libjpeg had to say of a video's images.
    damaged : dict of str to list of str
        Images of a video that do not decode, or not wholly.
    planned : list of str
        With a dry run: the ids that would be extracted.
    """

    store: str
    videos: int
    extracted: int = 0
    skipped: int = 0
    replaced: int = 0
    failures: dict[str, str] = {}
    frames: int = 0
    face_share: float = 0.0
    fallback_frames: int = 0
    seconds: float = 0.0
    frames_per_second: float = 0.0
    ignored: list[str] = []
    faceless: list[str] = []
    remarks: list[str] = []
    warnings: dict[str, int] = {}
    damaged: dict[str, list[str]] = {}
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
        todo = f"{len(self.planned)} to extract"
        said = [
            *self.planned,
            f"{self.videos} videos: {todo if self.planned else f'{self.extracted} extracted'}, "
            f"{self.skipped} done before, {self.failed} failed",
        ]
        if self.replaced:
            said.append(
                f"{self.replaced} replaced what the store held of the same id from other bytes"
            )
        if self.frames:
            said.append(
                f"{self.frames} frames, {self.face_share:.1%} with a face, "
                f"{self.frames_per_second:g} frames/s → {self.store}"
            )
        if self.fallback_frames:
            said.append(
                f"in {self.fallback_frames} frames only the second or a later detector found a face"
            )
        if self.faceless:
            said.append(f"no face in {len(self.faceless)} videos: {some(self.faceless)}")
        said += self.remarks
        if self.warnings:
            counts = some([f"{name} ({count})" for name, count in self.warnings.items()])
            total = sum(self.warnings.values())
            said.append(f"libpng and libjpeg warned {total} times: {counts}")
        if self.damaged:
            named = some([f"{name}: {some(images)}" for name, images in self.damaged.items()])
            total = sum(map(len, self.damaged.values()))
            said.append(f"damaged images ({total}): {named}")
        said += failures({name: _sentence(name, why) for name, why in self.failures.items()})
        if self.ignored:
            said.append(f"passed over, no videos ({len(self.ignored)}): {some(self.ignored)}")
        return said


def run(options: ExtractOptions, progress: ProgressCallback = silent) -> ExtractResult:
    """Extract every video that the store does not hold yet.

    A video is skipped when the store holds it from the same bytes. One that cannot be processed
    is kept as a named failure; the run goes on.

    Raises
    ------
    FeieError
        Nothing can be done as asked: no videos, no weights, another writer, another detector.
    """
    # What makes no sense is refused before all else.
    FaceOptions(faces=options.faces, fps=options.fps, smooth=options.smooth)
    found = discover(options.videos)
    sources = _of_shard(found.sources, options.shard)
    _refuse_overlap(options)
    if options.all_faces:
        refuse_track_names(found.sources)
    if options.dry_run:
        return _plan_only(options, found, sources)
    started = time.monotonic()
    result = ExtractResult(
        store=options.store,
        videos=len(sources),
        ignored=_named(found),
        remarks=list(found.passed_over),
    )
    asked, options = options.detector is not None, _with_own_detector(options)
    faces = 0
    notes: dict[str, list[str]] = {}
    with (
        running_engine(options, progress) as engine,
        StoreWriter(
            options.store,
            _settings(options, engine.provenance),
            commit_videos=options.commit_videos,
            commit_seconds=options.commit_seconds,
            waiting=lambda words: progress(Progress("comparing", 0, message=words)),
        ) as writer,
    ):
        known = KnownVideos(writer.known, options.all_faces)
        todo = _compare(sources, known, options.retry_failed, progress)
        writer.touch(known.touched)
        if todo or asked:
            writer.refuse_other_detector(engine.provenance.detector)
        result.skipped = len(sources) - len(todo)
        result.failures = _failed_before(sources, known, todo)
        result.failures |= _unlisted(found)
        named, done = False, 0
        for finished in engine.records(todo):
            if finished is None:
                writer.commit_if_due()
                continue
            done += 1
            video_id, record = finished.source.video_id, finished.records[0]
            if engine.detector is not None and not named:
                writer.use_detector(engine.detector)
                named = True
            if not said_before(finished.records, writer.known):
                gone = set(known.ids(video_id)) - {r.id for r in finished.records}
                for words in finished.remarks.notes:
                    writer.note(video_id, words)
                writer.append(*finished.records, instead_of=gone)
            result.fallback_frames += finished.fallback_frames
            for words in finished.remarks.notes:
                notes.setdefault(words, []).append(video_id)
            if finished.remarks.warnings:
                result.warnings[video_id] = finished.remarks.warnings
            if finished.remarks.damaged:
                result.damaged[video_id] = finished.remarks.damaged
            if record.failed:
                result.failures[video_id] = record.message
            else:
                result.extracted += 1
                result.replaced += _is_other(record, known.row(video_id))
                result.frames += len(record.time)
                seen = int(np.any([r.valid for r in finished.records], axis=0).sum())
                faces += seen
                if not seen:
                    result.faceless.append(video_id)
            seconds = max(time.monotonic() - started, 1e-9)
            progress(
                Progress(
                    "videos",
                    done,
                    len(todo),
                    {
                        "frames/s": round(engine.frames / seconds, 1),
                        "failed": len(result.failures),
                    },
                )
            )
    result.seconds = round(time.monotonic() - started, 3)
    result.face_share = faces / result.frames if result.frames else 0.0
    result.frames_per_second = round(result.frames / max(result.seconds, 1e-9), 1)
    result.failures = dict(sorted(result.failures.items()))
    result.remarks += [f"{words} ({len(ids)}: {some(ids)})" for words, ids in notes.items()]
    return result


def _sentence(video_id: str, message: str) -> str:
    """Give a failure without its code, where the sentence names the file."""
    code, _, sentence = message.partition(": ")
    named = PurePosixPath(video_id).name in sentence
    return sentence if named and code.replace("-", "").isalpha() else message


def _is_other(record: VideoRecord, before: Mapping[str, Any] | None) -> bool:
    """Whether the store held this video from other bytes."""
    return before is not None and before["fingerprint"] not in ("", record.fingerprint)


def _unlisted(found: Discovery) -> dict[str, str]:
    """Folders whose videos nobody could see; that of a file system's own is none."""
    return {
        f"{folder}/": "this folder cannot be listed"
        for folder in found.unlisted
        if PurePosixPath(folder).name != "lost+found"
    }


def _with_own_detector(options: ExtractOptions) -> ExtractOptions:
    """Let a store that is continued go on with the detector that it was begun with."""
    if options.detector is not None or options.faces == "aligned":
        return options
    try:
        provenance = open_store(options.store).provenance
    except FeieError:  # there is none, or the writer will say what is wrong with it
        return options
    return options.model_copy(update={"detector": own_detector(provenance)})


def _refuse_other(options: ExtractOptions, store: Store) -> None:
    """Refuse a detector that is named and is not the store's."""
    ours, theirs = likely_detector(options), store.provenance["detector"]
    if options.detector is not None and ours is not None and theirs is not None:
        check_part(store.path, "detector", theirs, ours)


def _of_shard(sources: Sequence[Source], shard: tuple[int, int] | None) -> Sequence[Source]:
    """Pick the videos of one shard by their ids alone: files that come and go move no other."""
    if shard is None:
        return sources
    index, count = shard
    return [s for s in sources if zlib.crc32(s.video_id.encode()) % count == index - 1]


def _refuse_overlap(options: ExtractOptions) -> None:
    if is_url(options.store):
        return
    if Path(options.store).resolve() == options.videos.resolve():
        raise UsageError(f"--store and --videos are the same folder: {options.videos}")


def _settings(options: ExtractOptions, provenance: Provenance) -> StoreSettings:
    return StoreSettings(
        schema=provenance.schema,
        extractor=provenance.extractor,
        options={"faces": options.faces, "fps": options.fps, "embedding": options.embedding}
        # Stores made before there was a choice do not say.
        | ({"stride": options.stride} if options.stride > 1 else {})
        | ({"image_fps": options.image_fps} if options.image_fps is not None else {})
        | ({"smooth": options.smooth} if options.smooth else {})
        | ({"all_faces": True} if options.all_faces else {}),
        embedding_dim=provenance.embedding_dim,
        session={
            "versions": provenance.versions,
            "device": provenance.device,
            "batch_size": options.batch_size,
            "arguments": arguments_of(options),
        },
    )


def _named(found: Discovery) -> list[str]:
    return [str(path) for path in found.ignored]


def _compare(
    sources: Sequence[Source],
    known: KnownVideos,
    retry_failed: bool,
    progress: ProgressCallback = silent,
) -> list[Source]:
    """Pick what is to be done: what the store lacks, holds from other bytes, or is to try again."""
    todo: list[Source] = []
    for done, source in enumerate(sources, start=1):
        if not known.is_done(source.video_id, source, _digest, retry_failed=retry_failed):
            todo.append(source)
        progress(Progress("comparing", done, len(sources)))
    return todo


def _digest(source: Source) -> str:
    try:
        return fingerprint(source)
    except (OSError, VideoError):
        return ""


def _failed_before(
    sources: Sequence[Source], known: KnownVideos, todo: Sequence[Source]
) -> dict[str, str]:
    return known.failures({s.video_id for s in sources} - {s.video_id for s in todo})


def _plan_only(
    options: ExtractOptions, found: Discovery, sources: Sequence[Source]
) -> ExtractResult:
    videos = pd.DataFrame(columns=["status", "message"])
    backend_of(options.store).refuse_foreign()
    with suppress(StoreNotFoundError):
        store = open_store(options.store)
        _refuse_other(options, store)
        videos = store.videos
    known = KnownVideos(videos, options.all_faces)
    todo = _compare(sources, known, options.retry_failed)
    return ExtractResult(
        store=options.store,
        videos=len(sources),
        skipped=len(sources) - len(todo),
        failures=_failed_before(sources, known, todo) | _unlisted(found),
        ignored=_named(found),
        remarks=list(found.passed_over),
        planned=[s.video_id for s in todo],
    )
