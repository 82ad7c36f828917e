"""What is typed behind `feie train-head`: one head, a sweep of many, or the fusion of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from feie.features.errors import UsageError
from feie.pipeline.engine.options import numbers
from feie.pipeline.options import Flag, split_commas
from feie.pipeline.progress import ProgressCallback, silent
from feie.pipeline.result import Result
from feie.pipeline.train.options import TrainHeadOptions

_SWEEP = Flag(panel="Sweep: many heads of one store")
_FUSION = Flag(panel="Fusion: one head for each of several stores")
_OWN = {"store", "subset", "sweep", "jobs", "gpus", "fuse", "fusion_weights"}


def _subsets(value: object) -> object:
    """Read each of ``va,au`` as ("va", "au")."""
    return tuple(map(split_commas, value)) if isinstance(value, list | tuple) else value


class TrainHeadCommand(TrainHeadOptions):
    """Options of one head, and of the jobs that train several."""

    store: Annotated[
        tuple[str, ...],
        Field(
            description="The store, a path or fsspec URL; where several are given, one head is "
            "trained on each, and the heads are fused."
        ),
        Flag(names=("--store",), argument=True, default="features.zarr"),
    ] = ()  # type: ignore[assignment]
    subset: Annotated[
        tuple[tuple[str, ...], ...],
        BeforeValidator(_subsets),
        Field(
            description="Groups of columns to use, e.g. `va,au`; once per store where there are "
            "several."
        ),
        Flag(typed=list[str], default="all of the store"),
    ] = ()  # type: ignore[assignment]
    sweep: Annotated[
        Path | None,
        Field(description="YAML grid, e.g. `lr: [0.001, 0.003]`: train every point of it."),
        _SWEEP,
    ] = None
    jobs: Annotated[int, Field(ge=1, description="Runs side by side."), _SWEEP] = 1
    gpus: Annotated[
        tuple[int, ...],
        BeforeValidator(numbers),
        Field(description="Deal the runs out to these GPUs, e.g. `0,1`."),
        Flag(typed=str),
        _SWEEP,
    ] = ()
    fuse: Annotated[
        tuple[Path, ...],
        Field(description="Fuse this finished run with others; can be repeated."),
        _FUSION,
    ] = ()
    fusion_weights: Annotated[
        Literal["common", "target"],
        Field(description="`common` to all targets, or each `target`'s own."),
        _FUSION,
    ] = "common"

    def one(self, **changes: Any) -> dict[str, Any]:
        """Give what was typed of the options of one head."""
        given = {n: getattr(self, n) for n in self.model_fields_set - _OWN}
        return {**given, **changes}


def run(options: TrainHeadCommand, progress: ProgressCallback = silent) -> Result:
    """Train what was asked for.

    Raises
    ------
    UsageError
        Options that belong to another of these jobs.
    """
    swept = sorted(options.model_fields_set & {"sweep", "jobs", "gpus"})
    resumed = options.resume is not None and _is_fusion(options.resume, options.runs)
    if len(options.store) > 1 or options.fuse or resumed:
        if swept:
            raise UsageError(f"--{swept[0]}: a sweep trains heads of one store")
        from feie.heads.runs.checkpoint import find_run
        from feie.pipeline.train import fusion

        return fusion.run(
            fusion.TrainFusionOptions(
                base=TrainHeadOptions(**_without(options.one(), "resume")),
                stores=options.store,
                subsets=options.subset,
                fuse=tuple(find_run(run, options.runs) for run in options.fuse),
                weighting=options.fusion_weights,
                resume=options.resume,
            ),
            progress,
        )
    if options.fusion_weights != "common":
        raise UsageError("--fusion-weights: one store has one head, nothing to weigh")
    if len(options.subset) > 1:
        raise UsageError("--subset: one store has one subset, join the groups by commas")
    base = TrainHeadOptions(**options.one(**_single(options)))
    if options.sweep is not None:
        from feie.pipeline.grid import sweep
        from feie.pipeline.grid.options import SweepOptions

        grid = SweepOptions(grid=options.sweep, base=base, jobs=options.jobs, gpus=options.gpus)
        return sweep.run(grid, progress)
    if swept:
        raise UsageError(f"--{swept[0]} belongs to --sweep; one run has --device")
    from feie.pipeline.train import job

    return job.run(base, progress)


def _is_fusion(run: Path, runs: Path) -> bool:
    from feie.heads.runs.checkpoint import find_run
    from feie.pipeline.train.fusion import PLAN

    return (find_run(run, runs) / PLAN).exists()


def _single(options: TrainHeadCommand) -> dict[str, Any]:
    """Give the only store and subset, where they were typed."""
    found: dict[str, Any] = {"store": options.store[:1], "subset": options.subset[:1]}
    return {name: value[0] for name, value in found.items() if value}


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
