"""What `feie predict` and `feie compound` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from feie.heads.config import StorePaths
from feie.pipeline.options import Flag, Options, StoreArgument


class PredictOptions(Options):
    """What `feie predict` is asked to do.

    With ``videos`` these are extracted first, by the extractor of the head's training unless
    another is named, into ``store``, or into a store that is removed afterwards.
    """

    run: Annotated[
        Path | None,
        Field(description="Folder of a run, or its name in --runs."),
        Flag(default="the newest of --runs"),
    ] = None
    runs: Annotated[Path, Field(description="Folder of all runs.")] = Path("runs")
    store: Annotated[
        StorePaths,
        Field(
            description="The store to predict, or to keep with --videos; for a fusion one for "
            "each head, repeated."
        ),
        Flag(names=("--store",), argument=True, default="features.zarr", typed=list[str]),
    ] = ()
    videos: Annotated[
        Path | None, Field(description="Folder of videos: they are extracted first.")
    ] = None
    extractor: Annotated[
        str | None, Field(description="For --videos."), Flag(default="that of the training")
    ] = None
    weights: Annotated[Path | None, Field(description="For --videos, as in `feie extract`.")] = None
    detector: Annotated[str | None, Field(description="For --videos, as in `feie extract`.")] = None
    out: Annotated[Path, Field(description="The CSV to write.")] = Path("predictions.csv")
    form: Annotated[
        Literal["plain", "eri", "emi"],
        Field(
            description="Of --out: `eri` (`File_ID`, [00001]; MuSe too), `emi` (`Filename`, "
            "00001) or `plain`."
        ),
        Flag(names=("--format", "--form")),
    ] = "plain"
    clip: Annotated[
        bool,
        Field(
            description="Keep what is written within [0, 1], the challenges' range; a head may "
            "leave it by a little."
        ),
        Flag(names=("--clamp", "--clip")),
    ] = False
    head: Annotated[
        tuple[str, ...],
        Field(
            description="Code of the run's head, `FILE.py:NAME`, where no package offers it; it "
            "is run."
        ),
    ] = ()


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
