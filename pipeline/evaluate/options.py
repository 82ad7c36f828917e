"""What `feie evaluate` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from feie.heads.config import SplitName, StorePaths, SubmissionForm
from feie.pipeline.options import Flag, Options
from feie.pipeline.train.options import MissingLabel


class EvaluateOptions(Options):
    """What `feie evaluate` is asked to do.

    A fusion takes a store a head, or one for all.
    """

    run: Annotated[
        Path | None,
        Field(description="Folder of a run, or its name in --runs."),
        Flag(default="the newest of --runs"),
    ] = None
    runs: Annotated[Path, Field(description="Folder of all runs.")] = Path("runs")
    store: Annotated[
        StorePaths,
        Field(description="Another store; for a fusion one for each head, repeated."),
        Flag(names=("--store",), argument=True, default="the run's own", typed=list[str]),
    ] = ()
    labels: Annotated[
        Path | None, Field(description="Other labels."), Flag(default="the run's own")
    ] = None
    missing_label: MissingLabel = ()
    split: Annotated[
        SplitName,
        Field(description="The test split is used only with `--split test`; each use is logged."),
    ] = "val"
    unmatched: Annotated[
        float, Field(ge=0, le=1, description="Share of labels that may lack a video.")
    ] = 0.05
    against: Annotated[
        Path | None, Field(description="Another run: differences by a paired bootstrap.")
    ] = None
    submission: Annotated[
        Path | None,
        Field(description="Write the predictions as a challenge wants them."),
        Flag(names=("--out", "--submission")),
    ] = None
    form: Annotated[
        SubmissionForm,
        Field(
            description="Of --out: `labels` (ids as in the label file), `eri` (`File_ID`, "
            "[00001]; MuSe too), `emi` (`Filename`, 00001) or `plain`."
        ),
        Flag(names=("--format", "--form")),
    ] = "labels"
    report: Annotated[
        Path | None,
        Field(description="Write a page with tables and pictures too (HTML, one file)."),
    ] = None
    head: Annotated[
        tuple[str, ...],
        Field(
            description="Code of the run's head, `FILE.py:NAME`, where no package offers it; it "
            "is run."
        ),
    ] = ()
