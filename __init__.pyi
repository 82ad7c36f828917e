"""What type checkers see of feie; made by tests/tools/make_stub.py, not by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from feie.features.errors import FeieError as FeieError
from feie.features.store.reader import Store as Store
from feie.features.store.reader import VideoView as VideoView
from feie.features.store.reader import open_store as open_store
from feie.heads.data.dataset import VideoDataset as VideoDataset
from feie.heads.data.dataset import VideoItem as VideoItem
from feie.heads.data.labels import load_labels as load_labels
from feie.heads.data.loader import VideoBatch as VideoBatch
from feie.heads.data.loader import collate as collate
from feie.heads.data.loader import loader as loader
from feie.pipeline.dump.job import DumpResult
from feie.pipeline.evaluate.result import EvaluateResult
from feie.pipeline.extract.job import ExtractResult
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaResult
from feie.pipeline.extractor.label_units import LabelUnitsResult
from feie.pipeline.extractor.render_faces import RenderFacesResult
from feie.pipeline.extractor.train_mma import TrainMmaResult
from feie.pipeline.grid.ablate import AblateResult
from feie.pipeline.grid.sweep import SweepResult
from feie.pipeline.imports.job import ImportFeaturesResult
from feie.pipeline.inspect.job import InspectResult
from feie.pipeline.machine.demo import DemoResult
from feie.pipeline.machine.doctor import DoctorResult
from feie.pipeline.machine.models import ModelsResult
from feie.pipeline.predict.compound import CompoundResult
from feie.pipeline.predict.job import PredictResult
from feie.pipeline.progress import ProgressCallback
from feie.pipeline.stores.info import InfoResult
from feie.pipeline.stores.merge import MergeResult
from feie.pipeline.stores.verify import VerifyResult
from feie.pipeline.study.compare import CompareResult
from feie.pipeline.study.cross_validate import CrossValidateResult
from feie.pipeline.train.fusion import TrainFusionResult
from feie.pipeline.train.options import TrainHeadOptions
from feie.pipeline.train.result import TrainHeadResult

__version__: str

def demo(
    *,
    data: str | Path = "data.example",
    out: str | Path = "feie-demo",
    seed: int = 0,
    progress: ProgressCallback = ...,
) -> DemoResult:
    """Extract, train and evaluate on the example clips; the test split is theirs to be seen."""

def doctor(
    *,
    folder: str | Path = ".",
    progress: ProgressCallback = ...,
) -> DoctorResult:
    """Look at all that stage one needs; nothing is changed and nothing is downloaded."""

def models(
    *,
    action: Literal["list", "fetch", "add"] = "list",
    name: str | None = None,
    file: str | Path | None = None,
    yes: bool = False,
    mirror: str | None = None,
    progress: ProgressCallback = ...,
) -> ModelsResult:
    """List the catalogue, or put one model of it where feie looks for it."""

def extract(
    *,
    videos: str | Path,
    store: str | Path = "features.zarr",
    extractor: str = "mma-lite",
    weights: str | Path | None = None,
    detector: str | None = None,
    faces: Literal["auto", "detect", "aligned"] = "auto",
    fps: float | None = None,
    image_fps: float | None = None,
    follow: bool = True,
    stride: int = 1,
    all_faces: bool = False,
    smooth: int = 0,
    detect_batch: int = 1,
    embedding: bool = False,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    compiled: bool = False,
    batch_size: int = 64,
    threads: int | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    commit_videos: int = 256,
    commit_seconds: float = 30.0,
    timeout: float = 300.0,
    isolate: bool = True,
    workers: int | None = None,
    gpus: Sequence[int] | None = None,
    scheduler: str | None = None,
    dashboard: bool = False,
    shard: tuple[int, int] | None = None,
    progress: ProgressCallback = ...,
) -> ExtractResult:
    """Extract every video that the store does not hold yet."""

def import_features(
    *,
    source: str | Path,
    store: str | Path = "features.zarr",
    format: str = "auto",
    groups: Sequence[str] = (),
    group: str | None = None,
    fps: float | None = None,
    all_faces: bool = False,
    dry_run: bool = False,
    commit_videos: int = 256,
    commit_seconds: float = 30.0,
    progress: ProgressCallback = ...,
) -> ImportFeaturesResult:
    """Import every video of these files that the store does not hold yet."""

def merge(
    *,
    stores: Sequence[str | Path],
    out: str | Path,
    duplicates: Literal["refuse", "last"] = "refuse",
    progress: ProgressCallback = ...,
) -> MergeResult:
    """Write the videos of all stores, sorted by id, to a new one."""

def info(
    *,
    store: str | Path = "features.zarr",
    reproduce: bool = False,
    progress: ProgressCallback = ...,
) -> InfoResult:
    """Summarise a store from its index; no frame is read."""

def inspect(
    *,
    store: str | Path = "features.zarr",
    videos: Sequence[str] = (),
    out: str | Path | None = None,
    source: str | Path | None = None,
    start: float | None = None,
    stop: float | None = None,
    html: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> InspectResult:
    """Draw videos of a store, or write the page about them."""

def verify(
    *,
    store: str | Path = "features.zarr",
    videos: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> VerifyResult:
    """Read every committed chunk of a store and check it against the specification."""

def dump(
    *,
    store: str | Path = "features.zarr",
    format: Literal["hdf5", "hdf5-groups", "muse", "openface", "parquet", "npz", "safetensors"],
    out: str | Path,
    subset: Sequence[str] = (),
    ids: str | Path | None = None,
    match: Sequence[str] = (),
    missing: Literal["keep", "zero", "hold", "drop"] = "keep",
    embedding: bool = False,
    geometry: bool = False,
    dry_run: bool = False,
    progress: ProgressCallback = ...,
) -> DumpResult:
    """Write the numbers of a store in another format, with a data sheet and their provenance."""

def train_head(
    *,
    store: str | Path = "features.zarr",
    labels: str | Path = "labels.csv",
    subset: Sequence[str] | None = None,
    targets: Sequence[str] = (),
    missing_label: Sequence[float] = (),
    runs: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    preset: Literal["default", "paper", "stat"] = "default",
    head: Literal["mrnn", "stat-linear", "stat-mlp", "frame-va", "plugin"] = "mrnn",
    cell: Literal["gru", "lstm"] = "gru",
    layers: int = 1,
    width: int = 128,
    dense: int = 32,
    mask: bool = True,
    routing: bool = True,
    l2: float = 0.001953125,
    box: int = 25,
    loss: Literal["pearson", "ccc", "mse"] = "pearson",
    weights: Sequence[float] = (),
    schedule: Literal["constant", "cosine", "plateau"] = "constant",
    lr: float | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    clip: float | None = None,
    t: int = 480,
    frame_stride: int = 1,
    missing: Literal["drop", "hold", "zero", "interpolate"] = "drop",
    long: Literal["uniform", "head"] = "uniform",
    space: Literal["prob", "logit"] = "prob",
    unmatched: float = 0.05,
    checkpoint_seconds: float = 20.0,
    device: str = "cpu",
    tensorboard: bool = False,
    resume: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> TrainHeadResult:
    """Train a head on the training split, choose its epoch on the validation split."""

def train_fusion(
    *,
    base: TrainHeadOptions = ...,
    stores: Sequence[str | Path] = (),
    subsets: Sequence[Sequence[str]] = (),
    fuse: Sequence[str | Path] = (),
    weighting: Literal["common", "target"] = "common",
    resume: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> TrainFusionResult:
    """Train one head a store, or take finished ones, and choose the weights of their mean."""

def train_frame_va(
    *,
    store: str | Path = "features.zarr",
    labels: str | Path = "labels.csv",
    subset: Sequence[str] | None = None,
    runs: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    lr: float | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    box: int = 25,
    space: Literal["prob", "logit"] = "logit",
    unmatched: float = 0.05,
    progress: ProgressCallback = ...,
) -> TrainHeadResult:
    """Train a head of frames; see `feie.train_head`."""

def sweep(
    *,
    grid: str | Path,
    base: TrainHeadOptions,
    jobs: int = 1,
    gpus: Sequence[int] = (),
    progress: ProgressCallback = ...,
) -> SweepResult:
    """Train what is not yet trained of a grid, and write the table."""

def evaluate(
    *,
    run: str | Path | None = None,
    runs: str | Path = "runs",
    store: Sequence[str | Path] = (),
    labels: str | Path | None = None,
    missing_label: Sequence[float] = (),
    split: Literal["train", "val", "test"] = "val",
    unmatched: float = 0.05,
    against: str | Path | None = None,
    submission: str | Path | None = None,
    form: Literal["plain", "eri", "emi", "labels"] = "labels",
    report: str | Path | None = None,
    head: Sequence[str] = (),
    progress: ProgressCallback = ...,
) -> EvaluateResult:
    """Score a run, whichever head or fusion it holds, on one split."""

def predict(
    *,
    run: str | Path | None = None,
    runs: str | Path = "runs",
    store: Sequence[str | Path] = (),
    videos: str | Path | None = None,
    extractor: str | None = None,
    weights: str | Path | None = None,
    detector: str | None = None,
    out: str | Path = "predictions.csv",
    form: Literal["plain", "eri", "emi"] = "plain",
    clip: bool = False,
    head: Sequence[str] = (),
    progress: ProgressCallback = ...,
) -> PredictResult:
    """Predict every video of a store, of several for a fusion, or of a folder."""

def compound(
    *,
    store: str | Path = "features.zarr",
    out: str | Path = "compound.csv",
    frames: bool = False,
    frequencies: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> CompoundResult:
    """Write the scores of every video (the mean over its frames with a face) or frame."""

def ablate(
    *,
    table: Literal["subsets", "architecture"] = "subsets",
    seeds: int = 5,
    store: str | Path = "features.zarr",
    labels: str | Path = "labels.csv",
    subset: Sequence[str] = ...,
    targets: Sequence[str] = (),
    missing_label: Sequence[float] = (),
    out: str | Path | None = None,
    preset: Literal["default", "paper", "stat"] = "default",
    lr: float | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    clip: float | None = None,
    t: int = 480,
    frame_stride: int = 1,
    missing: Literal["drop", "hold", "zero", "interpolate"] = "drop",
    long: Literal["uniform", "head"] = "uniform",
    space: Literal["prob", "logit"] = "prob",
    unmatched: float = 0.05,
    checkpoint_seconds: float = 20.0,
    stack: Literal["auto", "on", "off"] = "auto",
    jobs: int | None = None,
    device: str = "auto",
    published: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> AblateResult:
    """Train what is not yet trained of a table, and write the table."""

def cross_validate(
    *,
    store: str | Path = "features.zarr",
    labels: str | Path = "labels.csv",
    subset: Sequence[str] | None = None,
    targets: Sequence[str] = (),
    missing_label: Sequence[float] = (),
    runs: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    preset: Literal["default", "paper", "stat"] = "default",
    head: Literal["mrnn", "stat-linear", "stat-mlp", "frame-va", "plugin"] = "mrnn",
    cell: Literal["gru", "lstm"] = "gru",
    layers: int = 1,
    width: int = 128,
    dense: int = 32,
    mask: bool = True,
    routing: bool = True,
    l2: float = 0.001953125,
    box: int = 25,
    loss: Literal["pearson", "ccc", "mse"] = "pearson",
    weights: Sequence[float] = (),
    schedule: Literal["constant", "cosine", "plateau"] = "constant",
    lr: float | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    clip: float | None = None,
    t: int = 480,
    frame_stride: int = 1,
    missing: Literal["drop", "hold", "zero", "interpolate"] = "drop",
    long: Literal["uniform", "head"] = "uniform",
    space: Literal["prob", "logit"] = "prob",
    unmatched: float = 0.05,
    checkpoint_seconds: float = 20.0,
    device: str = "auto",
    tensorboard: bool = False,
    resume: str | Path | None = None,
    folds: str = "5",
    fold_seed: int = 0,
    seeds: int = 1,
    choose: Sequence[str] = (),
    out: str | Path = "cross-validation",
    stack: Literal["auto", "on", "off"] = "auto",
    jobs: int | None = None,
    progress: ProgressCallback = ...,
) -> CrossValidateResult:
    """Leave each fold out in turn, train on the others, and score what is predicted of it."""

def compare(
    *,
    runs: Sequence[str | Path],
    labels: str | Path | None = None,
    missing_label: Sequence[float] = (),
    split: Literal["train", "val", "test"] = "val",
    unmatched: float = 0.05,
    head: Sequence[str] = (),
    out: str | Path | None = None,
    progress: ProgressCallback = ...,
) -> CompareResult:
    """Compare each with the first, by a paired bootstrap on the same videos and labels."""

def train_mma(
    *,
    config: str | Path,
    data_root: Sequence[str | Path] = ...,
    out: str | Path = "mma-run",
    detector: str | None = None,
    device: str = "auto",
    threads: int = 2,
    workers: int = 0,
    progress: ProgressCallback = ...,
) -> TrainMmaResult:
    """Train, or go on training, and export the averaged weights."""

def evaluate_mma(
    *,
    data: str | Path,
    reader: Literal["pack", "affectnet", "aff-wild2", "emotionet", "table"] = "pack",
    split: Literal["train", "val", "test"] | None = None,
    partition: Sequence[str | Path] = (),
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    outside: Literal["keep", "drop"] = "keep",
    every: int = 1,
    tolerance: float = 0.01,
    extractor: str = "mma-lite",
    detector: str | None = None,
    held_out: float | None = None,
    held_out_by: Literal["name", "person"] = "name",
    without: str | Path | None = None,
    equalised: bool = False,
    picture: str | Path | None = None,
    repeats: int = 1000,
    device: str = "auto",
    progress: ProgressCallback = ...,
) -> EvaluateMmaResult:
    """Score an extractor on a pack or a data set."""

def render_faces(
    *,
    model: str | Path,
    out: str | Path,
    count: int = 30000,
    seed: int = 0,
    identities: int = 1000,
    people: Literal["train", "held-out", "all"] = "train",
    quality: int = 92,
    workers: int = 1,
    progress: ProgressCallback = ...,
) -> RenderFacesResult:
    """Render a pack of aligned synthetic faces."""

def label_units(
    *,
    data: str | Path,
    teacher: str | Path,
    out: str | Path,
    progress: ProgressCallback = ...,
) -> LabelUnitsResult:
    """Guess the action units of every image, aligned by the fixed crop."""
