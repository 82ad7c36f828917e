"""What `feie ablate` and a sweep can be asked; loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from feie.heads.config import LongPolicy, MissingPolicy, PresetName, Space
from feie.pipeline.grid.tables import Row, TableName
from feie.pipeline.options import Flag, Names, Options, StoreArgument
from feie.pipeline.train.options import MissingLabel, TrainHeadOptions

Stack = Literal["auto", "on", "off"]
"""Whether runs are trained in one model; ``auto`` where it is faster."""
_STEPS = Flag(panel="Training")
_INPUT = Flag(panel="Frames")
_BY_PRESET = Flag(default="of the preset")


class AblateOptions(Options):
    """What `feie ablate` is asked to do.

    What is not listed here is as in `feie.pipeline.train.options.TrainHeadOptions`.
    """

    table: Annotated[
        TableName,
        Field(description="`subsets` (Kollias et al., Table 3) or `architecture` (their Table 4)."),
    ] = "subsets"
    seeds: Annotated[
        int, Field(ge=1, le=1000, description="Runs per row; can be raised later.")
    ] = 5
    store: StoreArgument = "features.zarr"
    labels: Annotated[
        Path, Field(description="CSV or Parquet: an id column, `split`, numeric targets.")
    ] = Path("labels.csv")
    subset: Annotated[
        Names,
        Field(min_length=1, description="Groups of columns of table architecture."),
    ] = ("va", "expr", "au")
    targets: Annotated[
        Names, Field(description="Label columns, comma-separated."), Flag(default="all")
    ] = ()
    missing_label: MissingLabel = ()
    out: Annotated[
        Path | None,
        Field(description="Folder of runs and table."),
        Flag(default="ablation-TABLE"),
    ] = None
    preset: Annotated[
        PresetName,
        Field(description="`default`, or `paper` (batch 4, learning rate 1e-4)."),
        _STEPS,
    ] = "default"
    lr: Annotated[
        float | None, Field(gt=0, description="Adam's learning rate."), _BY_PRESET, _STEPS
    ] = None
    batch: Annotated[
        int | None, Field(ge=1, description="Videos per batch."), _BY_PRESET, _STEPS
    ] = None
    epochs: Annotated[
        int | None, Field(ge=1, description="At most so many."), _BY_PRESET, _STEPS
    ] = None
    patience: Annotated[
        int | None,
        Field(ge=1, description="Stop after so many without a better validation Pearson."),
        _BY_PRESET,
        _STEPS,
    ] = None
    clip: Annotated[
        float | None, Field(gt=0, description="Largest gradient norm of each run."), _STEPS
    ] = None
    t: Annotated[int, Field(ge=1, le=100_000, description="Most frames of a video."), _INPUT] = 480
    frame_stride: Annotated[
        int, Field(ge=1, le=10_000, description="Read only every so many frames."), _INPUT
    ] = 1
    missing: Annotated[
        MissingPolicy, Field(description="Frames without a face: `drop`, `hold` or `zero`."), _INPUT
    ] = "drop"
    long: Annotated[
        LongPolicy,
        Field(description="Videos longer than t: `uniform` resampling or `head`."),
        _INPUT,
    ] = "uniform"
    space: Annotated[
        Space,
        Field(description="`prob`: probabilities as stored; `logit`: their logits."),
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
    stack: Annotated[
        Stack,
        Field(description="Train runs in one stack: `auto` (where it is faster), `on` or `off`."),
    ] = "auto"
    jobs: Annotated[
        int | None,
        Field(ge=1, description="Processes side by side, one thread each."),
        Flag(default="one per core"),
    ] = None
    device: Annotated[str, Field(description="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto"
    published: Annotated[
        Path | None,
        Field(description="CSV `row,published` that completes the published column."),
    ] = None

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.out or Path(f"ablation-{self.table}")

    def run_of(self, row: Row, seed: int) -> TrainHeadOptions:
        """Options of the run of one row and seed."""
        same = set(TrainHeadOptions.model_fields) & set(AblateOptions.model_fields) - {"device"}
        common = {name: getattr(self, name) for name in same}
        name, runs = f"{row.slug}-s{seed}", self.folder / "runs"
        return TrainHeadOptions.model_validate(
            {**common, **row.changes, "seed": seed, "runs": runs, "name": name}
        )


class SweepOptions(Options):
    """What a sweep is asked to do; runs go to ``<runs>/<name>/``, see `folder`."""

    grid: Annotated[
        Path,
        Field(
            description="YAML: an option of `feie train-head` a line, with the list of its values."
        ),
    ]
    base: Annotated[
        TrainHeadOptions,
        Field(description="Everything that the grid does not name; its name is the sweep's."),
        Flag(hidden=True),
    ]
    jobs: Annotated[
        int, Field(ge=1, description="Runs side by side; on a CPU one per core is best.")
    ] = 1
    gpus: Annotated[
        tuple[int, ...], Field(description="Deal the runs out to these GPUs, e.g. `0,1`.")
    ] = ()

    @property
    def folder(self) -> Path:
        """Where the runs and the table go."""
        return self.base.runs / (self.base.name or self.grid.stem)
