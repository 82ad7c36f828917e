"""What `feie dump` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from feie.pipeline.engine.options import local_store
from feie.pipeline.options import Flag, Names, Options, StoreArgument


class DumpOptions(Options):
    """What `feie dump` is asked to do."""

    store: StoreArgument = "features.zarr"
    format: Annotated[
        Literal["hdf5", "hdf5-groups", "muse", "openface", "parquet", "npz", "safetensors"],
        Field(
            description="One file: `hdf5`, `hdf5-groups` (a group per video), `parquet` (a row "
            "per frame), `safetensors`. A file per video: `muse` (feature folder), `openface` "
            "(CSV), `npz`."
        ),
    ]
    out: Annotated[
        Path,
        BeforeValidator(local_store),
        Field(description="The file, or the folder, to write."),
    ]
    subset: Annotated[
        Names, Field(description="Groups of columns, e.g. `va,au`."), Flag(default="all")
    ] = ()
    ids: Annotated[
        Path | None,
        Field(description="Text file with one video id per line: only these are written."),
    ] = None
    match: Annotated[
        tuple[str, ...],
        Field(
            description="Only ids that fit this shell pattern, e.g. `speaker1/*`; can be repeated."
        ),
    ] = ()
    missing: Annotated[
        Literal["keep", "zero", "hold", "drop"],
        Field(
            description="Frames without a face, with `muse`: `keep` them blank, fill them with "
            "`zero`, `hold` the last face, or `drop` them."
        ),
    ] = "keep"
    embedding: Annotated[
        bool, Field(description="The extractor's embedding too, if the store has it.")
    ] = False
    geometry: Annotated[bool, Field(description="The detector's score, box and landmarks too.")] = (
        False
    )
    dry_run: Annotated[
        bool, Field(description="Say what would be written and how large; write nothing.")
    ] = False
