"""What `feie extract` can be asked to do; light, because every worker process reads it."""

from __future__ import annotations

import os
import re
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from feie.features.plugins import names_file
from feie.pipeline.options import Flag, Options

_FACES = Flag(panel="Faces")
_SPEED = Flag(panel="Speed")
_COMMITS = Flag(panel="Commits and failures")
_MANY = Flag(panel="Several processes or machines")


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # and no drive, which is one letter


def local_store(store: object) -> object:
    """Refuse addresses, where only `feie extract` writes; as a path one has lost a slash."""
    if _ADDRESS.match(str(store)) or "://" in str(store) or not str(store):
        raise ValueError("this is written to a local folder; copy it where you like afterwards")
    return store


def _any_store(store: object) -> object:
    """Take paths and addresses as text."""
    text = os.fspath(store) if isinstance(store, os.PathLike) else store
    if not text:
        raise ValueError("give a folder, or an address such as s3://bucket/features.zarr")
    if str(text).startswith(("http://", "https://")):
        raise ValueError("stores cannot be written to a web server: give a folder, or s3://…")
    return text


def numbers(gpus: object) -> object:
    """Read ``0,1`` as (0, 1)."""
    if not isinstance(gpus, str):
        return gpus
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise ValueError("give numbers of GPUs with commas, such as 0,1")
    return tuple(int(number) for number in gpus.split(","))


def _share(shard: object) -> object:
    """Read ``2/8`` as (2, 8)."""
    if not isinstance(shard, str):
        return shard
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("give i/n with 1 <= i <= n, such as 1/8 for the first of eight")
    return int(found[1]), int(found[2])


class ExtractOptions(Options):
    """What `feie extract` is asked to do."""

    videos: Annotated[
        Path,
        Field(description="Folder of videos or of folders of aligned frames."),
        Flag(names=("--videos",), argument=True),
    ]
    store: Annotated[
        str,
        BeforeValidator(_any_store),
        Field(description="Folder of the Zarr store, or `s3://…`; made, or continued."),
        Flag(names=("--store", "--out"), argument=True),
    ] = "features.zarr"
    extractor: Annotated[
        str,
        Field(
            description="Bundled name, a .safetensors made by `feie train-mma`, `mt-emotieffnet`, "
            "`mt-mobilevit` or `mt-mobilefacenet`, a .json that describes an ONNX file, or "
            "`FILE.py:NAME`, whose code is run (docs/extending.md)."
        ),
    ] = "mma-lite"
    weights: Annotated[
        Path | None,
        Field(description="File of the extractor's weights, for an ONNX network or for code."),
        Flag(default="where `feie models` puts them"),
    ] = None
    detector: Annotated[
        str | None,
        Field(
            description="`auto`: the face finder that comes with feie, whatever else is on the "
            "machine; a store that is continued keeps its own. `scrfd` (weights where insightface "
            "keeps them; non-commercial), `scrfd:NAME`, `scrfd:FILE.onnx`, `yunet`, "
            "`yunet:FILE.onnx`; or several with commas: the next is tried in frames where the "
            "ones before it find nothing."
        ),
        Flag(default="auto, or the store's own"),
    ] = None
    faces: Annotated[
        Literal["auto", "detect", "aligned"],
        Field(
            description="`aligned`: frames are 112x112 face crops; `detect`: find faces; "
            "`auto`: aligned where frames are 112x112."
        ),
        _FACES,
    ] = "auto"
    fps: Annotated[
        float | None,
        Field(gt=0, description="Resample to this rate by time."),
        Flag(default="as filmed"),
    ] = None
    image_fps: Annotated[
        float | None,
        Field(
            gt=0,
            le=1000,
            description="Frames per second of image folders, and of videos without time stamps.",
        ),
        Flag(default="30; videos without time stamps fail"),
    ] = None
    follow: Annotated[
        bool,
        Field(
            description="Look for the face around its last place before the whole frame is "
            "searched."
        ),
        _FACES,
    ] = True
    stride: Annotated[
        int,
        Field(
            ge=1,
            le=30,
            description="Search every so many frames, interpolate landmarks in between.",
        ),
        _FACES,
    ] = 1
    all_faces: Annotated[
        bool, Field(description="Keep every face: ids `VIDEO#1`, `VIDEO#2`, one a track."), _FACES
    ] = False
    smooth: Annotated[
        int,
        Field(
            description="Steady the face: fit its box and landmarks over so many frames, odd, "
            "7 for instance (Savitzky-Golay, without lag)."
        ),
        Flag(default="0: as found", panel="Faces"),
    ] = 0
    detect_batch: Annotated[
        int,
        Field(ge=1, le=256, description="Frames searched in one call (GPUs), with --no-follow."),
        _FACES,
    ] = 1
    embedding: Annotated[
        bool, Field(description="Keep the extractor's embedding of each face too.")
    ] = False
    device: Annotated[str, Field(description="`cpu`, `cuda`, `cuda:1` or `auto`."), _SPEED] = "auto"
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"],
        Field(
            description="`fp32` is exact; `bf16` and, on GPUs, `fp16` move numbers by up to 0.02."
        ),
        _SPEED,
    ] = "fp32"
    compiled: Annotated[
        bool,
        Field(description="Compile the extractor first, for minutes; meant for GPUs."),
        Flag(names=("--compile",)),
        _SPEED,
    ] = False
    batch_size: Annotated[
        int, Field(gt=0, description="Faces in one call of the extractor."), _SPEED
    ] = 64
    threads: Annotated[
        int | None,
        Field(gt=0, description="Videos decoded at the same time."),
        Flag(default="one per core"),
        _SPEED,
    ] = None
    retry_failed: Annotated[bool, Field(description="Try videos again that failed before.")] = False
    dry_run: Annotated[bool, Field(description="List what would be done; write nothing.")] = False
    commit_videos: Annotated[
        int, Field(gt=0, description="Commit after that many videos…"), _COMMITS
    ] = 256
    commit_seconds: Annotated[
        float, Field(ge=0, description="…or that many seconds."), _COMMITS
    ] = 30.0
    timeout: Annotated[
        float,
        Field(
            gt=0,
            description="Give up a video after so many seconds in which its reading does not move.",
        ),
        _COMMITS,
    ] = 300.0
    isolate: Annotated[
        bool,
        Field(
            description="Work in a child process, so that a video that crashes it costs one video."
        ),
        _COMMITS,
    ] = True
    workers: Annotated[
        int | None,
        Field(gt=0, description="Worker processes on this machine."),
        Flag(default="this process"),
        _MANY,
    ] = None
    gpus: Annotated[
        tuple[int, ...] | None,
        BeforeValidator(numbers),
        Field(description="One worker process per GPU, e.g. `0,1,2,3`."),
        Flag(typed=str),
        _MANY,
    ] = None
    scheduler: Annotated[
        str | None,
        Field(
            description="Use a running dask cluster: `tls://node7:8786` or a scheduler file; with "
            "plain `tcp://`, whoever reaches its ports can run code as you."
        ),
        _MANY,
    ] = None
    dashboard: Annotated[
        bool,
        Field(
            description="With --workers or --gpus: dask's dashboard on 127.0.0.1, without a "
            "password."
        ),
        _MANY,
    ] = False
    shard: Annotated[
        tuple[int, int] | None,
        BeforeValidator(_share),
        Field(description="Do part i of n, e.g. `2/8`, into a store to `feie merge` later."),
        Flag(typed=str),
        _MANY,
    ] = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scheduler and (self.workers or self.gpus):
            raise ValueError(
                "--scheduler uses the workers of that cluster: leave out --workers and --gpus"
            )
        if self.dashboard and not (self.workers or self.gpus):
            raise ValueError("--dashboard shows the workers of --workers or --gpus: name one")
        if self.gpus and self.workers not in (None, len(self.gpus)):
            raise ValueError("--gpus starts one worker a GPU: leave out --workers")
        if self.gpus and self.device != "auto":
            raise ValueError("--gpus names the devices: leave out --device")
        if not self.isolate and (self.workers or self.gpus or self.scheduler):
            raise ValueError("workers always isolate what they run: leave out --no-isolate")
        if self.all_faces and self.smooth:
            raise ValueError("--smooth steadies the main face: leave out --all-faces")
        if self.all_faces and self.stride > 1:
            raise ValueError("--all-faces follows faces from frame to frame: leave out --stride")
        if self.detect_batch > 1 and self.stride > 1:
            raise ValueError("--stride searches frame by frame: leave out --detect-batch")
        if self.detect_batch > 1 and self.follow and not self.all_faces:
            raise ValueError("--detect-batch searches whole frames: say --no-follow too")
        return self


def absolute_extractor(spec: str) -> str:
    """Give an extractor's spec as it reads from any folder: files absolute, names as they are."""
    if names_file(spec):
        path, _, name = spec.rpartition(":")
        return f"{Path(expanduser(path)).absolute()}:{name}"
    if Path(spec).suffix in (".json", ".safetensors"):
        return str(Path(expanduser(spec)).absolute())
    return spec


def cores() -> int:
    """Count the cores that this process may use: fewer than there are under SLURM."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
