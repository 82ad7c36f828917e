"""What `feie predict` and `feie compound` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from feie.pipeline.options import Flag, Options, StoreArgument


class CompoundOptions(Options):
    """What `feie compound` is asked to do."""

    store: StoreArgument = "features.zarr"
    out: Annotated[Path, Field(description="The CSV to write.")] = Path("compound.csv")
    frames: Annotated[bool, Field(description="A row per frame instead of a row per video.")] = (
        False
    )
    frequencies: Annotated[
        Path | None,
        Field(description="CSV `class,frequency` to give the KL divergence from."),
        Flag(names=("--frequencies", "--against")),
    ] = None
