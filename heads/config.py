"""What heads can be asked and what their checkpoints note, and the registry; loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from feie.features.plugins import names_file

Unit = Literal["video", "frame"]
"""What one prediction is about."""
Measure = Literal["pearson", "ccc"]
Space = Literal["prob", "logit"]
MissingPolicy = Literal["drop", "hold", "zero", "interpolate"]
LongPolicy = Literal["uniform", "head"]
SplitName = Literal["train", "val", "test"]
SubmissionForm = Literal["plain", "eri", "emi", "labels"]
StorePaths = Annotated[
    tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)
]
"""Paths or addresses of stores; a text alone is one of them."""
LossName = Literal["pearson", "ccc", "mse"]
Schedule = Literal["constant", "cosine", "plateau"]
PresetName = Literal["default", "paper", "stat"]
HEADLINE: dict[Unit, Measure] = {"video": "pearson", "frame": "ccc"}
"""What an epoch is chosen by, and the first figure of an evaluation."""
MEASURE_NAMES: dict[Measure, str] = {"pearson": "Pearson", "ccc": "CCC"}
HALF_WINDOW = 25
"""Frames on each side that the box filter averages: 51 in all, the 50 of Savchenko (arXiv
2403.11590) made odd. The code that came with that paper has 50 on each side."""
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputConfig(BaseModel):
    """How a head reads a store; part of its checkpoint.

    Attributes
    ----------
    columns : tuple of str
        Names of the store's columns, in order.
    groups : dict of str to (int, int)
        Half-open ranges within `columns`.
    unit : {"video", "frame"}
        With ``frame`` every stored frame keeps its row, also where no face is seen in the whole
        video; `t`, `stride` and `long` do nothing then.
    t : int
        Most frames of a video, after the stride.
    stride : int
        Every stride-th frame is read ([S]: 5).
    missing, long, space
        See `feie.heads.data.ragged.fill_missing`, `feie.heads.data.ragged.shorten` and
        `feie.heads.data.inputs.to_logits`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[str, ...]
    groups: dict[str, tuple[int, int]]
    unit: Unit = "video"
    t: int = Field(default=480, ge=1, le=100_000)
    stride: int = Field(default=1, ge=1, le=10_000)
    missing: MissingPolicy = "drop"
    long: LongPolicy = "uniform"
    space: Space = "prob"


class TrainingConfig(BaseModel):
    """How a head is trained; part of its checkpoint.

    Attributes
    ----------
    loss : {"pearson", "ccc", "mse"}
    weights : tuple of float
        Of the targets in the loss; equal where empty.
    lr : float
        Adam's learning rate.
    schedule : {"constant", "cosine", "plateau"}
        What becomes of it, see `feie.heads.training.trainer.learning_rate`.
    batch : int
        Videos (or frames) a step. Pearson's rho over few videos is mostly noise (standard
        deviation 0.58 at 4, 0.125 at 64 for unrelated columns).
    epochs : int
        At most.
    patience : int
        Epochs without a better figure on the validation split before training stops.
    clip : float or None
        Largest norm of the gradient.
    routing : bool
        Without it plain Adam updates all t blocks of the dense layer at every step, also those
        that no video of the batch reached.
    seed : int
        Of the initial weights and of the order of videos.
    """

    model_config = _FROZEN

    loss: LossName = "pearson"
    weights: tuple[float, ...] = ()
    lr: float = Field(default=1e-3, gt=0)
    schedule: Schedule = "constant"
    batch: int = Field(default=64, ge=1)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=20, ge=1)
    clip: float | None = Field(default=None, gt=0)
    routing: bool = True
    seed: int = Field(default=0, ge=0)


PRESETS: dict[PresetName, dict[str, float | int]] = {
    "default": {"lr": 1e-3, "batch": 64, "epochs": 100, "patience": 20},
    "paper": {"lr": 1e-4, "batch": 4, "epochs": 100, "patience": 20},
    "stat": {"lr": 1e-3, "batch": 512, "epochs": 100, "patience": 100},
}
"""``paper`` has the learning rate and batch of [K] 4; its number of epochs is ours. ``stat`` is
what [S] trains its heads on statistics with."""


class HeadConfig(BaseModel):
    """Kind and shape of a network; part of its checkpoint.

    Attributes
    ----------
    kind : str
    unit : {"video", "frame"}
    network : str
        ``module:name`` of what makes the untrained network of a config and a seed.
    inputs, targets : int
        Columns in, intensities out.
    """

    model_config = _FROZEN

    unit: ClassVar[Unit] = "video"
    network: ClassVar[str]

    kind: str
    inputs: int = Field(ge=1)
    targets: int = Field(ge=1)

    def build(self, seed: int = 0) -> Any:
        """Make the untrained network, a `feie.heads.models.base.HeadModel`."""
        return _named(self.network)(self, seed)


class HeadOptions(BaseModel):
    """What one kind of head can be asked; fields are options of ``feie train-head``.

    Attributes
    ----------
    kind : str
        A Literal of the names that ``--head`` takes.
    config : type of HeadConfig
        What `configure` gives.
    reading : mapping
        Options of the training that say how the store is read, where this head has defaults of
        its own; among them the loss.
    training : mapping
        ``lr``, ``batch``, ``epochs``, ``patience`` in place of the default preset's.
    """

    model_config = _FROZEN

    config: ClassVar[type[HeadConfig]]
    reading: ClassVar[Mapping[str, Any]] = {}
    training: ClassVar[Mapping[str, float | int]] = {}

    kind: str

    @property
    def name(self) -> str:
        """What ``--head`` calls it."""
        return self.kind

    def configure(self, inputs: int, targets: int, t: int) -> HeadConfig:
        """Give the shape of a network for so many columns, targets and frames."""
        given = {**self.model_dump(), "inputs": inputs, "targets": targets, "t": t}
        fields = self.config.model_fields
        return self.config.model_validate({k: v for k, v in given.items() if k in fields})

    def new(self, inputs: int, targets: int, t: int, seed: int) -> Any:
        """Make the untrained network that is asked for, a `feie.heads.models.base.HeadModel`."""
        return self.configure(inputs, targets, t).build(seed)


class MRNNConfig(HeadConfig):
    """Shape of an MRNN.

    Attributes
    ----------
    t : int
        Positions of the concatenation; 480 frames are 16 s at 30 frames/s.
    cell : {"gru", "lstm"}
    layers, width : int
        Recurrent layers and units of each.
    dense : int
        Units of the dense layer behind the mask.
    mask : bool
        Without it ([K] Table 4, "w/o mask & routing") every video is padded to t frames of zeros
        (after standardisation: the mean training frame; ours), the recurrence runs on through
        them, and the outputs of all t positions feed the dense layer.
    """

    network: ClassVar[str] = "feie.heads.models.mrnn:MRNN"

    kind: Literal["mrnn"] = "mrnn"
    t: int = Field(default=480, ge=1, le=100_000)
    cell: Literal["gru", "lstm"] = "gru"
    layers: int = Field(default=1, ge=1, le=2)
    width: int = Field(default=128, ge=1, le=4096)
    dense: int = Field(default=32, ge=1, le=4096)
    mask: bool = True


class MrnnOptions(HeadOptions):
    """The masked recurrent head."""

    config: ClassVar[type[HeadConfig]] = MRNNConfig

    kind: Literal["mrnn"] = "mrnn"
    cell: Annotated[Literal["gru", "lstm"], Field(description="`gru` or `lstm`.")] = "gru"
    layers: Annotated[int, Field(ge=1, le=2, description="Recurrent layers, 1 or 2.")] = 1
    width: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            validation_alias=AliasChoices("width", "units"),
            description="Units of a recurrent layer, up to 4096.",
        ),
    ] = 128
    dense: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            validation_alias=AliasChoices("dense", "fc"),
            description="Units of the dense layer, up to 4096.",
        ),
    ] = 32
    mask: Annotated[
        bool,
        Field(
            description="Without: zero frames up to t, all t outputs feed the dense layer, plain "
            "Adam."
        ),
    ] = True
    routing: Annotated[
        bool,
        Field(description="Without: Adam also moves blocks that no video of the batch reached."),
    ] = True


class StatConfig(HeadConfig):
    """Shape of a STAT head.

    Attributes
    ----------
    hidden : int
        Units of the hidden layer (ReLU; [S] has 128); 0 for a linear head.
    l2 : float
        Weight of the sum of squares of all weights but biases in the loss; [S] has 1/512.
    """

    network: ClassVar[str] = "feie.heads.models.stat:Stat"

    kind: Literal["stat"] = "stat"
    hidden: int = Field(default=0, ge=0, le=4096)
    l2: float = Field(default=1 / 512, ge=0)


class StatOptions(HeadOptions):
    """Heads on the mean, sd, minimum and maximum of each column."""

    config: ClassVar[type[HeadConfig]] = StatConfig

    kind: Literal["stat-linear", "stat-mlp"] = "stat-linear"
    l2: Annotated[float, Field(ge=0, description="Penalty on a STAT head's weights.")] = 1 / 512

    def configure(self, inputs: int, targets: int, t: int) -> StatConfig:
        """Give the shape; the multilayer one has a hidden layer of 128."""
        hidden = 128 if self.kind == "stat-mlp" else 0
        return StatConfig(inputs=inputs, targets=targets, hidden=hidden, l2=self.l2)


class FrameVaConfig(HeadConfig):
    """Shape of a frame-level head.

    Attributes
    ----------
    box : int
        Frames on each side that the filter over time averages.
    """

    unit: ClassVar[Unit] = "frame"
    network: ClassVar[str] = "feie.heads.models.frame_va:FrameVA"

    kind: Literal["frame-va"] = "frame-va"
    box: int = Field(default=HALF_WINDOW, ge=0, le=100_000)


class FrameVaOptions(HeadOptions):
    """Valence and arousal, frame by frame."""

    config: ClassVar[type[HeadConfig]] = FrameVaConfig
    reading: ClassVar[Mapping[str, Any]] = {
        "loss": "ccc", "space": "logit", "missing": "interpolate",
    }  # fmt: skip
    training: ClassVar[Mapping[str, float | int]] = {
        "lr": 1e-3, "batch": 1024, "epochs": 30, "patience": 30,
    }  # fmt: skip

    kind: Literal["frame-va"] = "frame-va"
    box: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="Frames on each side that frame-va's filter averages.",
        ),
    ] = HALF_WINDOW


class PluginConfig(HeadConfig):
    """Which code a head of others is, and its shape.

    Attributes
    ----------
    name : str
        Of the entry point, or ``FILE.py:NAME`` without folders.
    sha256 : str
        Of the file of its code.
    """

    network: ClassVar[str] = "feie.heads.models.plugin:load_plugin_head"

    kind: Literal["plugin"] = "plugin"
    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class PluginOptions(HeadOptions):
    """A head of others: the name of an entry point, or ``FILE.py:NAME``, whose code is run."""

    config: ClassVar[type[HeadConfig]] = PluginConfig

    kind: Literal["plugin"] = "plugin"
    code: Annotated[str, Field(description="The name of an entry point, or `FILE.py:NAME`.")]

    @property
    def name(self) -> str:
        """What ``--head`` calls it."""
        return self.code

    def new(self, inputs: int, targets: int, t: int, seed: int) -> Any:
        """Make the untrained network; runs its code."""
        make = _named("feie.heads.models.plugin:new_plugin_head")
        return make(self.code, inputs, targets, seed)


HEADS: dict[str, type[HeadOptions]] = {
    "mrnn": MrnnOptions,
    "stat-linear": StatOptions,
    "stat-mlp": StatOptions,
    "frame-va": FrameVaOptions,
    "plugin": PluginOptions,
}
"""The registry: options by the name that ``--head`` takes."""


def config_of(noted: Mapping[str, Any]) -> HeadConfig:
    """Read the shape of a network from a checkpoint.

    Raises
    ------
    ValueError
        Of no head that there is, or of another shape.
    """
    kind = noted.get("kind", "mrnn")  # feie 0.1.0 wrote no kind of an MRNN
    for options in HEADS.values():
        if options.config.model_fields["kind"].default == kind:
            return options.config.model_validate(dict(noted))
    raise ValueError(f"there is no head of kind {kind!r}")


def absolute(code: str) -> str:
    """Give ``FILE.py:NAME`` as it reads from any folder; other names stay as they are."""
    if not names_file(code):
        return code
    path, _, name = code.rpartition(":")
    return f"{Path(expanduser(path)).absolute()}:{name}"


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
