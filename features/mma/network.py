"""The MMA network: a residual CNN, one shared embedding, and the outputs read from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    model_validator,
)
from torch import Tensor, nn

from feie.features.schema import ACTION_UNITS, AFFECT, SCHEMAS, VALENCE_AROUSAL, Schema

_Positive = Annotated[int, Field(gt=0)]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "va": torch.tanh,
    "expr": lambda logits: logits.softmax(dim=1),
    "au": torch.sigmoid,
}
"""What turns the raw outputs of a group into its numbers; the groups in their fixed order."""


def _read_outputs(value: object) -> object:
    """Make a schema of what YAML and JSON hold: a name, or the columns of each group."""
    if isinstance(value, str):
        if value not in SCHEMAS:
            raise ValueError(f"unknown outputs {value!r}; known: {', '.join(SCHEMAS)}")
        return SCHEMAS[value]
    if not isinstance(value, Mapping):
        return value
    if not value or value.keys() - _ACTIVATIONS.keys():
        raise ValueError(f"outputs are of the groups {', '.join(_ACTIVATIONS)}")
    for name, columns in value.items():
        if not isinstance(columns, Sequence) or not all(isinstance(c, str) for c in columns):
            raise ValueError(f"group {name!r} must be a list of names")
    for name, known in (("va", VALENCE_AROUSAL), ("au", ACTION_UNITS)):
        if name in value and tuple(value[name]) != known:
            raise ValueError(f"group {name!r} must be {', '.join(known)}")
    if "expr" in value and len(value["expr"]) < 2:
        raise ValueError("group 'expr' needs at least two expressions")
    return Schema.of({name: value[name] for name in _ACTIVATIONS if name in value})


def _write_outputs(schema: Schema) -> dict[str, tuple[str, ...]]:
    return {name: schema.group(name) for name in schema.groups}


Outputs = Annotated[
    InstanceOf[Schema], BeforeValidator(_read_outputs), PlainSerializer(_write_outputs)
]
"""The columns that a network gives; in YAML a name of `SCHEMAS`, or group to column names."""


class NetworkConfig(BaseModel):
    """Shape of an MMA network, stored as JSON in the metadata of its weights.

    Attributes
    ----------
    stem : tuple of int
        Output channels of the strided 3x3 convolutions at the entrance; each halves the image.
    block : {"basic", "bottleneck"}
        Two 3x3 convolutions, or 1x1 - 3x3 - 1x1 with a fourfold expansion.
    widths, depths : tuple of int
        Channels and number of blocks of each stage; every stage but the first halves the image.
    embedding : int
        Width of the shared feed-forward embedding.
    dropout : float
        Dropout on the embedding while training.
    outputs : Schema
        The columns that it gives, of any of the groups ``va`` (tanh), ``expr`` (softmax; any
        expressions) and ``au`` (logistic function). Weights that do not say have `AFFECT`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stem: tuple[_Positive, ...] = Field(min_length=1)
    block: Literal["basic", "bottleneck"] = "basic"
    widths: tuple[_Positive, ...] = Field(min_length=1)
    depths: tuple[_Positive, ...] = Field(min_length=1)
    embedding: int = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    outputs: Outputs = AFFECT

    @model_validator(mode="after")
    def _same_stages(self) -> NetworkConfig:
        if len(self.widths) != len(self.depths):
            raise ValueError(f"{len(self.widths)} widths but {len(self.depths)} depths")
        return self


MMA_LITE = NetworkConfig(
    stem=(16, 32), widths=(32, 96, 192), depths=(1, 2, 3), embedding=128, dropout=0.2
)
"""2.2 M parameters; 165 M multiply-adds a face of 112x112, 84 M at 80x80: for CPUs, bundled."""

MMA_BASE = NetworkConfig(
    stem=(64,),
    block="bottleneck",
    widths=(64, 128, 256, 512),
    depths=(3, 4, 6, 3),
    embedding=512,
    dropout=0.2,
)
"""ResNet-50 class: what a lab with a GPU and the full data sets would train."""

NETWORKS = {"mma-lite": MMA_LITE, "mma-base": MMA_BASE}


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class ResidualBlock(nn.Module):
    """Basic or bottleneck residual block with batch norm.

    Parameters
    ----------
    inputs : int
        Channels that come in.
    width : int
        Channels of the 3x3 convolutions; a bottleneck gives out four times as many.
    stride : int
        1, or 2 to halve the image.
    block : {"basic", "bottleneck"}
        Form of the residual branch.
    """

    expansion: ClassVar = {"basic": 1, "bottleneck": 4}

    def __init__(
        self, inputs: int, width: int, stride: int, block: Literal["basic", "bottleneck"]
    ) -> None:
        super().__init__()
        outputs = width * self.expansion[block]
        if block == "basic":
            steps = [_convolution(inputs, width, 3, stride), _convolution(width, width, 3)]
        else:
            steps = [
                _convolution(inputs, width, 1),
                _convolution(width, width, 3, stride),
                _convolution(width, outputs, 1),
            ]
        layers: list[nn.Module] = []
        for step in steps[:-1]:
            layers += [step, nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*layers, steps[-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class MMANetwork(nn.Module):
    """Faces to an embedding and the raw outputs (logits) of its columns.

    Ends in global average pooling, so that any image size works; 112x112 is what the weights
    are meant for.

    Parameters
    ----------
    config : NetworkConfig
        Widths, depths and outputs.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = 3
        layers: list[nn.Module] = []
        for width in config.stem:
            layers += [_convolution(channels, width, 3, 2), nn.ReLU(inplace=True)]
            channels = width
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                layers.append(ResidualBlock(channels, width, stride, config.block))
                channels = width * ResidualBlock.expansion[config.block]
        self.trunk = nn.Sequential(*layers)
        self.embed = nn.Linear(channels, config.embedding)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.embedding, len(config.outputs))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings and raw outputs.

        Parameters
        ----------
        faces : Tensor (b, 3, h, w)
            RGB in [-1, 1].

        Returns
        -------
        embedding : Tensor (b, d)
            Non-negative shared embedding.
        raw : Tensor (b, columns)
            Outputs before tanh, softmax and sigmoid, in the order of ``config.outputs``.
        """
        features = self.trunk(faces).mean(dim=(2, 3))
        embedding = torch.relu(self.embed(features))
        return embedding, self.output(self.dropout(embedding))


def channels_last(network: MMANetwork) -> MMANetwork:
    """Lay a network's kernels out as CPUs and tensor cores like them; the numbers stay."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def affect_from_raw(raw: Tensor, schema: Schema) -> Tensor:
    """Turn raw outputs into the affect vector.

    Parameters
    ----------
    raw : Tensor (b, columns)
        Raw outputs of `MMANetwork`.
    schema : Schema
        Its outputs.

    Returns
    -------
    Tensor (b, columns)
        Valence and arousal through tanh, expressions through softmax, action units through
        the logistic function.
    """
    parts = split_raw(raw, schema)
    return torch.cat([_ACTIVATIONS[name](part) for name, part in parts.items()], dim=1)


def split_raw(raw: Tensor, schema: Schema) -> dict[str, Tensor]:
    """Split (b, columns) raw outputs into the groups of a network's schema."""
    return {name: raw[:, slice(*span)] for name, span in schema.groups.items()}
