"""What `feie train-head` can be asked: every choice of data, head and training, in one model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from feie.features.errors import UsageError
from feie.features.plugins import names_file, plugin_names
from feie.heads.config import (
    HEADS,
    PRESETS,
    HeadOptions,
    LongPolicy,
    LossName,
    MissingPolicy,
    MrnnOptions,
    PresetName,
    Schedule,
    Space,
    TrainingConfig,
    absolute,
)
from feie.pipeline.options import Flag, Names, Options, StoreArgument, split_commas

if TYPE_CHECKING:
    AnyHead = HeadOptions
else:
    AnyHead = reduce(or_, dict.fromkeys(HEADS.values()))

_BY_PRESET = Flag(default="of the preset")
_STEPS = Flag(panel="Training")
_INPUT = Flag(panel="Frames")
_ALL_FRAMES = ("t", "frame_stride", "long", "targets", "missing_label")
"""Options that mean nothing to a head that reads every frame."""


def _aliases(options: type[HeadOptions], name: str) -> tuple[str, ...]:
    alias = options.model_fields[name].validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [name]
    return tuple(str(choice) for choice in choices)


def head_options() -> dict[str, list[type[HeadOptions]]]:
    """Give the heads that each option of a head belongs to, by the option's name."""
    found: dict[str, list[type[HeadOptions]]] = {}
    for options in dict.fromkeys(HEADS.values()):
        for name in options.model_fields:
            if name not in ("kind", "code"):
                found.setdefault(name, []).append(options)
    return found


def option_names() -> dict[str, str]:
    """Give the names that options of `TrainHeadOptions` and of its heads go by, in Python."""
    names = {name: name for name in TrainHeadOptions.model_fields}
    for name, owners in head_options().items():
        names |= {alias: name for options in owners for alias in _aliases(options, name)}
    return names


def _spec(name: str) -> dict[str, str]:
    """Read what ``--head`` says: a name in the registry, or code of others."""
    if name in HEADS and name != "plugin":
        return {"kind": name}
    offered = [] if names_file(name) else plugin_names("feie.heads")
    if name not in offered and not names_file(name):
        known = ", ".join([*(head for head in HEADS if head != "plugin"), *offered])
        raise ValueError(f"there is no such head: give one of {known}, or FILE.py:NAME")
    return {"kind": "plugin", "code": absolute(name)}


def _flag(options: type[HeadOptions], name: str) -> str:
    """Give the name by which a user knows an option of a head."""
    shown = _aliases(options, name)[-1].replace("_", "-")
    on = options.model_fields[name].default is True
    return f"--no-{shown}" if on else f"--{shown}"


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """Put flat options of a head, as a command line and feie 0.1.0 have them, into its model.

    Raises
    ------
    UsageError
        One belongs to another head, and is not its default.
    """
    rest = dict(given)
    head = rest.pop("head", "mrnn")
    if isinstance(head, HeadOptions):
        head = head.model_dump()
    nested = {"kind": head} if isinstance(head, str) else dict(head)
    if nested.get("kind", "mrnn") not in HEADS or nested == {"kind": "plugin"}:
        nested |= _spec(str(nested["kind"]))
    model, stray = HEADS.get(str(nested.get("kind", "mrnn")), MrnnOptions), list[str]()
    if "code" in nested:
        nested["code"] = absolute(str(nested["code"]))
    for name, owners in head_options().items():
        for alias in {name, *_aliases(owners[0], name)} & set(rest):
            value = rest.pop(alias)
            if model in owners:
                nested = {k: v for k, v in nested.items() if k not in _aliases(model, name)}
                nested[name] = value
            elif value != owners[0].model_fields[name].default:
                kinds = " or ".join(k for k, options in HEADS.items() if options in owners)
                stray.append(f"{_flag(owners[0], name)} belongs to --head {kinds}")
    if stray:
        shown = nested.get("code", nested.get("kind"))
        raise UsageError(
            f"{', '.join(stray)}: with --head {shown} leave "
            f"{'it' if len(stray) == 1 else 'them'} out"
        )
    for name, value in model.reading.items():
        rest.setdefault(name, value)
    return {**rest, "head": nested}


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
    """What `feie train-head` is asked to do; see ``feie train-head --help`` for each.

    ``lr``, ``batch``, ``epochs`` and ``patience`` come from the preset unless given; without
    ``subset`` all groups of the store are used. Options of the head may stand beside the others:
    ``TrainHeadOptions(head="mrnn", width=64)``.
    """

    store: StoreArgument = "features.zarr"
    labels: Annotated[
        Path,
        Field(
            description="CSV or Parquet: an id column, `split`, numeric targets; for frame-va "
            "also a folder of ABAW's text files."
        ),
    ] = Path("labels.csv")
    subset: Annotated[
        Annotated[tuple[str, ...], Field(min_length=1)] | None,
        BeforeValidator(split_commas),
        Field(description="Groups of columns to use, e.g. `va,au`."),
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
        AnyHead,
        Field(
            discriminator="kind",
            description="`mrnn`; mean, sd, min and max of each column: `stat-linear`, `stat-mlp`; "
            "`frame-va`, frame by frame; or `FILE.py:NAME`, whose code is run (docs/extending.md).",
        ),
        Flag(typed=str),
    ] = MrnnOptions()
    loss: Annotated[
        LossName,
        Field(description="`pearson` (1 - mean rho), `ccc` or `mse`."),
        Flag(default="pearson; ccc with frame-va"),
        _STEPS,
    ] = "pearson"
    weights: Annotated[
        tuple[float, ...],
        BeforeValidator(split_commas),
        Field(description="Weight of each target in the loss, e.g. `1,0.5,2`."),
        Flag(names=("--target-weights", "--weights"), typed=str, default="equal"),
        _STEPS,
    ] = ()
    schedule: Annotated[
        Schedule,
        Field(description="Of the learning rate: `constant`, `cosine` or `plateau`."),
        _STEPS,
    ] = "constant"
    lr: Annotated[
        float | None, Field(gt=0, description="Adam's learning rate."), _BY_PRESET, _STEPS
    ] = None
    batch: Annotated[
        int | None, Field(ge=1, description="Videos (or frames) per batch."), _BY_PRESET, _STEPS
    ] = None
    epochs: Annotated[
        int | None, Field(ge=1, description="At most so many."), _BY_PRESET, _STEPS
    ] = None
    patience: Annotated[
        int | None,
        Field(ge=1, description="Stop after so many without a better figure on validation."),
        _BY_PRESET,
        _STEPS,
    ] = None
    clip: Annotated[float | None, Field(gt=0, description="Largest gradient norm."), _STEPS] = None
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
        MissingPolicy,
        Field(description="Frames without a face: `drop`, `hold`, `zero` or `interpolate`."),
        Flag(default="drop; interpolate with frame-va"),
        _INPUT,
    ] = "drop"
    long: Annotated[
        LongPolicy,
        Field(description="Videos longer than t: `uniform` resampling or `head`."),
        _INPUT,
    ] = "uniform"
    space: Annotated[
        Space,
        Field(description="`prob`: probabilities as stored; `logit`: their logits."),
        Flag(default="prob; logit with frame-va"),
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

    @model_validator(mode="before")
    @classmethod
    def _take_flat(cls, given: Any) -> Any:
        return _nested(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _check_unit(self) -> Self:
        """Refuse what a head of frames would ignore."""
        if self.head.config.unit == "video":
            return self
        fields = type(self).model_fields
        given = [name for name in _ALL_FRAMES if getattr(self, name) != fields[name].default]
        given += ["missing"] if self.missing != "interpolate" else []
        given += ["preset"] if self.preset != "default" else []
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(
                f"{names} would do nothing with --head {self.head.name}, which reads every frame "
                f"and has defaults of its own: leave {'it' if len(given) == 1 else 'them'} out"
            )
        return self

    def training(self) -> TrainingConfig:
        """Give the preset, with what was asked for in its place."""
        preset = {
            **PRESETS[self.preset],
            **(self.head.training if self.preset == "default" else {}),
        }
        names = ("lr", "batch", "epochs", "patience")
        chosen = {k: v for k in names if (v := getattr(self, k)) is not None}
        others = ("loss", "weights", "schedule", "clip", "seed")
        rest = {name: getattr(self, name) for name in others}
        rest["routing"] = getattr(self.head, "routing", True)
        return TrainingConfig.model_validate({**preset, **chosen, **rest})

    def flat(self) -> dict[str, Any]:
        """Give the options as JSON, those of the head beside the others."""
        own = self.head.model_dump(mode="json", exclude={"kind", "code"})
        return {**self.model_dump(mode="json"), **own, "head": self.head.name}


def _declare_flags() -> None:
    """Say how options of heads look on a command line, of which `feie.heads` knows nothing."""
    for options in dict.fromkeys(HEADS.values()):
        kinds = " or ".join(kind for kind, model in HEADS.items() if model is options)
        for name, field in options.model_fields.items():
            first, *also = (f"--{alias.replace('_', '-')}" for alias in _aliases(options, name))
            hidden, panel = name in ("kind", "code"), f"Only with --head {kinds}"
            field.metadata.append(Flag((first,), tuple(also), panel=panel, hidden=hidden))


_declare_flags()
