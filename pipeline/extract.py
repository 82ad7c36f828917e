"""`feie extract`: every video of a folder becomes rows of a store, once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from feie.features.detect import Detector, load_detector
from feie.features.errors import UsageError, VideoError
from feie.features.extractors import Extractor, load_extractor
from feie.features.facestream import FaceOptions
from feie.features.sources import Discovery, Source, discover, fingerprint
from feie.features.store.layout import FAILED
from feie.features.store.reader import open_store
from feie.features.store.records import StoreSettings, VideoRecord
from feie.features.store.writer import StoreWriter
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.provenance import library_versions
from feie.pipeline.stage_one import StageOne


def _local(store: object) -> object:
    if "://" in str(store) or not str(store):
        raise ValueError("stores are written to a local folder; copy it where you like afterwards")
    return store


class ExtractOptions(BaseModel):
    """What `feie extract` is asked to do; see ``feie extract --help`` for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    videos: Path
    store: Annotated[Path, BeforeValidator(_local)] = Path("features.zarr")
    extractor: str = "mma-lite"
    detector: str | None = None
    faces: Literal["auto", "detect", "aligned"] = "auto"
    fps: float | None = Field(default=None, gt=0)
    embedding: bool = False
    device: str = "auto"
    batch_size: int = Field(default=64, gt=0)
    threads: int | None = Field(default=None, gt=0)
    retry_failed: bool = False
    dry_run: bool = False
    commit_videos: int = Field(default=256, gt=0)
    commit_seconds: float = Field(default=30.0, ge=0)


class ExtractResult(BaseModel):
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
    ignored : list of str
        Files that are no videos by their suffix.
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
    seconds: float = 0.0
    frames_per_second: float = 0.0
    ignored: list[str] = []
    planned: list[str] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def failed(self) -> int:
        """Number of `failures`."""
        return len(self.failures)


def run(options: ExtractOptions, progress: ProgressCallback = silent) -> ExtractResult:
    """Extract every video that the store does not hold yet.

    A video is skipped when the store holds it from the same bytes. One that cannot be processed
    is kept as a named failure; the run goes on.

    Raises
    ------
    FeieError
        Nothing can be done as asked: no videos, no weights, another writer, another detector.
    """
    face_options = FaceOptions(faces=options.faces, fps=options.fps)
    found = discover(options.videos)
    _refuse_overlap(options)
    if options.dry_run:
        return _plan_only(options, found)
    extractor = load_extractor(options.extractor, options.device)
    detector = _Detectors(options)
    started = time.monotonic()
    result = ExtractResult(
        store=str(options.store), videos=len(found.sources), ignored=_named(found)
    )
    faces = 0
    with StoreWriter(
        options.store,
        _settings(options, extractor),
        commit_videos=options.commit_videos,
        commit_seconds=options.commit_seconds,
    ) as writer:
        todo = _todo(found.sources, writer.known, options.retry_failed, progress)
        result.skipped = len(found.sources) - len(todo)
        result.failures = _failed_before(found.sources, writer.known, {s.video_id for s in todo})
        engine = StageOne(
            extractor,
            face_options,
            detector.load,
            threads=options.threads or _cores(),
            batch_size=options.batch_size,
            embedding=options.embedding,
        )
        named, done = False, 0
        for finished in engine.records(todo):
            if finished is None:
                writer.commit_if_due()
                continue
            done += 1
            record = finished.records[0]
            if engine.detector is not None and not named:
                writer.use_detector(detector.describe(engine.detector))
                named = True
            if not _said_before(record, writer.known):
                writer.append(record)
            if record.failed:
                result.failures[record.id] = record.message
            else:
                result.extracted += 1
                result.replaced += record.id in writer.known.index
                result.frames += len(record.time)
                faces += int(record.valid.sum())
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
                    f"{record.id}: {record.message}" if record.failed else "",
                )
            )
    result.seconds = round(time.monotonic() - started, 3)
    result.face_share = faces / result.frames if result.frames else 0.0
    result.frames_per_second = round(result.frames / max(result.seconds, 1e-9), 1)
    result.failures = dict(sorted(result.failures.items()))
    return result


def _said_before(record: VideoRecord, known: pd.DataFrame) -> bool:
    """Tell a failure that the store names in the same words already."""
    if not record.failed or record.id not in known.index:
        return False
    row = known.loc[record.id]
    same = (row["message"], row["fingerprint"]) == (record.message, record.fingerprint)
    return bool(row["status"] == FAILED and same)


class _Detectors:
    """Loads the detector when a video first needs one, or at once if it was asked for by name."""

    def __init__(self, options: ExtractOptions) -> None:
        self._spec = options.detector
        asked = options.detector is not None or options.faces == "detect"
        self._loaded = load_detector(self._spec) if asked and options.faces != "aligned" else None

    def load(self) -> Detector:
        return self._loaded if self._loaded is not None else load_detector(self._spec)

    @staticmethod
    def describe(detector: Detector) -> dict[str, Any]:
        return {"name": detector.name, "sha256": detector.sha256, **detector.options}


def _cores() -> int:
    """Count the cores that this process may use: fewer than there are under SLURM."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refuse_overlap(options: ExtractOptions) -> None:
    if options.store.resolve() == options.videos.resolve():
        raise UsageError(f"--store and --videos are the same folder: {options.videos}")


def _settings(options: ExtractOptions, extractor: Extractor) -> StoreSettings:
    return StoreSettings(
        schema=extractor.schema,
        extractor={"name": extractor.name, "sha256": extractor.sha256},
        options={"faces": options.faces, "fps": options.fps, "embedding": options.embedding},
        embedding_dim=extractor.embedding_dim if options.embedding else 0,
        session={
            "versions": library_versions(),
            "device": extractor.device,
            "batch_size": options.batch_size,
        },
    )


def _named(found: Discovery) -> list[str]:
    return [str(path) for path in found.ignored]


def _todo(
    sources: Sequence[Source],
    known: pd.DataFrame,
    retry_failed: bool,
    progress: ProgressCallback = silent,
) -> list[Source]:
    """Pick the sources that the store lacks, holds from other bytes, or is to try again."""
    table: dict[str, dict[str, Any]] = known.to_dict("index")  # type: ignore[assignment]
    todo = []
    for done, source in enumerate(sources, start=1):
        if not _is_done(source, table.get(source.video_id), retry_failed):
            todo.append(source)
        progress(Progress("comparing", done, len(sources)))
    return todo


def _is_done(source: Source, row: dict[str, Any] | None, retry_failed: bool) -> bool:
    if row is None or not row["fingerprint"] or (row["status"] == FAILED and retry_failed):
        return False
    if (row["size"], row["mtime_ns"]) == (source.size, source.mtime_ns):
        return True  # as make and rsync judge; reading 25,000 videos again would cost an hour
    try:
        return bool(row["fingerprint"] == fingerprint(source))
    except (OSError, VideoError):
        return False


def _failed_before(
    sources: Sequence[Source], known: pd.DataFrame, todo: set[str]
) -> dict[str, str]:
    rows = known[known["status"] == FAILED]["message"].to_dict()
    here = {s.video_id for s in sources} - todo
    return {str(k): str(v) for k, v in rows.items() if k in here}


def _plan_only(options: ExtractOptions, found: Discovery) -> ExtractResult:
    known = pd.DataFrame(columns=["status", "message"])
    if options.store.exists():
        known = open_store(options.store).videos
    todo = _todo(found.sources, known, options.retry_failed)
    return ExtractResult(
        store=str(options.store),
        videos=len(found.sources),
        skipped=len(found.sources) - len(todo),
        failures=_failed_before(found.sources, known, {s.video_id for s in todo}),
        ignored=_named(found),
        planned=[s.video_id for s in todo],
    )
