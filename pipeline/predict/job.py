"""`feie predict`: intensities of videos without labels, as a CSV file."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import StoreError, UsageError
from feie.features.store.reader import Store
from feie.features.text import counted
from feie.heads.data.challenges import submission
from feie.heads.data.frame_joining import frame_lines
from feie.heads.data.joining import find_videos
from feie.heads.data.labels import normalise_id
from feie.heads.models.plugin import use_heads
from feie.heads.runs.checkpoint import find_run
from feie.heads.runs.files import write_atomically
from feie.heads.runs.run import Run, load_run
from feie.heads.runs.stores import (
    Predicted,
    changed_code,
    faceless_notes,
    other_extractors,
    predict_videos,
    stores_of,
)
from feie.pipeline.extract import job as extract
from feie.pipeline.predict.options import PredictOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result, failures

__all__ = ["PredictOptions", "PredictResult", "run"]


class PredictResult(Result):
    """What `feie predict` did.

    Attributes
    ----------
    predictions : str
        The CSV file, a row a video.
    videos : int
    faceless : int
        Videos without a face; predicted as the mean label of the training videos.
    failed : dict of str to str
        Videos that could not be extracted, with the reason; in the file their cells are empty.
    """

    run: str
    store: str
    predictions: str
    videos: int
    targets: list[str]
    faceless: int
    failed: dict[str, str]
    notes: list[str]

    @property
    def exit_code(self) -> int:
        """3 where a video has no prediction."""
        return 3 if self.failed else 0

    def lines(self) -> list[str]:
        """Name what failed, and the file."""
        return [
            *failures(self.failed),
            *(f"note: {note}" for note in self.notes),
            f"{self.videos} videos, {len(self.targets)} targets by {self.run} → {self.predictions}",
        ]


def run(options: PredictOptions, progress: ProgressCallback = silent) -> PredictResult:
    """Predict every video of a store, of several for a fusion, or of a folder.

    A frame-level head predicts every frame instead.

    Raises
    ------
    FeieError
        Run, store or videos cannot be used together.
    """
    use_heads(options.head)
    folder = find_run(options.run, options.runs)
    run_ = load_run(folder)
    if run_.unit == "frame" and (len(options.store) > 1 or options.form != "plain" or options.clip):
        raise UsageError(
            f"{folder} is a frame-level head: it reads one store and writes "
            f"id,frame,time,{','.join(run_.targets)} in their own range (no form, no clipping)"
        )
    trained_on = [member.head.notes["store"] for member in run_.members]
    if options.videos is None:
        if len(trained_on) > 1 and not options.store:
            raise UsageError(
                f"{folder} fuses {len(trained_on)} heads, trained on "
                f"{', '.join(noted['path'] for noted in trained_on)}: name a store for each, in "
                f"that order (--store, repeated)"
            )
        return _predict(options, run_, progress, options.store or ("features.zarr",))
    if len(options.store) > 1:
        raise UsageError("videos are extracted into one store: give one --store, or none")
    if options.store and "://" in options.store[0]:
        raise UsageError(f"videos are extracted into a folder; {options.store[0]} is an address")
    maker = _common_maker(folder, trained_on)
    if options.store:
        _extract(options, maker, options.store[0], progress)
        return _predict(options, run_, progress, options.store)
    with tempfile.TemporaryDirectory(prefix="feie-predict-") as temporary:
        store = str(Path(temporary) / "features.zarr")
        _extract(options, maker, store, progress)
        done = _predict(options, run_, progress, (store,))
    return done.model_copy(update={"store": "(removed; --store keeps it)"})


def _common_maker(folder: Path, trained_on: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the extractor of all stores that a run was trained on."""
    makers = [noted.get("extractor") or {} for noted in trained_on]
    if len({maker.get("sha256") for maker in makers}) > 1:
        names = ", ".join(str(maker.get("name")) for maker in makers)
        raise UsageError(
            f"{folder} fuses heads on what {names} made, and videos are extracted by one: "
            f"extract or import a store for each, and name them with --store"
        )
    if makers[0] and makers[0].get("sha256") is None:
        raise UsageError(
            f"{folder} was trained on imported features ({makers[0].get('name')}), which feie does "
            f"not make of videos: import those of these videos, too, and give their store with "
            f"--store, without --videos"
        )
    return makers[0].get("name")


def _extract(
    options: PredictOptions, maker: str | None, store: str, progress: ProgressCallback
) -> None:
    given = {
        "videos": options.videos,
        "store": store,
        "extractor": options.extractor or maker,
        "weights": options.weights,
        "detector": options.detector,
    }
    values = {name: value for name, value in given.items() if value is not None}
    extract.run(extract.ExtractOptions.model_validate(values), progress)


def _predict(
    options: PredictOptions, run_: Run, progress: ProgressCallback, paths: tuple[str, ...]
) -> PredictResult:
    stores = stores_of(run_, paths)
    notes = other_extractors(run_, stores) + changed_code(run_)
    videos, lost = _common(stores)
    notes += lost
    found = predict_videos(run_, stores, videos)
    notes += faceless_notes(run_, stores, found)
    prediction = found.fused
    if options.clip:
        outside = int(((prediction < 0) | (prediction > 1)).any(axis=1).sum())
        prediction = np.clip(prediction, 0.0, 1.0)
        notes.append(f"{counted(outside, 'video')} had an intensity clipped to [0, 1]")
    names = [normalise_id(video) for video in videos[0]]
    failed = {k: v for store in stores for k, v in store.failures.items()}
    without = sorted({normalise_id(video) for video in failed} - set(names))
    write_atomically(
        options.out, _lines(options, run_, stores[0], names, videos[0], found, prediction, without)
    )
    progress(Progress("videos", len(names), len(names)))
    return PredictResult(
        run=str(run_.folder),
        store=" + ".join(dict.fromkeys(store.path for store in stores)),
        predictions=str(options.out),
        videos=len(names),
        targets=list(run_.targets),
        faceless=int(found.faceless().sum()),
        failed=failed,
        notes=notes,
    )


def _lines(
    options: PredictOptions,
    run_: Run,
    store: Store,
    names: Sequence[str],
    videos: Sequence[str],
    found: Predicted,
    prediction: NDArray[np.float64],
    without: Sequence[str],
) -> bytes:
    """Give the file: rows are videos, or frames; videos that failed stand last, cells empty."""
    if run_.unit == "video":
        blank = np.full((len(without), len(run_.targets)), np.nan)
        rows = np.concatenate([prediction, blank])
        return submission([*names, *without], run_.targets, rows, options.form)
    offsets = found.prepared[0].frames.offsets
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerows([video, *[""] * (2 + len(run_.targets))] for video in without)
    predicted = frame_lines(store, names, videos, offsets, run_.targets, prediction)
    return predicted + text.getvalue().encode()


def _common(stores: Sequence[Store]) -> tuple[list[list[str]], list[str]]:
    """Give the ids of the videos that all stores have, store by store, and what some lack."""
    own, notes = stores[0].ids, []
    ids = [normalise_id(video) for video in own]
    found = [find_videos(ids, store.ids) for store in stores[1:]]
    rows = [row for row in range(len(ids)) if all(videos[row] is not None for videos in found)]
    columns = [[own[row] for row in rows]]
    columns += [[str(videos[row]) for row in rows] for videos in found]
    for store, picked in zip(stores, columns, strict=True):
        if lost := sorted(set(store.ids) - set(picked)):
            notes.append(
                f"{counted(len(lost), 'video')} of {store.path} not in every store, left out: "
                f"{', '.join(lost[:3])}{', …' if len(lost) > 3 else ''}"
            )
    if not rows:
        raise StoreError(
            f"{' and '.join(s.path for s in stores)} have no video in common; ids look like "
            f"{', '.join(repr(store.ids[0]) for store in stores)}"
        )
    return columns, notes
