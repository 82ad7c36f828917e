"""`feie predict`: intensities of videos without labels, as a CSV file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from feie.features.errors import StoreError, UsageError
from feie.features.store.reader import open_store
from feie.heads.challenges import SubmissionForm, submission
from feie.heads.checkpoint import latest_run, load_head
from feie.heads.files import write_atomically
from feie.heads.labels import normalise_id
from feie.pipeline import extract
from feie.pipeline.evaluate import predict_videos
from feie.pipeline.progress import Progress, ProgressCallback, silent


class PredictOptions(BaseModel):
    """What `feie predict` is asked to do; see ``feie predict --help`` for each.

    Without ``run`` it is the run that ended last under ``runs``. With ``videos`` these are
    extracted first, by the extractor of the head's training unless another is named, into
    ``store``, or into a store that is removed afterwards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Path | None = None
    runs: Path = Path("runs")
    store: str | None = None
    videos: Path | None = None
    extractor: str | None = None
    detector: str | None = None
    out: Path = Path("predictions.csv")
    form: SubmissionForm = "plain"


class PredictResult(BaseModel):
    """What `feie predict` did.

    Attributes
    ----------
    predictions : str
        The CSV file, a row a video.
    videos : int
    faceless : int
        Videos without a face; predicted as the mean label of the training videos.
    failed : dict of str to str
        Videos that could not be extracted, with the reason; they have no row.
    """

    run: str
    store: str
    predictions: str
    videos: int
    targets: list[str]
    faceless: int
    failed: dict[str, str]
    notes: list[str]


def run(options: PredictOptions, progress: ProgressCallback = silent) -> PredictResult:
    """Predict every video of a store, or of a folder.

    Raises
    ------
    FeieError
        Run, store or videos cannot be used together.
    """
    if options.videos is None:
        return _predict(options, options.store or "features.zarr", progress)
    if options.store is not None and "://" not in options.store:
        return _extract(options, options.store, progress)
    if options.store is not None:
        raise UsageError(f"videos are extracted into a folder; {options.store} is an address")
    with tempfile.TemporaryDirectory(prefix="feie-predict-") as folder:
        done = _extract(options, str(Path(folder) / "features.zarr"), progress)
    return done.model_copy(update={"store": "(removed; --store keeps it)"})


def _extract(options: PredictOptions, store: str, progress: ProgressCallback) -> PredictResult:
    head = load_head(options.run or latest_run(options.runs))
    trained_with = (head.notes["store"].get("extractor") or {}).get("name")
    given = {
        "videos": options.videos,
        "store": store,
        "extractor": options.extractor or trained_with,
        "detector": options.detector,
    }
    values = {name: value for name, value in given.items() if value is not None}
    extract.run(extract.ExtractOptions.model_validate(values), progress)
    return _predict(options, store, progress)


def _predict(options: PredictOptions, path: str, progress: ProgressCallback) -> PredictResult:
    folder = options.run or latest_run(options.runs)
    head, store, notes = load_head(folder), open_store(path), []
    if not store.ids:
        raise StoreError(f"{path} holds no video that was extracted without failure")
    now = dict(store.provenance).get("extractor") or {}
    before = head.notes["store"].get("extractor") or {}
    if now.get("sha256") != before.get("sha256"):
        notes.append(
            f"{path} was made by extractor {now.get('name')}, the head was trained on "
            f"{before.get('name')} (other weights): its figures may mean little"
        )
    ids = list(store.ids)
    prepared, prediction = predict_videos(head, folder, store, ids)
    if prepared.faceless:
        notes.append(
            f"{prepared.faceless} videos show no face: predicted as the training videos' mean label"
        )
    names = [normalise_id(video) for video in ids]
    write_atomically(options.out, submission(names, head.targets, prediction, options.form))
    progress(Progress("videos", len(ids), len(ids)))
    return PredictResult(
        run=str(folder),
        store=path,
        predictions=str(options.out),
        videos=len(ids),
        targets=list(head.targets),
        faceless=prepared.faceless,
        failed=dict(store.failed),
        notes=notes,
    )
