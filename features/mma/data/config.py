"""Which faces and labels are read, and by which reader: one model for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from feie.features.errors import DataError

Split = Literal["train", "val", "test"]


class Strict(BaseModel):
    """Frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PartConfig(Strict):
    """A fixed part of the images, chosen by a hash.

    Attributes
    ----------
    held_out : float
        Share of the images that is held out.
    keep : {"train", "held-out"}
        Which side this is.
    by : {"name", "person"}
        What is hashed: the image's name, or who is seen, so that nobody is on both sides: the
        data set's own identities (Aff-Wild2's videos), else the name without the number at its
        end (``Ann_Lee_0002.jpg`` is ``Ann_Lee``).
    """

    held_out: float = Field(gt=0, lt=1)
    keep: Literal["train", "held-out"]
    by: Literal["name", "person"] = "name"

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the default out: runs that were begun before it existed can go on."""
        content: dict[str, Any] = handler(self)
        if self.by == "name":
            del content["by"]
        return content


class PackConfig(Strict):
    """One pack of faces, held in memory.

    Attributes
    ----------
    pack : str
        Path of the HDF5 file, relative to one of the data roots.
    part : PartConfig, optional
        Use only a part of it.
    crops : {"fixed", "detected"}
        How images that are not 112x112 are aligned; ``detected`` needs a detector.
    without : str, optional
        Another pack, whose images are left out where they are the same pixel for pixel: published
        splits overlap.
    """

    reader: Literal["pack"] = Field(default="pack", exclude=True)
    pack: str
    part: PartConfig | None = None
    crops: Literal["fixed", "detected"] = "fixed"
    without: str | None = None

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.pack


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class ListingConfig(Strict):
    """What readers of image files have in common; the images are read when they are drawn.

    Attributes
    ----------
    data : str
        Folder of the data set (of a table: its file), relative to one of the data roots.
    images, annotations : str, optional
        Where these are, if not where the reader looks: relative to `data` or to a data root.
    split : {"train", "val", "test"}, optional
        Which split: the data set's own, or that of the partition.
    partition : str or list of str
        Files (CSV, Parquet) that list the images of each split, or folders that hold one file a
        split; see `feie.features.mma.data.readers.partition`.
    outside : {"keep", "drop"}
        What becomes of images whose expression is none of the seven (contempt, other, none,
        uncertain): kept without an expression label, or dropped; counted either way.
    every : int
        Use every so-manieth image: neighbouring frames of a video are nearly the same.
    tolerance : float
        Largest share of names that join no image, of images that are not there, and of images
        that cannot be read, each of them counted and named.
    part : PartConfig, optional
        Use only a part.
    crops : {"fixed", "detected"}
        How images are aligned that are not 112x112 and have no landmarks: by one fixed crop of
        the image or its face box, or by a detector.
    """

    data: str
    images: str | None = None
    annotations: str | None = None
    split: Split | None = None
    partition: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    outside: Literal["keep", "drop"] = "keep"
    every: int = Field(default=1, gt=0)
    tolerance: float = Field(default=0.01, ge=0, le=1)
    part: PartConfig | None = None
    crops: Literal["fixed", "detected"] = "fixed"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.data} ({self.split})" if self.split else self.data


class AffectNetConfig(ListingConfig):
    """AffectNet, as lists in CSV or as annotation files in ``.npy``."""

    reader: Literal["affectnet"]


class AffWild2Config(ListingConfig):
    """Aff-Wild2 with the annotations of an ABAW competition."""

    reader: Literal["aff-wild2"]


class EmotioNetConfig(ListingConfig):
    """EmotioNet."""

    reader: Literal["emotionet"]


class TableConfig(ListingConfig):
    """A table of image paths and labels.

    Attributes
    ----------
    classes : tuple of str, optional
        What expression codes 0, 1, … mean; without it they are taken in Aff-Wild2's order.
    """

    reader: Literal["table"]
    classes: tuple[str, ...] | None = None


class LearnConfig(Strict):
    """How a source is learnt from.

    Attributes
    ----------
    proportion : float
        Share of every batch, relative to the other sources.
    balance : float
        0 draws images as they come, 1 all expressions equally often; between, by the count of
        the image's expression to the power of minus this.
    pseudo_units : str, optional
        Path of an HDF5 file with ``name`` (n,) and ``au`` (n, 17), a teacher's guesses, joined
        to the images by name; they fill in what the data set itself does not annotate.
    votes : {"cross-entropy", "probability", "majority", "none"}
        What is learnt of data that carry votes, see `votes.vote_targets`: their
        distribution; one of them, drawn anew each time; the most voted; or their labels alone.
    units_share : float
        How much of the weak valence of *expression* follows from the face's units instead, see
        `soft_targets.with_intensity`.
    graded : float
        Share of the label *happiness* that a face without a smile (AU12) gives to *neutral*, see
        `feie.features.mma.training.soft_targets.graded`.
    """

    proportion: float = Field(gt=0)
    balance: float = Field(default=0.0, ge=0, le=1)
    pseudo_units: str | None = None
    votes: Literal["cross-entropy", "probability", "majority", "none"] = "cross-entropy"
    units_share: float = Field(default=0.0, ge=0, le=1)
    graded: float = Field(default=0.0, ge=0, lt=0.5)

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later where unused: checkpoints of 0.1.0 go on."""
        content: dict[str, Any] = handler(self)
        unused: dict[str, Any] = {"votes": ["cross-entropy"], "units_share": [0.0]}
        return {k: v for k, v in content.items() if k not in unused or v not in unused[k]}


class PackSource(PackConfig, LearnConfig):
    """A pack to learn from.

    Attributes
    ----------
    valence_arousal : {"pack", "expression", "none"}
        Labels of the pack, the weak rule of `weak_valence_arousal`, or nothing.
    """

    valence_arousal: Literal["pack", "expression", "none"] = "pack"


class ListingSource(LearnConfig):
    """A data set of image files to learn from.

    Attributes
    ----------
    valence_arousal : {"own", "expression", "none"}
        Labels of the data set, the weak rule of `weak_valence_arousal`, or nothing.
    """

    valence_arousal: Literal["own", "expression", "none"] = "own"


class AffectNetSource(AffectNetConfig, ListingSource):
    """AffectNet to learn from."""


class AffWild2Source(AffWild2Config, ListingSource):
    """Aff-Wild2 to learn from."""


class EmotioNetSource(EmotioNetConfig, ListingSource):
    """EmotioNet to learn from."""


class TableSource(TableConfig, ListingSource):
    """A table to learn from."""


READERS = ("pack", "affectnet", "aff-wild2", "emotionet", "table")
"""Names of the readers; `pack` is the default."""


def _reader(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("reader", "pack"))
    return str(getattr(value, "reader", "pack"))


_BY_READER = Discriminator(
    _reader,
    custom_error_type="reader",
    custom_error_message=f"unknown reader; feie has {', '.join(READERS)}",
)

DataConfig = Annotated[
    Annotated[PackConfig, Tag("pack")]
    | Annotated[AffectNetConfig, Tag("affectnet")]
    | Annotated[AffWild2Config, Tag("aff-wild2")]
    | Annotated[EmotioNetConfig, Tag("emotionet")]
    | Annotated[TableConfig, Tag("table")],
    _BY_READER,
]
"""Data to be measured on, by any reader."""

SourceConfig = Annotated[
    Annotated[PackSource, Tag("pack")]
    | Annotated[AffectNetSource, Tag("affectnet")]
    | Annotated[AffWild2Source, Tag("aff-wild2")]
    | Annotated[EmotioNetSource, Tag("emotionet")]
    | Annotated[TableSource, Tag("table")],
    _BY_READER,
]
"""Data to learn from, by any reader."""


def find_pack(name: str, roots: tuple[Path, ...]) -> Path:
    """Find a pack below the first data root that holds it.

    Raises
    ------
    DataError
        None of them does.
    """
    for root in roots:
        if (root / name).is_file():
            return root / name
    tried = ", ".join(str(root) for root in roots) or "no data root given"
    raise DataError(f"pack {name} is in none of the data roots ({tried}): add one with --data-root")


def find_data(name: str, roots: tuple[Path, ...], what: str) -> Path:
    """Find a file or folder of a data set below the first folder that holds it.

    Raises
    ------
    DataError
        None of them does.
    """
    for root in roots:
        if (root / name).exists():
            return root / name
    tried = ", ".join(str(root) for root in roots) or "no data root given"
    cure = "; add one with --data-root" if what == "data" else ""
    raise DataError(f"{what} {name} is in none of these folders: {tried}{cure}")
