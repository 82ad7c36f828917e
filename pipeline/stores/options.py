"""What `feie info`, `feie verify` and `feie merge` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from feie.pipeline.engine.options import local_store
from feie.pipeline.options import Flag, Options, StoreArgument


class InfoOptions(Options):
    """What `feie info` is asked to do."""

    store: StoreArgument = "features.zarr"
    reproduce: Annotated[
        bool, Field(description="Print only the command that makes such a store again.")
    ] = False


class VerifyOptions(Options):
    """What `feie verify` is asked to do."""

    store: StoreArgument = "features.zarr"
    videos: Annotated[
        Path | None,
        Field(
            description="Compare the sources in this folder (of an imported store, the files) "
            "byte by byte too."
        ),
    ] = None


class MergeOptions(Options):
    """What `feie merge` is asked to do."""

    stores: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="Stores to join, paths or fsspec URLs; one alone is compacted.",
        ),
        Flag(names=("--store",), argument=True),
    ]
    out: Annotated[
        Path,
        BeforeValidator(local_store),
        Field(description="The new store; nothing may be there yet."),
    ]
    duplicates: Annotated[
        Literal["refuse", "last"],
        Field(
            description="A video that two stores hold from different bytes: `refuse`, or take "
            "that of the `last` store named."
        ),
    ] = "refuse"
