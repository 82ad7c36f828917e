"""What `feie train-head` can be asked: every choice of data, head and training, in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from feie.features.errors import UsageError
from feie.features.plugins import names_file, plugin_names
from feie.heads.data.inputs import Space
from feie.heads.data.ragged import LongPolicy, MissingPolicy
from feie.heads.measures.losses import LossName
from feie.heads.models.plugin import GROUP, absolute
from feie.heads.training.trainer import PRESETS, PresetName, Schedule, TrainingConfig
from feie.pipeline.options import Flag, Names, Options, StoreArgument, split_commas

HEADS = ("mrnn", "stat-linear", "stat-mlp")
_FLAGS = {"width": "--units", "dense": "--fc", "mask": "--no-mask", "routing": "--no-routing"}
_ONLY: dict[str, tuple[str, ...]] = {
    "mrnn": ("cell", "layers", "width", "dense", "mask", "routing"),
    "stat": ("l2",),
}
"""Options that mean something to one kind of head alone."""


def _known_head(head: str) -> str:
    """Refuse what is neither a head of feie nor one of others; make the path of a file absolute."""
    offered = plugin_names(GROUP) if head not in HEADS and not names_file(head) else []
    if head in HEADS or head in offered or names_file(head):
        return absolute(head)
    known = ", ".join([*HEADS, *offered])
    raise ValueError(f"there is no such head: give one of {known}, or FILE.py:NAME")


_BY_PRESET = Flag(default="of the preset")
_STEPS = Flag(panel="Training")
_INPUT = Flag(panel="Frames")
_MRNN = Flag(panel="Only with --head mrnn")


def _numbers(value: object) -> object:
    """Read ``-1,-5``, or one number, as numbers."""
    return (value,) if isinstance(value, int | float) else split_commas(value)


MissingLabel = Annotated[
    tuple[float, ...],
    BeforeValidator(_numbers),
    Field(
        description="Numbers that stand for a missing label, e.g. `-1` or `-1,-5`; `evaluate` "
        "takes those of the run."
    ),
    Flag(typed=str, default="none"),
]
"""Codes of a label file, see `feie.heads.data.labels.load_labels`."""


class TrainHeadOptions(Options):
    """What `feie train-head` is asked to do.

    ``lr``, ``batch``, ``epochs`` and ``patience`` come from the preset unless given; without
    ``subset`` all groups of the store are used.
    """

    store: StoreArgument = "features.zarr"
    labels: Annotated[
        Path, Field(description="CSV or Parquet: an id column, `split`, numeric targets.")
    ] = Path("labels.csv")
    subset: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(split_commas),
        Field(min_length=1, description="Groups of columns to use, e.g. `va,au`."),
        Flag(typed=str, default="all of the store"),
    ] = None
    targets: Annotated[
        Names, Field(description="Label columns, comma-separated."), Flag(default="all")
    ] = ()
    missing_label: MissingLabel = ()
    runs: Annotated[Path, Field(description="Folder of all runs.")] = Path("runs")
    name: Annotated[
        str | None,
        Field(pattern=r"^[\w.+-]+$", description="Name of this run."),
        Flag(default="time, subset, seed"),
    ] = None
    seed: Annotated[int, Field(ge=0, description="Fixes weights and batches.")] = 0
    preset: Annotated[
        PresetName,
        Field(
            description="`default`, `paper` (batch 4, learning rate 1e-4) or `stat` (batch 512)."
        ),
        _STEPS,
    ] = "default"
    head: Annotated[
        str,
        AfterValidator(_known_head),
        Field(
            description="`mrnn`; mean, sd, min and max of each column: `stat-linear`, `stat-mlp`; "
            "or `FILE.py:NAME`, whose code is run (docs/extending.md)."
        ),
    ] = "mrnn"
    loss: Annotated[
        LossName,
        Field(description="`pearson` (1 - mean rho), `ccc` or `mse`."),
        _STEPS,
    ] = "pearson"
    weights: Annotated[
        tuple[float, ...],
        BeforeValidator(split_commas),
        Field(description="Weight of each target in the loss, e.g. `1,0.5,2`."),
        Flag(names=("--target-weights", "--weights"), typed=str, default="equal"),
        _STEPS,
    ] = ()
    l2: Annotated[
        float,
        Field(ge=0, description="Penalty on a STAT head's weights."),
        Flag(panel="Only with --head stat-linear or stat-mlp"),
    ] = 1 / 512
    schedule: Annotated[
        Schedule,
        Field(description="Of the learning rate: `constant`, `cosine` or `plateau`."),
        _STEPS,
    ] = "constant"
    lr: Annotated[
        float | None, Field(gt=0, description="Adam's learning rate."), _BY_PRESET, _STEPS
    ] = None
    batch: Annotated[
        int | None, Field(ge=1, description="Videos per batch."), _BY_PRESET, _STEPS
    ] = None
    epochs: Annotated[
        int | None, Field(ge=1, description="At most so many."), _BY_PRESET, _STEPS
    ] = None
    patience: Annotated[
        int | None,
        Field(ge=1, description="Stop after so many without a better validation Pearson."),
        _BY_PRESET,
        _STEPS,
    ] = None
    clip: Annotated[float | None, Field(gt=0, description="Largest gradient norm."), _STEPS] = None
    cell: Annotated[Literal["gru", "lstm"], Field(description="Recurrent cell."), _MRNN] = "gru"
    layers: Annotated[int, Field(ge=1, le=2, description="Recurrent layers."), _MRNN] = 1
    width: Annotated[
        int,
        Field(ge=1, le=4096, description="Units of a recurrent layer."),
        Flag(names=("--width",), also=("--units",)),
        _MRNN,
    ] = 128
    dense: Annotated[
        int,
        Field(ge=1, le=4096, description="Units of the dense layer."),
        Flag(names=("--dense",), also=("--fc",)),
        _MRNN,
    ] = 32
    mask: Annotated[
        bool,
        Field(
            description="Without: zero frames up to t, all t outputs feed the dense layer, plain "
            "Adam."
        ),
        _MRNN,
    ] = True
    routing: Annotated[
        bool,
        Field(description="Without: Adam also moves blocks that no video of the batch reached."),
        _MRNN,
    ] = True
    t: Annotated[
        int,
        Field(ge=1, le=100_000, description="Most frames of a video; longer ones become so short."),
        _INPUT,
    ] = 480
    frame_stride: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Read only every so many frames; time falls in proportion.",
        ),
        _INPUT,
    ] = 1
    missing: Annotated[
        MissingPolicy, Field(description="Frames without a face: `drop`, `hold` or `zero`."), _INPUT
    ] = "drop"
    long: Annotated[
        LongPolicy,
        Field(description="Videos longer than t: `uniform` resampling or `head`."),
        _INPUT,
    ] = "uniform"
    space: Annotated[
        Space,
        Field(description="`prob`: probabilities as stored; `logit`: their logits."),
        _INPUT,
    ] = "prob"
    unmatched: Annotated[
        float, Field(ge=0, le=1, description="Share of labels that may lack a video.")
    ] = 0.05
    checkpoint_seconds: Annotated[
        float,
        Field(ge=0, description="Least time between two saved states."),
        Flag(hidden=True),
    ] = 20.0
    device: Annotated[str, Field(description="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "cpu"
    tensorboard: Annotated[bool, Field(description="Log for TensorBoard too (an extra).")] = False
    resume: Annotated[
        Path | None, Field(description="Go on with this run; all other options are its own.")
    ] = None

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        """Refuse what the chosen head would ignore."""
        kind = self.head.partition("-")[0] if self.head in HEADS else "plugin"
        fields = type(self).model_fields
        for other in (name for name in _ONLY if name != kind):
            given = [n for n in _ONLY[other] if getattr(self, n) != fields[n].default]
            if given:
                names = ", ".join(_FLAGS.get(name, f"--{name}") for name in given)
                raise UsageError(
                    f"{names} {'is' if len(given) == 1 else 'are'} of "
                    f"{'an MRNN' if other == 'mrnn' else 'a STAT head'} and would do nothing with "
                    f"--head {self.head}: leave {'it' if len(given) == 1 else 'them'} out"
                )
        return self

    def training(self) -> TrainingConfig:
        """Give the preset, with what was asked for in its place."""
        names = ("lr", "batch", "epochs", "patience")
        chosen = {k: v for k in names if (v := getattr(self, k)) is not None}
        others = ("loss", "weights", "schedule", "clip", "seed", "routing")
        rest = {name: getattr(self, name) for name in others}
        return TrainingConfig.model_validate({**PRESETS[self.preset], **chosen, **rest})
