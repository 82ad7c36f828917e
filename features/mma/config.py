"""The configuration of a training run of the MMA, as YAML: one stage, or several in a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from feie.features.devices import Precision
from feie.features.errors import UsageError
from feie.features.mma.augment import AugmentConfig
from feie.features.mma.data.config import DataConfig, SourceConfig, Strict
from feie.features.mma.network import NETWORKS, NetworkConfig

_CONFIGS = Path(__file__).parent / "configs"


class PhaseConfig(Strict):
    """Some steps at one image size.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    size : int
        Side of the images in pixels.
    batch : int
        Images a step.
    """

    steps: int = Field(gt=0)
    size: int = Field(ge=32, le=112)
    batch: int = Field(ge=2)


class LossConfig(Strict):
    """Weights and forms of the four losses.

    Attributes
    ----------
    ccc, cce, bce, dm : float
        Weights of L_CCC, L_CCE, L_BCE and L_DM; the paper has 1 for each.
    smoothing : float
        Label smoothing of L_CCE.
    distil : float
        Share of L_CCE's target that is the opinion of the weights that the stage starts from on
        the face as it is and mirrored: self-distillation. Not for a first stage without `init`.
    class_weights : {"equal", "rarity"}
        Whether L_CCE weighs an expression by how much rarer it is than the most frequent one,
        see `rarity_weights`: the recipe of [S].
    positive : float
        Weight of the positive part of L_BCE; 1 is the paper's, more makes the network say
        action units more readily.
    matching : {"nll", "bce"}
        Form of L_DM: Eq. 2 of the paper, or with the term that pushes units down.
    match_annotated : bool
        Whether L_DM also counts for action units that the image's own labels state.
    """

    ccc: float = Field(default=1.0, ge=0)
    cce: float = Field(default=1.0, ge=0)
    bce: float = Field(default=1.0, ge=0)
    dm: float = Field(default=1.0, ge=0)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    distil: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["equal", "rarity"] = "equal"
    positive: float = Field(default=1.0, gt=0)
    matching: Literal["nll", "bce"] = "nll"
    match_annotated: bool = True


class OptimiserConfig(Strict):
    """AdamW with a linear warm-up, then half a cosine to zero, and an average of the weights.

    Attributes
    ----------
    lr : float
        Highest learning rate.
    weight_decay : float
        Of weight matrices and kernels; not of biases and batch norm.
    warmup : float
        Share of all steps.
    ema : float
        Decay of the exponential moving average that is validated and exported.
    """

    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    ema: float = Field(default=0.999, ge=0, lt=1)


class MmaConfig(Strict):
    """One stage of training.

    Attributes
    ----------
    name : str
        Name of the extractor that results, and of its file: letters, digits, ``.``, ``_``, ``-``.
    network : NetworkConfig
        Or, in YAML, the name of one of `NETWORKS`, or ``like``: such a name, and what differs.
    init : str, optional
        Weights that the first stage starts from: a ``.safetensors`` of an MMA below a data root.
        Its network may be shallower, see `growth.grown`.
    sources, validation : dict
        Data to learn from and data to be measured on, by name; the field `reader` of each says
        who reads it, without which it is a pack.
    phases : tuple of PhaseConfig
        One after the other, under one learning-rate schedule.
    stop_after : int, optional
        End the stage after so many steps, in the middle of that schedule.
    precision : {"fp32", "bf16", "fp16"}
        bf16 and fp16 run the network under autocast; weights and losses stay fp32. fp16 is for
        GPUs without bf16, and scales the loss.
    seed : int
        Fixes initial weights, draws and augmentation.
    log_every, validate_every : int
        Steps between lines of the log, and between validations with a checkpoint.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    network: NetworkConfig
    init: str | None = None
    sources: dict[str, SourceConfig] = Field(min_length=1)
    validation: dict[str, DataConfig] = Field(default_factory=dict)
    phases: tuple[PhaseConfig, ...] = Field(min_length=1)
    stop_after: int | None = Field(default=None, gt=0)
    losses: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: Precision = "fp32"
    seed: int = Field(default=0, ge=0, lt=2**31)
    log_every: int = Field(default=50, gt=0)
    validate_every: int = Field(default=1000, gt=0)

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `init` where unused: checkpoints of 0.1.0 go on."""
        content: dict[str, Any] = handler(self)
        unused: dict[str, Any] = {"init": [None]}
        return {k: v for k, v in content.items() if k not in unused or v not in unused[k]}

    @field_validator("network", mode="before")
    @classmethod
    def _named_network(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"like": value}
        if not isinstance(value, dict) or "like" not in value:
            return value
        if value["like"] not in NETWORKS:
            raise ValueError(f"unknown network {value['like']!r}; known: {', '.join(NETWORKS)}")
        differs = {name: item for name, item in value.items() if name != "like"}
        return dict(NETWORKS[value["like"]]) | differs

    @field_validator("name")
    @classmethod
    def _not_a_checkpoint(cls, value: str) -> str:
        if value == "checkpoint":
            raise ValueError("the weights would take the place of the checkpoint")
        return value

    @model_validator(mode="after")
    def _opinions_are_of_expressions(self) -> MmaConfig:
        if self.losses.distil and "expr" not in self.network.outputs.groups:
            raise ValueError("losses.distil: the network has no expressions")
        return self

    @model_validator(mode="after")
    def _every_source_is_drawn(self) -> MmaConfig:
        for phase in self.phases:
            for name, count in zip(self.sources, self.counts(phase.batch), strict=True):
                if count == 0:
                    raise ValueError(
                        f"source {name!r} would never be drawn in batches of {phase.batch}: "
                        "raise its proportion or the batch"
                    )
        return self

    def counts(self, batch: int) -> list[int]:
        """Images of each source in a batch: rounded so that they sum to the batch."""
        shares = np.array([source.proportion for source in self.sources.values()])
        edges = np.rint(np.cumsum(shares / shares.sum()) * batch).astype(int)
        return [int(n) for n in np.diff(edges, prepend=0)]

    @property
    def scheduled_steps(self) -> int:
        """Steps of all phases together, over which the learning rate falls to zero."""
        return sum(phase.steps for phase in self.phases)

    @property
    def steps(self) -> int:
        """Steps that the stage takes."""
        return min(self.scheduled_steps, self.stop_after or self.scheduled_steps)

    def phase_at(self, step: int) -> PhaseConfig:
        """Give the phase to which a step (from 0) belongs."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


def read_config(path: Path) -> tuple[MmaConfig, ...]:
    """Read and check a training configuration.

    Parameters
    ----------
    path : Path
        YAML of one `MmaConfig`; or with a list ``stages`` in it, each of whose items is laid
        over the rest to give the configuration of one stage. A stage starts from the averaged
        weights of the one before.

    Raises
    ------
    UsageError
        No such file, not YAML, or values that make no sense, with the place of each.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in _CONFIGS.glob("*.yaml")))
        raise UsageError(
            f"no training configuration at {path}: give a YAML file, or one that comes with feie: "
            f"{known}"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    stages = [content]
    if isinstance(content, dict) and isinstance(content.get("stages"), list):
        rest = {key: value for key, value in content.items() if key != "stages"}
        listed = content["stages"]
        if not listed or not all(isinstance(stage, dict) for stage in listed):
            raise UsageError(f"{path}: stages: each must be a mapping, and there must be one")
        stages = [rest | stage for stage in listed]
    try:
        configs = tuple(MmaConfig.model_validate(stage) for stage in stages)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'top level'}: {item['msg']}"
            for item in error.errors()
        )
        raise UsageError(f"{path}: {places}") from error
    if configs[0].losses.distil and configs[0].init is None:
        raise UsageError(
            f"{path}: losses.distil: a first stage starts at random and has no opinion to distil; "
            "set it in a later stage, or give init"
        )
    return configs


def find_config(path: Path) -> Path:
    """Give a configuration's file: the path itself, or the one of that name that feie brings."""
    own = _CONFIGS / f"{path.name.removesuffix('.yaml')}.yaml"
    return own if not path.exists() and path.parent == Path() and own.is_file() else path
