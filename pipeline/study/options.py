"""What `feie cross-validate` and `feie compare` can be asked; loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from feie.features.errors import UsageError
from feie.heads.config import SplitName
from feie.pipeline.grid.options import Stack
from feie.pipeline.options import Flag, Options
from feie.pipeline.train.options import MissingLabel, TrainHeadOptions

_FOLDS = Flag(panel="Folds")
_HIDDEN = Flag(hidden=True)
_OF_ONE_RUN = Field(description="Of a single run of `feie train-head`; each run here has its own.")
_SINGLE = ("runs", "name", "seed", "tensorboard", "resume")


class CrossValidateOptions(TrainHeadOptions):
    """What `feie cross-validate` is asked to do; all else is as in `feie train-head`."""

    folds: Annotated[
        str,
        Field(
            min_length=1,
            description="How many; `subjects` leaves one person out at a time; or a column of the "
            "label file that says the fold of each video.",
        ),
        _FOLDS,
    ] = "5"
    fold_seed: Annotated[
        int, Field(ge=0, description="Deals the persons out in another way."), _FOLDS
    ] = 0
    seeds: Annotated[
        int,
        Field(ge=1, le=1000, description="Runs per fold, whose mean is taken; can be raised."),
        _FOLDS,
    ] = 1
    choose: Annotated[
        tuple[str, ...],
        Field(
            description="An option and its values, `lr=0.001,0.0003`: each fold takes the best by "
            "its own validation part; can be repeated."
        ),
        _FOLDS,
    ] = ()
    out: Annotated[Path, Field(description="Folder of runs, predictions and figures.")] = Path(
        "cross-validation"
    )
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
    runs: Annotated[Path, _OF_ONE_RUN, _HIDDEN] = Path("runs")
    name: Annotated[str | None, _OF_ONE_RUN, _HIDDEN] = None
    seed: Annotated[int, _OF_ONE_RUN, _HIDDEN] = 0
    tensorboard: Annotated[bool, _OF_ONE_RUN, _HIDDEN] = False
    resume: Annotated[Path | None, _OF_ONE_RUN, _HIDDEN] = None

    @model_validator(mode="after")
    def _check_single(self) -> Self:
        """Refuse what a single run has, and would do nothing here."""
        fields = type(self).model_fields
        given = [name for name in _SINGLE if getattr(self, name) != fields[name].default]
        if given:
            raise UsageError(
                f"{', '.join(given)} {'belongs' if len(given) == 1 else 'belong'} to a single run "
                "of feie train-head; a cross-validation has seeds and out"
            )
        return self

    def shared(self) -> dict[str, Any]:
        """Give the options of `feie train-head` that all runs have in common."""
        own = set(CrossValidateOptions.__annotations__) - {"labels", "store"}
        return {name: value for name, value in self.flat().items() if name not in own}


class CompareOptions(Options):
    """What `feie compare` is asked to do."""

    runs: Annotated[
        tuple[Path, ...],
        Field(
            min_length=2,
            description="Two or more of: a run's folder, that of a cross-validation, a CSV of "
            "predictions (`id`, targets). The others are compared with the first.",
        ),
        Flag(argument=True),
    ]
    labels: Annotated[
        Path | None,
        Field(description="The true values; needed where only files of predictions are compared."),
        Flag(default="those of the runs"),
    ] = None
    missing_label: MissingLabel = ()
    split: Annotated[
        SplitName,
        Field(description="On which runs are compared; cross-validations have all videos."),
    ] = "val"
    unmatched: Annotated[
        float, Field(ge=0, le=1, description="Share of labels that may lack a video.")
    ] = 0.05
    head: Annotated[
        tuple[str, ...],
        Field(
            description="Code of a run's head, `FILE.py:NAME`, where no package offers it; it is "
            "run."
        ),
    ] = ()
    out: Annotated[
        Path | None, Field(description="Write `comparison.csv` and a picture into this folder.")
    ] = None
