"""What `feie extract` can be asked to do; light, because every worker process reads it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from feie.features.plugins import names_file


def local_store(store: object) -> object:
    """Refuse addresses, where only `feie extract` writes."""
    if "://" in str(store) or not str(store):
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


def _numbers(gpus: object) -> object:
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


class ExtractOptions(BaseModel):
    """What `feie extract` is asked to do; see ``feie extract --help`` for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    videos: Path
    store: Annotated[str, BeforeValidator(_any_store)] = "features.zarr"
    extractor: str = "mma-lite"
    weights: Path | None = None
    detector: str | None = None
    faces: Literal["auto", "detect", "aligned"] = "auto"
    fps: float | None = Field(default=None, gt=0)
    follow: bool = True
    stride: int = Field(default=1, ge=1, le=30)
    all_faces: bool = False
    detect_batch: int = Field(default=1, ge=1, le=256)
    embedding: bool = False
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compiled: bool = False
    batch_size: int = Field(default=64, gt=0)
    threads: int | None = Field(default=None, gt=0)
    retry_failed: bool = False
    dry_run: bool = False
    commit_videos: int = Field(default=256, gt=0)
    commit_seconds: float = Field(default=30.0, ge=0)
    timeout: float = Field(default=300.0, gt=0)
    isolate: bool = True
    workers: int | None = Field(default=None, gt=0)
    gpus: Annotated[tuple[int, ...] | None, BeforeValidator(_numbers)] = None
    scheduler: str | None = None
    dashboard: bool = False
    shard: Annotated[tuple[int, int] | None, BeforeValidator(_share)] = None

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
        return f"{Path(path).expanduser().absolute()}:{name}"
    if Path(spec).suffix in (".json", ".safetensors"):
        return str(Path(spec).expanduser().absolute())
    return spec


def cores() -> int:
    """Count the cores that this process may use: fewer than there are under SLURM."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
