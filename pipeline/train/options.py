"""What `feie train-head` can be asked: every choice of data, head and training, in one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from feie.features.errors import UsageError
from feie.features.plugins import names_file, plugin_names
from feie.heads.data.inputs import Space
from feie.heads.data.ragged import LongPolicy, MissingPolicy
from feie.heads.measures.losses import LossName
from feie.heads.models.plugin import GROUP, absolute
from feie.heads.training.trainer import PRESETS, PresetName, Schedule, TrainingConfig

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


class TrainHeadOptions(BaseModel):
    """What `feie train-head` is asked to do; see ``feie train-head --help`` for each.

    ``lr``, ``batch``, ``epochs`` and ``patience`` come from the preset unless given; without
    ``subset`` all groups of the store are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: str = "features.zarr"
    labels: Path = Path("labels.csv")
    subset: tuple[str, ...] | None = Field(default=None, min_length=1)
    targets: tuple[str, ...] = ()
    runs: Path = Path("runs")
    name: str | None = Field(default=None, pattern=r"^[\w.+-]+$")
    seed: int = Field(default=0, ge=0)
    preset: PresetName = "default"
    head: Annotated[str, AfterValidator(_known_head)] = "mrnn"
    loss: LossName = "pearson"
    weights: tuple[float, ...] = ()
    l2: float = Field(default=1 / 512, ge=0)
    schedule: Schedule = "constant"
    lr: float | None = Field(default=None, gt=0)
    batch: int | None = Field(default=None, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    clip: float | None = Field(default=None, gt=0)
    cell: Literal["gru", "lstm"] = "gru"
    layers: int = Field(default=1, ge=1, le=2)
    width: int = Field(default=128, ge=1, le=4096)
    dense: int = Field(default=32, ge=1, le=4096)
    mask: bool = True
    routing: bool = True
    t: int = Field(default=480, ge=1, le=100_000)
    frame_stride: int = Field(default=1, ge=1, le=10_000)
    missing: MissingPolicy = "drop"
    long: LongPolicy = "uniform"
    space: Space = "prob"
    unmatched: float = Field(default=0.05, ge=0, le=1)
    checkpoint_seconds: float = Field(default=20.0, ge=0)
    device: str = "cpu"
    tensorboard: bool = False
    resume: Path | None = None

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
