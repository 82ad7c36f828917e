"""What an ONNX network expects and gives: the schema of a description, a small JSON file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces.crop import Crop, CropKind
from feie.features.schema import Schema

Activation = Literal["none", "softmax", "sigmoid", "tanh"]
Colour = Literal["RGB", "BGR", "grey"]
FORMAT = "feie-onnx/1"
_LARGEST = 1 << 20  # bytes of a description; a real one has about a thousand

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$", max_length=64)]
_Column = Annotated[str, Field(pattern=r"^[^,\s\x00-\x1f]+$", max_length=64)]
_Channel = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CropPart(_Part):
    """How a face is cut out; see `Crop`, whose side is that of the input."""

    kind: CropKind = "aligned"
    margin: float = Field(default=0.0, ge=0, le=2)


class InputPart(_Part):
    """What the network takes: ``((pixel / 255) * (high - low) + low - mean) / sd``.

    Attributes
    ----------
    name : str or None
        Of the graph's input; needed where it has several.
    size : int
        Side of the square input, px.
    layout : {"NCHW", "NHWC"}
    colour : {"RGB", "BGR", "grey"}
        Grey has one channel, 0.299 R + 0.587 G + 0.114 B.
    range : (float, float)
        What black and white become, before mean and sd.
    mean, sd : tuple of float
        A number for all channels, or one a channel in the order of `colour`.
    """

    name: str | None = None
    size: int = Field(ge=16, le=1024)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    colour: Colour = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    mean: _Channel = (0.0,)
    sd: _Channel = (1.0,)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.colour == "grey" else 3

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range must rise, not {list(self.range)}")
        for name in ("mean", "sd"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ValueError(f"{name} needs one number, or one for each channel")
        if min(self.sd) <= 0:
            raise ValueError("sd must be positive")
        return self


class GroupPart(_Part):
    """A group of columns, and where in the outputs they stand.

    Attributes
    ----------
    name : str
        Of the group; those of `va`, `expr` and `au` mean what they mean in the affect vector.
    columns : tuple of str
        In the order in which they are stored.
    output : str or None
        Of the graph; needed where it has several.
    at : tuple of int or None
        Place of each column in the output, from 0 on; without it the columns are the whole
        output, in its order.
    activation : {"none", "softmax", "sigmoid", "tanh"}
        Applied to the group; the softmax is over its columns.
    """

    name: _Name
    columns: tuple[_Column, ...] = Field(min_length=1, max_length=4096)
    output: str | None = None
    at: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    activation: Activation = "none"

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.at is not None and len(self.at) != len(self.columns):
            raise ValueError(f"at has {len(self.at)} places for {len(self.columns)} columns")
        if self.at is not None and len(set(self.at)) != len(self.at):
            raise ValueError("at names a place twice")
        return self


class EmbeddingPart(_Part):
    """What is kept as the embedding of a face, where `feie extract` is told to keep it.

    Attributes
    ----------
    tensor : str or None
        An output of the graph, or a tensor inside it; without it, what feeds the last layer (Gemm
        or MatMul) of the first group's output.
    """

    tensor: str | None = None


class Description(_Part):
    """An ONNX file as an extractor; see docs/extending.md for an example.

    Attributes
    ----------
    format : "feie-onnx/1"
    name : str
        Goes into the provenance of stores.
    file : str or None
        The ONNX file, beside the description; ``--weights`` names another place.
    sha256 : str or None
        Of the ONNX file; another file is refused.
    crop : CropPart
    input : InputPart
    groups : tuple of GroupPart
        In the order in which they are stored.
    embedding : EmbeddingPart or None
    batch : int or None
        Faces in one call of the network, at most; what the graph says by default.
    """

    format: Literal["feie-onnx/1"]
    name: _Name
    file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    crop: CropPart = CropPart()
    input: InputPart
    groups: tuple[GroupPart, ...] = Field(min_length=1)
    embedding: EmbeddingPart | None = None
    batch: int | None = Field(default=None, ge=1, le=1024)

    @field_validator("file")
    @classmethod
    def _beside(cls, file: str | None) -> str | None:
        if file is not None and (
            PurePath(file).name != file or "\\" in file or file in (".", "..")
        ):
            raise ValueError("the ONNX file lies beside its description: a name without folders")
        return file

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({group.name for group in self.groups}) != len(self.groups):
            raise ValueError("two groups have the same name")
        columns = [column for group in self.groups for column in group.columns]
        if len(set(columns)) != len(columns):
            raise ValueError("two columns have the same name")
        self.seen()
        return self

    def schema_of_columns(self) -> Schema:
        """Columns and groups as they are stored."""
        return Schema.of({group.name: group.columns for group in self.groups})

    def seen(self) -> Crop:
        """Give what the network sees of a face."""
        return Crop(self.crop.kind, self.input.size, self.crop.margin)

    def provenance(self) -> dict[str, Any]:
        """All that changes numbers and is not in the ONNX file, in JSON types."""
        named = {"crop", "input", "groups", "embedding", "batch"}
        return self.model_dump(mode="json", include=named)


def read_description(path: Path) -> Description:
    """Read a description.

    Raises
    ------
    MissingWeightsError
        There is no such file.
    UsageError
        It is no description; the message names the field.
    """
    try:
        size, content = path.stat().st_size, b""
        if size <= _LARGEST:
            content = path.read_bytes()
    except FileNotFoundError:
        raise MissingWeightsError(
            f"there is no description {path}; docs/extending.md shows how to write one"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if size > _LARGEST:
        raise UsageError(f"{path} has {size} bytes: that is no description of an ONNX file")
    return _parse(content, str(path))


def builtin_names() -> list[str]:
    """Names of the networks that feie has descriptions of; their weights are the user's."""
    folder = files("feie.features.extractors.onnx").joinpath("descriptions")
    return sorted(
        item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json")
    )


def builtin(name: str) -> Description:
    """Give a description that comes with feie; `builtin_names` lists them."""
    path = files("feie.features.extractors.onnx").joinpath("descriptions", f"{name}.json")
    return _parse(path.read_bytes(), name)


def _parse(content: bytes, where: str) -> Description:
    try:
        return Description.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{where}{f': {field}' if field else ''}: {said} (docs/extending.md describes the "
            "fields)"
        ) from None
