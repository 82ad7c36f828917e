"""Job: write a training pack of synthetic faces with known action units."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.files import written_whole
from feie.features.schema import ACTION_UNITS
from feie.features.synthetic.ict import load_ict
from feie.features.synthetic.render import FaceRenderer
from feie.features.synthetic.sampling import draw_sample
from feie.pipeline.extractor.options import HELD_OUT_EVERY, RenderFacesOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["HELD_OUT_EVERY", "RenderFacesOptions", "RenderFacesResult", "run"]

FACTORS = ("tone", "yaw", "pitch")
"""What may make a face harder, stored with it: skin tone (0 lightest to 1 darkest), and the
head's turn, degrees."""
_BLOCK = 50  # images a task
_NOTE = (
    "Synthetic faces rendered by feie. 'au' holds exact activations of the model's expression "
    "deltas (1 = delta at full strength), NaN where the model cannot show or the picture cannot "
    "tell the unit; AU25 is at least the visible parting of the lips. 'expression' is given where "
    "the pattern is a prototype of Table 1 of arXiv 2303.00180 at intensity 0.35 or more, or "
    "neutral; 'valence' and 'arousal' are intensity times an anchor of the expression, weak."
)
_SOURCE = (
    "ICT-FaceKit light face model (ICT-VGL/ICT-FaceKit), "
    "(c) 2020 USC Institute for Creative Technologies"
)


class RenderFacesResult(Result):
    """What was written.

    Attributes
    ----------
    out : Path
        The pack.
    images : int
        Images in it.
    people : int
        Persons seen in it.
    seconds : float
        Wall time.
    """

    out: Path
    images: int
    people: int
    seconds: float

    def lines(self) -> list[str]:
        """Count what was rendered."""
        return [f"{self.images} images of {self.people} persons in {self.seconds:g} s → {self.out}"]


class _Row(NamedTuple):
    jpeg: NDArray[np.uint8]
    expression: str
    name: str
    valence: float
    arousal: float
    au: NDArray[np.float32]
    identity: int
    tone: float
    yaw: float
    pitch: float


def people_of(options: RenderFacesOptions) -> NDArray[np.int64]:
    """Identity numbers that a pack with these options draws from."""
    numbers = np.arange(options.identities)
    held_out = numbers % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    chosen = {"train": ~held_out, "held-out": held_out, "all": np.ones_like(held_out)}
    allowed: NDArray[np.int64] = numbers[chosen[options.people]]
    return allowed


def run(options: RenderFacesOptions, progress: ProgressCallback = silent) -> RenderFacesResult:
    """Render a pack of aligned synthetic faces.

    The pack appears under its name only when complete; a new run starts afresh.

    Parameters
    ----------
    options : RenderFacesOptions
        What to render.
    progress : callable
        Called with a `Progress` after each block of images.

    Raises
    ------
    UsageError
        The pack exists already, or its folder does not.
    DataError
        The face model cannot be read.
    """
    if options.out.exists():
        raise UsageError(f"{options.out} exists; give another name or delete it first")
    if not options.out.parent.is_dir():
        raise UsageError(f"{options.out.parent}: no such folder for the pack")
    start = time.monotonic()
    _renderer(options.model)  # a bad model is found before anything is written
    seen: set[int] = set()
    with written_whole(options.out) as out, h5py.File(out, "w") as file:
        _create(file, options)
        done = 0
        for rows in _blocks(options):
            _append(file, done, rows)
            done += len(rows)
            seen.update(row.identity for row in rows)
            rate = done / (time.monotonic() - start)
            progress(Progress("images", done, options.count, {"images/s": round(rate, 1)}))
    return RenderFacesResult(
        out=options.out,
        images=options.count,
        people=len(seen),
        seconds=time.monotonic() - start,
    )


def _create(file: h5py.File, options: RenderFacesOptions) -> None:
    n = options.count
    text = h5py.string_dtype("utf-8")
    file.create_dataset("jpeg", (n,), h5py.vlen_dtype(np.uint8))
    file.create_dataset("expression", (n,), text)
    file.create_dataset("name", (n,), text)
    for name in ("valence", "arousal", *FACTORS):
        file.create_dataset(name, (n,), np.float32)
    units = file.create_dataset("au", (n, len(ACTION_UNITS)), np.float32)
    units.attrs["columns"] = list(ACTION_UNITS)
    file.create_dataset("identity", (n,), np.int64)
    file.attrs["source"] = _SOURCE
    file.attrs["licence"] = "face model MIT"
    file.attrs["note"] = _NOTE
    file.attrs["options"] = options.model_dump_json(exclude={"model", "out", "workers"})


def _append(file: h5py.File, first: int, rows: list[_Row]) -> None:
    for offset, row in enumerate(rows):
        file["jpeg"][first + offset] = row.jpeg
    window = slice(first, first + len(rows))
    for name in ("expression", "name", "valence", "arousal", "identity", *FACTORS):
        file[name][window] = [getattr(row, name) for row in rows]
    file["au"][window] = np.stack([row.au for row in rows])


def _blocks(options: RenderFacesOptions) -> Iterator[list[_Row]]:
    """Rows in order, block by block, whoever renders them."""
    starts = range(0, options.count, _BLOCK)
    if options.workers == 1:
        for start in starts:
            yield _render(options, start)
        return
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            options.workers, mp_context=get_context("spawn"), initializer=cv2.setNumThreads,
            initargs=(1,),
        ) as pool,
    ):  # fmt: skip
        yield from pool.map(_render, [options] * len(starts), starts)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start meanwhile do linear algebra in one thread: more halve the speed."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def _renderer(model: Path) -> FaceRenderer:
    return FaceRenderer(load_ict(model))


def _render(options: RenderFacesOptions, start: int) -> list[_Row]:
    renderer = _renderer(options.model)
    people = people_of(options)
    # Packs of other people with the same seed must not repeat its patterns and light.
    stream = ("train", "held-out", "all").index(options.people)
    rows = []
    for index in range(start, min(start + _BLOCK, options.count)):
        seed = (options.seed, stream, index)
        identity = int(np.random.default_rng((*seed, 1)).choice(people))
        sample = draw_sample(renderer, identity, seed)
        bgr = cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, options.quality])
        rows.append(
            _Row(
                jpeg=jpeg.reshape(-1),
                expression=sample.expression,
                name=f"{options.people}-{options.seed}-{index:06d}",
                valence=sample.valence,
                arousal=sample.arousal,
                au=sample.units,
                identity=identity,
                tone=sample.tone,
                yaw=sample.pose.yaw,
                pitch=sample.pose.pitch,
            )
        )
    return rows
