"""The command line: parses, reports progress, prints results and maps errors to exit codes.

Exit codes: 0 done; 2 usage or environment; 3 some videos failed (named, the store is good);
130 interrupted; 1 anything else. Heavy libraries load inside commands, so that ``--help`` is
instant.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from feie import __version__

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

    from feie.pipeline.progress import Progress

app = typer.Typer(
    name="feie",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Facial expression intensity estimation from video, offline, in two stages.\n\n"
    "Stage one, once: `feie extract --videos DIR` turns every frame's face into 26 numbers. "
    "Stage two, in minutes: `feie train-head --subset va,au`, then `feie evaluate`. "
    "`feie demo` runs all of it on bundled clips.",
)
for _stream in (sys.stdout, sys.stderr):
    if hasattr(_stream, "reconfigure"):  # a terminal without UTF-8 gets ? for →, not a traceback
        _stream.reconfigure(errors="replace")
out = Console()
err = Console(stderr=True)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
]
Store = Annotated[
    str, typer.Option("--store", help="The Zarr store of affect vectors, a path or fsspec URL.")
]
HeadCode = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        help="Code of the run's head, `FILE.py:NAME`, where no package offers it; it is run.",
    ),
]


class Reporter:
    """Shows a job's progress: bars with ETA on a terminal, a line now and then in a log."""

    _LINE_EVERY = 30.0  # seconds, where standard error is no terminal

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[figures]}"),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Reporter:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, report: Progress) -> None:
        """Take one report of a job."""
        figures = "  ".join(f"{name} {value}" for name, value in report.info.items())
        if report.message:
            self._bars.console.print(escape(report.message), highlight=False, soft_wrap=True)
        if report.stage not in self._tasks:
            self._tasks[report.stage] = self._bars.add_task(report.stage, figures="")
        self._bars.update(
            self._tasks[report.stage], completed=report.done, total=report.total, figures=figures
        )
        now = time.monotonic()
        if not err.is_terminal and now - self._last_line >= self._LINE_EVERY:
            self._last_line = now
            total = "?" if report.total is None else f"{report.total:g}"
            print(f"{report.stage} {report.done:g}/{total}  {figures}", file=sys.stderr)


def _perform(
    job: str,
    values: Mapping[str, Any],
    as_json: bool,
    show: Callable[[Any], None],
    again: str = "",
) -> Any:
    """Run one job of the pipeline and print its result; errors become exit codes.

    Parameters
    ----------
    job : str
        Module of `feie.pipeline`; its ``run`` takes the one options model that it defines.
    values : dict
        Fields of the options; None means the default.
    again : str
        What to say after Ctrl-C.
    """
    from importlib import import_module

    from pydantic import ValidationError

    from feie.features.errors import FeieError
    from feie.pipeline.jobs import JOBS

    try:
        module = import_module(JOBS[job])
        model = getattr(module, "".join(part.title() for part in job.split("_")) + "Options")
        options = model(**{name: value for name, value in values.items() if value is not None})
        with Reporter() as reporter:
            result: BaseModel = module.run(options, reporter)
    except ValidationError as error:
        for problem in error.errors():
            place = [str(p) for p in problem["loc"] if p != "base"]
            if not place:  # about several options at once; it names them itself
                _complain(problem["msg"].removeprefix("Value error, "))
                continue
            name = "--" + ".".join(place).replace("_", "-")
            if problem["type"] == "extra_forbidden":
                _complain(f"{name} would do nothing here: leave it out")
                continue
            _complain(f"{name}: {problem['msg']} (got {problem['input']!r})")
        raise typer.Exit(2) from None
    except FeieError as error:
        _complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(2) from None
    except MemoryError:
        _complain("this needs more memory than the machine has; take smaller sizes or batches")
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        _complain(f"interrupted; {again or 'nothing was lost that had been finished'}")
        raise typer.Exit(130) from None
    if as_json:
        print(result.model_dump_json(indent=2))
    else:
        show(result)
    return result


def _say(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True)


def _complain(message: str) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def _table(title: str, columns: Mapping[str, str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name, justify in columns.items():
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def _version(value: bool) -> None:
    if value:
        print(f"feie {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Facial expression intensity estimation from video."""


@app.command(rich_help_panel="Stage one")
def extract(
    videos: Annotated[
        Path, typer.Option("--videos", help="Folder of videos or of folders of aligned frames.")
    ],
    store: Annotated[
        str,
        typer.Option("--store", help="Folder of the Zarr store, or s3://…; made or continued."),
    ] = "features.zarr",
    extractor: Annotated[
        str,
        typer.Option(
            help="Bundled name, a .safetensors made by `feie train-mma`, `mt-emotieffnet`, "
            "`mt-mobilevit` or `mt-mobilefacenet`, a .json that describes an ONNX file, or "
            "`FILE.py:NAME`, whose code is run (docs/extending.md)."
        ),
    ] = "mma-lite",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Of an ONNX network or of code.", show_default="where `feie models` puts them"
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            help="`scrfd` (weights where insightface keeps them), `scrfd:NAME`, "
            "`scrfd:FILE.onnx`, `yunet` or `yunet:FILE.onnx`.",
            show_default="scrfd",
        ),
    ] = None,
    faces: Annotated[
        str,
        typer.Option(
            help="`aligned`: frames are 112x112 face crops; `detect`: find faces; "
            "`auto`: aligned where frames are 112x112."
        ),
    ] = "auto",
    fps: Annotated[
        float | None, typer.Option(help="Resample to this rate by time.", show_default="as filmed")
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow",
            help="Look for the face around its last place before the whole frame is searched.",
        ),
    ] = True,
    stride: Annotated[
        int, typer.Option(help="Search every so many frames, interpolate landmarks in between.")
    ] = 1,
    all_faces: Annotated[
        bool,
        typer.Option("--all-faces", help="Keep every face: ids `VIDEO#1`, `VIDEO#2`, one a track."),
    ] = False,
    detect_batch: Annotated[
        int, typer.Option(help="Frames searched in one call (GPUs), with --no-follow.")
    ] = 1,
    embedding: Annotated[
        bool, typer.Option("--embedding", help="Keep the extractor's embedding of each face too.")
    ] = False,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="`fp32` is exact; `bf16` and, on GPUs, `fp16` move numbers by up to 0.02."
        ),
    ] = "fp32",
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the extractor first, for minutes; meant for GPUs."),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Faces a call of the extractor.")] = 64,
    threads: Annotated[
        int | None,
        typer.Option(help="Videos decoded at the same time.", show_default="one a core"),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try videos again that failed before.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done; write nothing.")
    ] = False,
    commit_videos: Annotated[int, typer.Option(help="Commit after that many videos…")] = 256,
    commit_seconds: Annotated[float, typer.Option(help="…or that many seconds.")] = 30.0,
    timeout: Annotated[
        float, typer.Option(help="Give a video up whose reading stands still for these seconds.")
    ] = 300.0,
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate/--no-isolate",
            help="Work in a child process, so that a video that crashes it costs one video.",
        ),
    ] = True,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes on this machine.", show_default="this process"),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="One worker process a GPU, e.g. `0,1,2,3`.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Use a running dask cluster: `tls://node7:8786` or a scheduler file; with plain "
            "`tcp://`, whoever reaches its ports can run code as you."
        ),
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="With --workers or --gpus: dask's dashboard on 127.0.0.1, without a password.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(help="Do part i of n, e.g. `2/8`, into a store to `feie merge` later."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the face of every frame and write 26 affect numbers a frame to a store.

    Run it again to go on after a crash or to add videos: what is done is skipped. A broken video
    is named and kept as a failure (exit code 3); all others are extracted.

    Example: `feie extract --videos reactions/ --detector scrfd:det_10g.onnx`
    """
    result = _perform(
        "extract",
        _given(locals()),
        as_json,
        _show_extract,
        "the same command goes on where it stopped",
    )
    if result.failed:
        raise typer.Exit(3)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "as_json"}


def _show_extract(result: Any) -> None:
    for video_id in result.planned:
        _say(escape(video_id))
    verb = (
        f"{len(result.planned)} to extract" if result.planned else f"{result.extracted} extracted"
    )
    _say(f"{result.videos} videos: {verb}, {result.skipped} done before, {result.failed} failed")
    if result.replaced:
        _say(f"{result.replaced} replaced what the store held of the same id from other bytes")
    if result.frames:
        _say(
            f"{result.frames} frames, {result.face_share:.1%} with a face, "
            f"{result.frames_per_second:g} frames/s → {escape(result.store)}"
        )
    _show_failures(result.failures)
    if result.ignored:
        few = ", ".join(result.ignored[:5]) + (" …" if len(result.ignored) > 5 else "")
        _say(f"passed over, no videos ({len(result.ignored)}): {escape(few)}")


def _show_failures(failures: Mapping[str, str]) -> None:
    for video_id, message in failures.items():
        _say(f"[red]failed[/] {escape(video_id)}: {escape(message)}")


@app.command(rich_help_panel="Stage one")
def merge(
    stores: Annotated[list[str], typer.Argument(help="Stores to join, paths or fsspec URLs.")],
    out_store: Annotated[
        Path, typer.Option("--out", help="The new store; nothing may be there yet.")
    ],
    duplicates: Annotated[
        str,
        typer.Option(
            help="A video that two stores hold from different bytes: `refuse`, or take that of "
            "the `last` store named."
        ),
    ] = "refuse",
    as_json: Json = False,
) -> None:
    """Join stores that were made apart, such as those of `feie extract --shard`.

    Stores whose numbers were made in different ways are refused. Videos come out sorted by id,
    each once. Of a single store the result is a copy without what was replaced. The new store
    appears under its name when it is complete.

    Example: `feie merge part-1.zarr part-2.zarr --out features.zarr`
    """
    values = {"stores": tuple(stores), "out": out_store, "duplicates": duplicates}
    again = "nothing was written; start again"
    _perform("merge", values, as_json, _show_merge, again)


def _show_merge(result: Any) -> None:
    few = f", {result.failed} of them failed" if result.failed else ""
    _say(
        f"{result.stores} stores: {result.videos} videos{few}, {result.frames} frames → "
        f"{escape(result.store)}"
    )
    if result.left_out:
        _say(f"{result.left_out} rows left out: replaced, or held twice")


@app.command("import", rich_help_panel="Stage one")
def import_features(
    source: Annotated[Path, typer.Argument(help="A file of features, or a folder of them.")],
    store: Annotated[
        str, typer.Option("--store", help="Folder of the Zarr store; made or continued.")
    ] = "features.zarr",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="`openface`, `pyfeat`, `libreface`, `muse`, `table` (any CSV or Parquet), "
            "`arrays` (.npy, HDF5), or one of `feie dump`.",
            show_default="told by a look at the first file",
        ),
    ] = "auto",
    groups: Annotated[
        str | None,
        typer.Option(
            help="Groups of columns to import, e.g. `au_r,landmarks`.",
            show_default="all but landmarks, meshes and the like",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="What to call the group of features that have none, e.g. `audio`.",
            show_default="of muse the folder's name, else features",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second, where files count frames and do not time them."),
    ] = None,
    all_faces: Annotated[
        bool,
        typer.Option("--all-faces", help="Keep every face: ids `VIDEO#1`, `VIDEO#2`, one each."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done; write nothing.")
    ] = False,
    commit_videos: Annotated[int, typer.Option(help="Commit after that many videos…")] = 256,
    commit_seconds: Annotated[float, typer.Option(help="…or that many seconds.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Make a store of features that other tools computed, such as OpenFace, py-feat or wav2vec.

    Columns keep their names and are put in groups, which `feie train-head --subset` takes. Frames
    without a face stay as gaps. Run it again to go on or to add files: what is done is skipped. A
    broken file costs its own videos, which are named (exit code 3).

    Example: `feie import openface/ --store openface.zarr`
    """
    values = _given(locals())
    values["format"] = values.pop("form")
    values["groups"] = _parts(groups or "")
    again = "the same command goes on where it stopped"
    result = _perform("import_features", values, as_json, _show_import, again)
    if result.failed:
        raise typer.Exit(3)


def _show_import(result: Any) -> None:
    for video_id in result.planned:
        _say(escape(video_id))
    verb = f"{len(result.planned)} to import" if result.planned else f"{result.imported} imported"
    _say(
        f"{result.files} files of format {result.format}, {result.videos} videos: {verb}, "
        f"{result.skipped} done before, {result.failed} failed"
    )
    if result.replaced:
        _say(f"{result.replaced} replaced what the store held of the same id from other bytes")
    if result.frames:
        groups = ", ".join(f"{name} ({b - a})" for name, (a, b) in result.groups.items())
        _say(
            f"{result.frames} frames, {result.face_share:.1%} of them valid, "
            f"{result.frames_per_second:g} frames/s → {escape(result.store)}"
        )
        _say(f"groups of columns: {escape(groups)}")
    for note, count in result.notes.items():
        _say(f"{escape(note)}: {count} videos")
    _show_failures(result.failures)
    if result.ignored:
        few = ", ".join(result.ignored[:5]) + (" …" if len(result.ignored) > 5 else "")
        _say(f"passed over ({len(result.ignored)}): {escape(few)}")


@app.command("train-head", rich_help_panel="Stage two")
def train_head(
    store: Annotated[
        list[str] | None,
        typer.Option(
            help="The store, a path or fsspec URL; given again and again, one head is trained on "
            "each, and the heads are fused.",
            show_default="features.zarr",
        ),
    ] = None,
    labels: Annotated[
        Path, typer.Option(help="CSV or Parquet: an id column, `split`, numeric targets.")
    ] = Path("labels.csv"),
    subset: Annotated[
        list[str] | None,
        typer.Option(
            help="Groups of columns to use, e.g. `va,au`; once a store where there are several.",
            show_default="all of the store",
        ),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Label columns, comma-separated.", show_default="all")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    name: Annotated[
        str | None, typer.Option(help="Name of this run.", show_default="time, subset, seed")
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes weights and batches.")] = 0,
    preset: Annotated[
        str,
        typer.Option(
            help="`default`, `paper` (batch 4, learning rate 1e-4) or `stat` (batch 512)."
        ),
    ] = "default",
    head: Annotated[
        str,
        typer.Option(
            help="`mrnn`; mean, sd, min and max of each column: `stat-linear`, `stat-mlp`; or "
            "`frame-va`, frame by frame; or `FILE.py:NAME`, whose code is run (docs/extending.md)."
        ),
    ] = "mrnn",
    loss: Annotated[
        str, typer.Option(help="`pearson` (1 - mean rho, Eq. 4), `ccc` or `mse`.")
    ] = "pearson",
    weights: Annotated[
        str | None,
        typer.Option(help="Of the targets in the loss, e.g. `1,0.5,2`.", show_default="equal"),
    ] = None,
    l2: Annotated[float, typer.Option(help="Penalty on a STAT head's weights.")] = 1 / 512,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: `constant`, `cosine` or `plateau`.")
    ] = "constant",
    batch: Annotated[int | None, typer.Option(help="Videos a batch.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many without a better validation Pearson.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    cell: Annotated[str, typer.Option(help="`gru` or `lstm`.")] = "gru",
    layers: Annotated[int, typer.Option(help="Recurrent layers, 1 or 2.")] = 1,
    width: Annotated[
        int, typer.Option("--width", "--units", help="Units of a recurrent layer, up to 4096.")
    ] = 128,
    dense: Annotated[
        int, typer.Option("--dense", "--fc", help="Units of the dense layer, up to 4096.")
    ] = 32,
    mask: Annotated[
        bool,
        typer.Option(
            "--mask/--no-mask",
            help="Without: zero frames up to t, all t outputs feed the dense layer, plain Adam.",
        ),
    ] = True,
    routing: Annotated[
        bool,
        typer.Option(
            "--routing/--no-routing",
            help="Without: Adam also moves blocks that no video of the batch reached.",
        ),
    ] = True,
    t: Annotated[
        int, typer.Option("--t", help="Most frames of a video; longer ones become so short.")
    ] = 480,
    frame_stride: Annotated[
        int, typer.Option(help="Read every so-many-th frame; time falls in proportion.")
    ] = 1,
    missing: Annotated[
        str, typer.Option(help="Frames without a face: `drop`, `hold` or `zero`.")
    ] = "drop",
    long: Annotated[
        str, typer.Option("--long", help="Videos longer than t: `uniform` resampling or `head`.")
    ] = "uniform",
    space: Annotated[
        str | None,
        typer.Option(
            help="`prob`: probabilities as stored; `logit`: their logits.",
            show_default="prob; logit with frame-va",
        ),
    ] = None,
    box: Annotated[
        int | None,
        typer.Option(
            help="Frames on each side that frame-va's filter averages.", show_default="25"
        ),
    ] = None,
    unmatched: Annotated[float, typer.Option(help="Share of labels that may lack a video.")] = 0.05,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "cpu",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too (an extra).")
    ] = False,
    sweep: Annotated[
        Path | None,
        typer.Option(help="YAML grid, e.g. `lr: [0.001, 0.003]`: train every point of it."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Runs of a sweep side by side.")] = 1,
    gpus: Annotated[
        str | None, typer.Option(help="Deal a sweep's runs out to these GPUs, e.g. `0,1`.")
    ] = None,
    fuse: Annotated[
        list[Path] | None,
        typer.Option(help="Fuse this finished run with others, each of its own options."),
    ] = None,
    fusion_weights: Annotated[
        str,
        typer.Option(help="Of a fusion: `common` to all targets, or each `target`'s own."),
    ] = "common",
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run; all other options are its own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a masked recurrent head (MRNN) on the stored affect vectors.

    The epoch is chosen on the validation split; the test split is not read. With --sweep every
    point of a grid is trained, and a table says which is best. With several stores (faces, voice)
    one head is trained on each; their weighted mean, weights chosen on validation, is one run.

    Example: `feie train-head --subset va,au --seed 1`
    """
    values = _given(locals())
    grid, count, cards = (values.pop(name) for name in ("sweep", "jobs", "gpus"))
    values["weights"] = _parts(weights or "")
    subsets = tuple(_parts(text) for text in subset or ())
    if () in subsets:
        raise typer.BadParameter("name at least one group, e.g. va,expr,au", param_hint="--subset")
    stores, runs_to_fuse = tuple(store or ()), tuple(fuse or ())
    how = values.pop("fusion_weights")
    del values["fuse"]
    values["targets"] = _parts(targets or "")
    if head == "frame-va":
        if grid is not None or cards is not None or count != 1 or runs_to_fuse:
            hint = "--fuse" if runs_to_fuse else "--sweep"
            raise typer.BadParameter("not with --head frame-va", param_hint=hint)
        _train_frame_va({**values, "stores": stores, "subsets": subsets}, as_json)
        return
    if values.pop("box") is not None:
        raise typer.BadParameter("it belongs to --head frame-va", param_hint="--box")
    if (
        len(stores) > 1
        or runs_to_fuse
        or (resume is not None and (resume / "fusion.json").exists())
    ):
        if grid is not None or cards is not None or count != 1:
            raise typer.BadParameter("a sweep trains heads of one store", param_hint="--sweep")
        values = {k: v for k, v in values.items() if k not in ("store", "subset", "resume")}
        fusion = {
            "base": {k: v for k, v in values.items() if v is not None},
            "stores": stores,
            "subsets": subsets,
            "fuse": runs_to_fuse,
            "weighting": how,
            "resume": resume,
        }
        again = "`feie train-head --resume RUN` goes on with it"
        _perform("train_fusion", fusion, as_json, _show_train_fusion, again)
        return
    if how != "common":
        raise typer.BadParameter(
            "one store has one head: nothing to weigh", param_hint="--fusion-weights"
        )
    if len(subsets) > 1:
        raise typer.BadParameter(
            "one store has one subset: join the groups by commas", param_hint="--subset"
        )
    values["store"], values["subset"] = next(iter(stores), None), next(iter(subsets), None)
    if grid is not None:
        base = {name: value for name, value in values.items() if value is not None}
        sweep_values = {"grid": grid, "base": base, "jobs": count, "gpus": _parts(cards or "")}
        again = "the same command goes on with what is not trained"
        _perform("sweep", sweep_values, as_json, _show_sweep, again)
        return
    if cards is not None or count != 1:
        hint = "--jobs" if cards is None else "--gpus"
        raise typer.BadParameter("it belongs to --sweep; one run has --device", param_hint=hint)
    again = "`feie train-head --resume RUN` goes on with it"
    _perform("train_head", values, as_json, _show_train_head, again)


def _train_frame_va(values: dict[str, Any], as_json: bool) -> None:
    """Pass on what a frame-level head knows, and whatever else was asked for, to be refused."""
    from feie.pipeline.train.frame_va import TrainFrameVaOptions
    from feie.pipeline.train.options import TrainHeadOptions

    known, others = TrainFrameVaOptions.model_fields, TrainHeadOptions.model_fields
    stores, subsets = values.pop("stores"), values.pop("subsets")
    given = {k: v for k, v in values.items() if k in known and k not in ("store", "subset")}
    given |= {
        k: v
        for k, v in values.items()
        if k not in known and k != "head" and v not in (None, others[k].default)
    }
    for name, found in (("store", stores), ("subset", subsets)):
        if len(found) > 1:
            raise typer.BadParameter("a frame-level head reads one store", param_hint=f"--{name}")
        given[name] = next(iter(found), None)
    _perform("train_frame_va", given, as_json, _show_train_frame_va)


def _show_train_frame_va(result: Any) -> None:
    for note in result.notes:
        _say(f"note: {escape(note)}")
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in result.ccc.items())
    _say(
        f"{result.n_train} training and {result.n_val} validation frames, {result.epochs} epochs "
        f"in {result.seconds:g} s; best was {result.best_epoch}: mean CCC "
        f"{_figure(result.mean_ccc)} on val ({figures}) → {escape(result.run)}"
    )


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _show_sweep(result: Any) -> None:
    names = list(result.rows[0].setting)
    title = f"{escape(result.out)}: {result.trained} runs trained, {result.kept} kept"
    figures = {"mean Pearson (val)": "right", "sd": "right", "seeds": "right"}
    table = _table(title, {**dict.fromkeys(names, "left"), **figures})
    for row in result.rows:
        values = (row.setting[name] for name in names)
        cells = [escape(",".join(v) if isinstance(v, list | tuple) else str(v)) for v in values]
        sd = "" if row.sd is None else f"{row.sd:.3f}"
        table.add_row(*cells, _figure(row.mean), sd, str(row.seeds))
    out.print(table)
    _show_failures(result.failed)
    for note in result.notes:
        _say(f"note: {escape(note)}")
    _say(f"table → {escape(result.csv)}, {result.seconds:g} s")


def _show_train_head(result: Any) -> None:
    rho = "undefined" if result.mean_pearson is None else f"{result.mean_pearson:.3f}"
    _say(
        f"{result.n_train} training and {result.n_val} validation videos, {result.epochs} epochs "
        f"in {result.seconds:g} s; best was {result.best_epoch}: mean Pearson {rho} on val "
        f"→ {escape(result.run)}"
    )


def _show_train_fusion(result: Any) -> None:
    from feie.heads.runs.fusion import weight_range

    columns = {"head": "left", "subset": "left", "weight": "right", "mean Pearson (val)": "right"}
    table = _table(f"{escape(result.run)}: {result.n_val} validation videos", columns)
    for head in result.heads:
        cells = [f"{Path(head.run).name}: {head.store}", ",".join(head.subset)]
        figures = weight_range(head.weights), _figure(head.mean_pearson)
        table.add_row(*map(escape, cells), *figures)
    table.add_section()
    table.add_row("fused", "", "", _figure(result.mean_pearson), style="bold")
    out.print(table)
    if result.weighting == "target":
        for head in result.heads:
            said = ", ".join(f"{name} {w:.2f}" for name, w in head.weights.items())
            _say(f"weights of {escape(Path(head.run).name)}: {escape(said)}")
    for note in result.notes:
        _say(f"note: {escape(note)}")
    _say(f"{len(result.heads)} heads in {result.seconds:g} s → {escape(result.run)}")


_FORM = (
    "Of the submission: `labels` (ids as in the label file), `eri` (`File_ID`, [00001]; MuSe "
    "too), `emi` (`Filename`, 00001) or `plain`."
)


@app.command(rich_help_panel="Stage two")
def evaluate(
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run.", show_default="the newest of --runs")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    store: Annotated[
        list[str] | None,
        typer.Option(
            help="Another store; of a fusion one a head, again and again.",
            show_default="the run's own",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Other labels.", show_default="the run's own")
    ] = None,
    split: Annotated[
        str, typer.Option(help="`val`, `train`, or `test`: each look at test is logged.")
    ] = "val",
    unmatched: Annotated[float, typer.Option(help="Share of labels that may lack a video.")] = 0.05,
    against: Annotated[
        Path | None, typer.Option(help="Another run: differences by a paired bootstrap.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Write the predictions as a challenge wants them.")
    ] = None,
    form: Annotated[str, typer.Option(help=_FORM)] = "labels",
    report: Annotated[
        Path | None, typer.Option(help="Write a page with tables and pictures (HTML, one file).")
    ] = None,
    head: HeadCode = None,
    as_json: Json = False,
) -> None:
    """Print Pearson per target with bootstrap 95 % intervals, and write the predictions.

    Where the labels name subjects, the bootstrap draws subjects rather than videos.

    Example: `feie evaluate --run runs/a --against runs/b --report report.html`
    """
    values = _given(locals())
    values["store"], values["head"] = tuple(store or ()), tuple(head or ())
    _perform("evaluate", values, as_json, _show_evaluate)


def _show_evaluate(result: Any) -> None:
    if hasattr(result, "stored_ccc"):
        _show_frame_scores(result)
        return
    title = f"{escape(result.run)} on split {result.split}, {result.n} videos"
    columns = {"target": "left", "Pearson": "right", "95 % interval": "left"}
    table = _table(title, {**columns, "CCC": "right", "MAE": "right", "length only": "right"})
    base = result.length_baseline
    for name, rho in result.pearson.items():
        table.add_row(
            escape(name),
            _figure(rho),
            _interval(result.intervals[name]),
            _figure(result.ccc[name]),
            _figure(result.mae[name]),
            _figure(base.pearson[name]),
        )
    table.add_section()
    table.add_row(
        "mean",
        _figure(result.mean_pearson),
        _interval(result.mean_interval),
        _figure(result.mean_ccc),
        _figure(result.mean_mae),
        _figure(base.mean_pearson),
        style="bold",
    )
    out.print(table)
    if result.heads:
        _show_heads(result.heads, result.mean_pearson)
    if result.against is not None:
        _show_against(result.against)
    for note in result.notes:
        _say(f"note: {escape(note)}")
    for what in ("predictions", "submission", "report"):
        if path := getattr(result, what):
            _say(f"{what} → {escape(path)}")


def _show_frame_scores(result: Any) -> None:
    title = (
        f"{escape(result.run)} on split {result.split}, {result.n} frames of {result.videos} videos"
    )
    columns = {"target": "left", "CCC": "right", "95 % interval": "left", "Pearson": "right"}
    table = _table(title, {**columns, "MAE": "right", "stored columns": "right"})
    for name, value in result.ccc.items():
        own = _figure(result.stored_ccc[name]) if result.stored_ccc else ""
        figures = _figure(result.pearson[name]), _figure(result.mae[name]), own
        table.add_row(name, _figure(value), _interval(result.intervals[name]), *figures)
    table.add_section()
    table.add_row("mean", _figure(result.mean_ccc), _interval(result.mean_interval), style="bold")
    out.print(table)
    if result.against is not None:
        _show_against(result.against)
    for note in result.notes:
        _say(f"note: {escape(note)}")
    for what in ("predictions", "report"):
        if path := getattr(result, what):
            _say(f"{what} → {escape(path)}")


def _show_heads(heads: Any, fused: float | None) -> None:
    from feie.heads.runs.fusion import weight_range

    columns = {"head": "left", "weight": "right", "mean Pearson": "right"}
    table = _table("each store alone, and fused", columns)
    for head in heads:
        name = f"{Path(head.run).name}: {head.store}"
        table.add_row(escape(name), weight_range(head.weights), _figure(head.mean_pearson))
    table.add_row("fused", "", _figure(fused), style="bold")
    out.print(table)


def _show_against(other: Any) -> None:
    columns = {"target": "left", "difference": "right", "95 % interval": "left", "p": "right"}
    table = _table(f"less {escape(other.run)} (paired bootstrap)", columns)
    for name, value in other.difference.items():
        figures = _figure(value), _interval(other.interval[name]), _figure(other.p_value[name])
        table.add_row(escape(name), *figures, style="bold" if name == "mean" else None)
    out.print(table)


@app.command(rich_help_panel="Stage two")
def predict(
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run.", show_default="the newest of --runs")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    store: Annotated[
        list[str] | None,
        typer.Option(
            help="The store to predict, or to keep with --videos; of a fusion one a head.",
            show_default="features.zarr",
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos: they are extracted first.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(help="For --videos.", show_default="that of the training")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="For --videos, as in `feie extract`.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="For --videos, as in `feie extract`.")
    ] = None,
    file: Annotated[Path, typer.Option("--out", help="The CSV to write.")] = Path(
        "predictions.csv"
    ),
    form: Annotated[
        str, typer.Option(help=_FORM.replace("`labels` (ids as in the label file), ", ""))
    ] = "plain",
    clip: Annotated[
        bool,
        typer.Option("--clip", help="Keep what is written within [0, 1], the challenges' range."),
    ] = False,
    head: HeadCode = None,
    as_json: Json = False,
) -> None:
    """Predict videos without labels, from a store or straight from the videos.

    Example: `feie predict --run runs/a --videos new-clips --out predictions.csv`
    """
    values = _given(locals())
    values["out"], values["store"] = values.pop("file"), tuple(store or ())
    values["head"] = tuple(head or ())
    if form == "labels":
        raise typer.BadParameter("there are no labels here: eri, emi or plain", param_hint="--form")
    _perform("predict", values, as_json, _show_predict)


def _show_predict(result: Any) -> None:
    _show_failures(result.failed)
    for note in result.notes:
        _say(f"note: {escape(note)}")
    _say(
        f"{result.videos} videos, {len(result.targets)} targets by {escape(result.run)} "
        f"→ {escape(result.predictions)}"
    )


def _figure(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"


@app.command(rich_help_panel="Stage two")
def ablate(
    table: Annotated[
        str, typer.Option(help="`subsets` ([K] Table 3) or `architecture` ([K] Table 4).")
    ] = "subsets",
    seeds: Annotated[int, typer.Option(help="Runs a row; may be raised later.")] = 5,
    store: Store = "features.zarr",
    labels: Annotated[
        Path, typer.Option(help="CSV or Parquet: an id column, `split`, numeric targets.")
    ] = Path("labels.csv"),
    subset: Annotated[
        str, typer.Option(help="Groups of columns of table architecture.")
    ] = "va,expr,au",
    targets: Annotated[
        str | None, typer.Option(help="Label columns, comma-separated.", show_default="all")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of runs and table.", show_default="ablation-TABLE"),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="`default`, or `paper` (batch 4, learning rate 1e-4).")
    ] = "default",
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
    batch: Annotated[int | None, typer.Option(help="Videos a batch.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many without a better validation Pearson.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm, a run each.")] = None,
    t: Annotated[int, typer.Option("--t", help="Most frames of a video.")] = 480,
    frame_stride: Annotated[int, typer.Option(help="Read every so-many-th frame.")] = 1,
    missing: Annotated[
        str, typer.Option(help="Frames without a face: `drop`, `hold` or `zero`.")
    ] = "drop",
    long: Annotated[
        str, typer.Option("--long", help="Videos longer than t: `uniform` resampling or `head`.")
    ] = "uniform",
    space: Annotated[
        str, typer.Option(help="`prob`: probabilities as stored; `logit`: their logits.")
    ] = "prob",
    unmatched: Annotated[float, typer.Option(help="Share of labels that may lack a video.")] = 0.05,
    stack: Annotated[
        str, typer.Option(help="Train runs in one stack: `auto` (where it pays), `on` or `off`.")
    ] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes side by side, one thread each.", show_default="one a core"),
    ] = None,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto",
    published: Annotated[
        Path | None, typer.Option(help="CSV `row,published` that completes the published column.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train every row of an ablation table over several seeds; print mean and sd beside [K]'s.

    The same command goes on after a crash: finished runs are kept, the others resume. Every run
    is one of `feie train-head`; `feie evaluate --run ablation-subsets/runs/va-au-s0` scores it.

    Example: `feie ablate --table subsets --seeds 5`
    """
    values = _given(locals())
    values["out"] = values.pop("folder")
    values["subset"], values["targets"] = _parts(subset), _parts(targets or "")
    again = "the same command goes on where it stopped"
    result = _perform("ablate", values, as_json, _show_ablate, again)
    if result.failed:
        raise typer.Exit(1)


def _show_ablate(result: Any) -> None:
    columns = {"row": "left", "Pearson": "right", "sd": "right", "seeds": "right"}
    table = _table(escape(result.out), {**columns, "as published": "right"})
    for row in result.rows:
        spread = "" if row.sd is None else f"± {row.sd:.3f}"
        theirs = "" if row.published is None else f"{row.published:.3f}"
        table.add_row(escape(row.name), _figure(row.mean), spread, str(len(row.seeds)), theirs)
    out.print(table)
    for note in result.notes:
        _say(escape(note))
    if result.rank_correlation is not None:
        _say(f"rank correlation with the published rows: {result.rank_correlation:.2f}")
    for name, reason in result.failed.items():
        _say(f"[red]failed[/] {escape(name)}: {escape(reason)}")
    _say(
        f"{result.trained} runs trained, {result.kept} were there → {escape(result.csv)}, "
        f"{escape(result.runs_csv)}, {escape(result.picture)}"
    )


@app.command(rich_help_panel="Stage two")
def compound(
    store: Store = "features.zarr",
    file: Annotated[Path, typer.Option("--out", help="The CSV to write.")] = Path("compound.csv"),
    frames: Annotated[
        bool, typer.Option("--frames", help="A row a frame instead of a row a video.")
    ] = False,
    against: Annotated[
        Path | None, typer.Option(help="CSV `class,frequency` to give the KL divergence from.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score the seven compound expressions by the rule of [S]; nothing is trained.

    A compound's score is the sum of the probabilities of its two expressions.

    Example: `feie compound --store features.zarr --out compound.csv`
    """
    values = {"store": store, "out": file, "frames": frames, "against": against}
    _perform("compound", values, as_json, _show_compound)


def _show_compound(result: Any) -> None:
    columns = {"compound expression": "left", "share of the frames": "right"}
    table = _table(f"{escape(result.store)}: {result.frames} frames with a face", columns)
    for name, share in result.frequencies.items():
        table.add_row(escape(name), f"{share:.3f}")
    out.print(table)
    if result.divergence is not None:
        _say(f"KL divergence from the given frequencies: {result.divergence:.3f}")
    _say(f"{result.rows} rows → {escape(result.out)}")


@app.command("train-mma", rich_help_panel="The extractor")
def train_mma(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML: data, network, schedule; or `mma-base`, `va-expr8`, which come with feie."
        ),
    ],
    data_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of the data named in the configuration; may be repeated."),
    ] = None,
    run_dir: Annotated[
        Path, typer.Option("--out", help="Folder of checkpoint, log, curves and weights.")
    ] = Path("mma-run"),
    detector: Annotated[
        str | None, typer.Option(help="Aligns face crops, e.g. `scrfd:FILE.onnx`.")
    ] = None,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads of the network on a CPU.")] = 2,
    workers: Annotated[
        int, typer.Option(help="Threads that read and augment images; 0: processors to spare.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Train the multi-task affect network (MMA) on AffectNet, Aff-Wild2, EmotioNet, tables, packs.

    The configuration says which data are where (docs/train-mma.md). A label that a data set lacks
    is unknown, not absent. A run that was killed goes on from its last checkpoint with the same
    command.

    Example: `feie train-mma mma-base --data-root /data --out mma-run`
    """
    values = {
        "config": config,
        "data_root": tuple(data_root) if data_root else None,
        "out": run_dir,
        "detector": detector,
        "device": device,
        "threads": threads,
        "workers": workers,
    }
    again = "the same command goes on from the last checkpoint"
    _perform("train_mma", values, as_json, _show_train_mma, again)


def _show_train_mma(result: Any) -> None:
    for source, names in result.unreadable.items():
        if names:
            err.print(f"{escape(source)}: {len(names)} unreadable: {escape(', '.join(names[:10]))}")
    for pack, scores in result.validation.items():
        figures = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        _say(f"{escape(pack)}: {figures}")
    _say(f"{result.steps} steps → {escape(str(result.weights))}")


@app.command("evaluate-mma", rich_help_panel="The extractor")
def evaluate_mma(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="HDF5 pack: `jpeg` or `images`, `expression` (names, or codes with attribute "
            "`classes`), and any of `valence`, `arousal`, `au` (attribute `columns`); or, with "
            "--reader, the folder of a data set or a table.",
        ),
    ],
    reader: Annotated[
        str, typer.Option(help="`pack`, `affectnet`, `aff-wild2`, `emotionet` or `table`.")
    ] = "pack",
    split: Annotated[str | None, typer.Option(help="`train`, `val` or `test`.")] = None,
    partition: Annotated[
        list[Path] | None,
        typer.Option(help="CSV, or folder with a CSV a split, of another protocol; repeatable."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, if not the usual one.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="File or folder of the annotations, if not the usual one.")
    ] = None,
    outside: Annotated[
        str | None,
        typer.Option(
            help="Contempt, other, none, uncertain: `keep` (without expression) or `drop`.",
            show_default="keep",
        ),
    ] = None,
    every: Annotated[
        int | None, typer.Option(help="Score every so-manieth image.", show_default="1")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Share of images that may be missing or unreadable.", show_default="0.01"
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Bundled name, a .safetensors made by `feie train-mma`, or what else "
            "`feie extract --extractor` takes."
        ),
    ] = "mma-lite",
    detector: Annotated[
        str | None,
        typer.Option(help="Aligns images that are not 112x112; without it one fixed crop does."),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Score only the share that training held out.")
    ] = None,
    held_out_by: Annotated[
        str, typer.Option(help="What was held out: images by `name`, or whole persons: `person`.")
    ] = "name",
    without: Annotated[
        Path | None,
        typer.Option(help="A pack whose images are left out where they are the very same pixels."),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Bootstrap resamples.")] = 1000,
    device: Annotated[str, typer.Option(help="`cpu`, `cuda`, `cuda:1` or `auto`.")] = "auto",
    as_json: Json = False,
) -> None:
    """Score an extractor on every image of a pack or data set: accuracy, F1, CCC, calibration.

    Example: `feie evaluate-mma --data fer2013_val.h5 --json`, or
    `feie evaluate-mma --reader affectnet --data AffectNet --split val`
    """
    _perform("evaluate_mma", _given(locals()), as_json, _show_evaluate_mma)


def _show_evaluate_mma(result: Any) -> None:
    title = f"{escape(result.data)}: {result.n} images, {escape(result.extractor)}"
    table = _table(title, {"figure": "left", "value": "right", "95 % interval": "left"})
    for name, value in result.headline().items():
        interval = result.intervals.get(name)
        text = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        table.add_row(name, f"{value:.3f}", text)
    if result.expression_codes == "aff-wild2":
        err.print("expression codes were taken in Aff-Wild2's order (0 neutral … 6 surprise)")
    for label, count in result.outside.items():
        table.add_row(f"outside its expressions: {escape(label)}", str(count), "")
    for reason, count in result.dropped.items():
        table.add_row(f"left out: {escape(reason)}", str(count), "")
    if result.unreadable:
        some = ", ".join(result.unreadable[:10])
        err.print(f"{len(result.unreadable)} images cannot be read: {escape(some)}")
    for group in (result.recall, result.au_f1):
        for name, value in group.items():
            kind = "recall" if group is result.recall else "F1"
            table.add_row(f"{kind} {name}", f"{value:.3f}", "")
    out.print(table)


@app.command("render-faces", rich_help_panel="The extractor")
def render_faces(
    model: Annotated[Path, typer.Option(help="The ICT face model as HDF5.")],
    pack: Annotated[Path, typer.Option("--out", help="The pack to write (HDF5).")],
    count: Annotated[int, typer.Option(help="Images.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Fixes every pixel.")] = 0,
    people: Annotated[
        str, typer.Option(help="`train`, `held-out` (a fifth of the identities) or `all`.")
    ] = "train",
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    as_json: Json = False,
) -> None:
    """Render a training pack of synthetic faces with exactly known action units.

    Example: `feie render-faces --model ict_facekit_light.h5 --out synthetic/train.h5`
    """
    values = {"model": model, "out": pack, "count": count, "seed": seed}
    values |= {"people": people, "workers": workers}
    _perform("render_faces", values, as_json, _show_render_faces)


def _show_render_faces(result: Any) -> None:
    for name, value in result.model_dump(mode="json").items():
        _say(f"{name}: {escape(str(value))}")


@app.command("label-units", rich_help_panel="The extractor")
def label_units(
    data: Annotated[Path, typer.Option(help="HDF5 pack of faces.")],
    teacher: Annotated[Path, typer.Option(help="MediaPipe's face_landmarker.task.")],
    file: Annotated[Path, typer.Option("--out", help="The pseudo-labels to write (HDF5).")],
    as_json: Json = False,
) -> None:
    """Guess the action units of a pack's faces with a teacher, for training only.

    Needs `pip install 'feie[teacher]'`.

    Example: `feie label-units --data faces.h5 --teacher face_landmarker.task --out units.h5`
    """
    values = {"data": data, "teacher": teacher, "out": file}
    _perform("label_units", values, as_json, _show_render_faces)


@app.command(rich_help_panel="The store")
def info(
    store: Annotated[str, typer.Argument(help="A store.")] = "features.zarr",
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="Print only the command that makes such a store again."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what a store holds, what failed, and which weights and options made it.

    Example: `feie info features.zarr --reproduce`
    """
    show = _show_reproduce if reproduce else _show_info
    _perform("info", {"store": store}, as_json, show)


def _show_reproduce(result: Any) -> None:
    for command in result.reproduce:
        print(command)
    if not result.reproduce:
        _complain(f"{result.store} was made by a feie that did not keep its command")
        raise typer.Exit(2)


def _show_info(result: Any) -> None:
    made = result.provenance
    table = _table(escape(result.store), {"": "left", " ": "left"})
    sessions = made["sessions"]
    rates = dict.fromkeys(f"{rate:.4g}" for rate in result.fps or ())
    replaced = f", {result.superseded} rows replaced" if result.superseded else ""
    rows = {
        "videos": f"{result.videos} ({result.failed} failed){replaced}",
        "frames": f"{result.frames}, {result.face_share:.1%} with a face, {result.hours:.2f} h",
        "frames a second": " to ".join(rates) or "unknown",
        "sizes": ", ".join(f"{w}x{h} ({n})" for w, h, n in result.sizes) or "unknown",
        "frames a video": ", ".join(f"{k} {v:g}" for k, v in result.length.items()),
        "lengths": _bars({f"{a:>7}-{b:<7}": n for a, b, n in result.histogram}),
        "faces": _bars({f"{k:>15}": n for k, n in result.face_shares.items() if n}),
        "groups": ", ".join(f"{k} {a}:{b}" for k, (a, b) in result.groups.items()),
        "extractor": _weights(made["extractor"]),
        "detector": _weights(made["detector"]) if made["detector"] else "none was needed",
        "options": json.dumps(made["options"]),
        "sessions": f"{len(sessions)}, {sessions[0]['started']} to {sessions[-1]['ended']}"
        if sessions
        else "0",
        "specification": result.spec_version,
        "fingerprint": result.fingerprint,
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    out.print(table)
    if result.failed > len(result.reasons):
        _say("failures: " + escape(", ".join(f"{n} {name}" for name, n in result.reasons.items())))
    _show_failures(result.failures)


def _weights(made: Mapping[str, Any]) -> str:
    if made["sha256"] is None:
        return f"imported: files of format {made['name']}, which name no weights"
    return f"{made['name']}  sha256 {made['sha256'][:16]}…"


def _bars(counts: Mapping[str, int]) -> str:
    most = max(counts.values(), default=1)
    return "\n".join(f"{name} {'█' * -(-24 * n // most)} {n}" for name, n in counts.items())


@app.command(rich_help_panel="The store")
def inspect(
    store: Annotated[str, typer.Argument(help="A store.")],
    videos: Annotated[
        list[str] | None, typer.Argument(help="Ids, or patterns of ids such as `'session1/*'`.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="One video: a .png, .pdf or .svg. Several: a folder.",
            show_default="named after the video; pictures/",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            help="Folder of the videos, to show faces.",
            show_default="where they were extracted from",
        ),
    ] = None,
    start: Annotated[float | None, typer.Option("--from", help="First second to show.")] = None,
    stop: Annotated[float | None, typer.Option("--to", help="Last second to show.")] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write one page about all videos (or those named) instead."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw videos over time: faces, valence and arousal, expressions, action units, gaps.

    With `--html`, write one self-contained page: totals, lengths, failures, and a table of all
    videos with sparklines that sorts and filters.

    Example: `feie inspect features.zarr session1/00001 --out 00001.pdf --from 10 --to 20`

    Example: `feie inspect features.zarr --html overview.html`
    """
    values: dict[str, Any] = {"store": store, "videos": tuple(videos or ()), "out": picture}
    values |= {"source": source, "start": start, "stop": stop, "html": html}
    _perform("inspect", values, as_json, _show_inspect)


def _show_inspect(result: Any) -> None:
    if result.html is not None:
        _say(f"{result.videos} videos → {escape(str(result.html))}")
    for picture in result.pictures[:20]:
        faces = f"{picture.faces} faces" if picture.faces else f"no faces: {picture.note}"
        _say(f"{escape(str(picture.file))}  {picture.frames} frames, {escape(faces)}")
    if len(result.pictures) > 20:
        _say(f"… {len(result.pictures)} pictures in all")
    _show_failures(result.failed)


@app.command(rich_help_panel="The store")
def verify(
    store: Annotated[str, typer.Argument(help="A store.")] = "features.zarr",
    videos: Annotated[
        Path | None,
        typer.Option("--videos", help="Compare the sources in this folder, byte by byte, too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a store against its specification, every committed byte of it.

    Exit code 1 when it is damaged, or when a source is no longer what its numbers were made from.

    Example: `feie verify features.zarr --videos reactions/`
    """
    result = _perform("verify", {"store": store, "videos": videos}, as_json, _show_verify)
    if not result.sound:
        raise typer.Exit(1)


def _show_verify(result: Any) -> None:
    for rule, message in result.violations:
        _say(f"[red]{rule}[/] {escape(message)}")
    for name in result.sources_changed:
        _say(f"[red]changed[/] {escape(name)}: not what its numbers were made from")
    looked_at = result.sources_same + len(result.sources_changed) + len(result.sources_absent)
    if looked_at:
        _say(
            f"{looked_at} sources: {result.sources_same} the same, "
            f"{len(result.sources_changed)} changed, {len(result.sources_absent)} not there"
        )
    state = "is damaged" if result.violations else "keeps its specification"
    _say(f"{escape(result.store)} {state}")


@app.command(rich_help_panel="The store")
def dump(
    store: Annotated[str, typer.Argument(help="A store: path or fsspec URL.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="One file: `hdf5`, `hdf5-groups` (a group a video), `parquet` (a row a frame), "
            "`safetensors`. A file a video: `muse` (feature folder), `openface` (CSV), `npz`.",
        ),
    ],
    target: Annotated[str, typer.Option("--out", help="The file, or the folder, to write.")],
    subset: Annotated[
        str | None, typer.Option(help="Groups of columns, e.g. `va,au`.", show_default="all")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="Text file, a video id a line: only these.")
    ] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(help="Only ids that fit this shell pattern, e.g. `speaker1/*`; repeatable."),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            help="Frames without a face, with `muse`: `keep` them blank, fill them with `zero`, "
            "`hold` the last face, or `drop` them."
        ),
    ] = "keep",
    embedding: Annotated[
        bool,
        typer.Option("--embedding", help="The extractor's embedding too, if the store has it."),
    ] = False,
    geometry: Annotated[
        bool, typer.Option("--geometry", help="The detector's score, box and landmarks too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would be and how large; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the numbers of a store in a format that other programs read.

    Every number is kept to its last bit, and `feie import` reads each format back. A data sheet
    (columns, units, missing values, licences) and the provenance lie beside it. What has its final
    name is whole: a single file is begun anew after an interruption, a folder goes on, and keeps
    the files that are as they should be.

    Example: `feie dump features.zarr --format muse --subset au --missing hold --out feats/mma_au`
    """
    values = {
        "store": store,
        "format": form,
        "out": target,
        "subset": subset,
        "ids": ids,
        "match": tuple(match or ()),
        "missing": missing,
        "embedding": embedding,
        "geometry": geometry,
        "dry_run": dry_run,
    }
    again = "nothing half-written has a final name; the same command starts again or goes on"
    _perform("dump", values, as_json, _show_dump, again)


def _show_dump(result: Any) -> None:
    groups = f"{len(result.columns)} columns"
    if result.dry_run:
        _say(
            f"{result.videos} videos, {result.frames} frames, {groups} as {result.format}: about "
            f"{result.bytes / 1e6:.1f} MB → {escape(result.out)} ({result.free_bytes / 1e9:.1f} GB "
            "free); nothing was written"
        )
    else:
        _say(
            f"{result.videos} videos, {result.frames} frames, {groups} as {result.format}: "
            f"{result.written} written, {result.kept} there before → {escape(result.out)} "
            f"({result.bytes / 1e6:.1f} MB)"
        )
    if result.removed:
        _say(f"{result.removed} files removed: the store has their videos no more")
    for note in result.notes:
        _say(escape(note))


@app.command(rich_help_panel="Start here")
def doctor(
    folder: Annotated[Path, typer.Option(help="Where stores would be written.")] = Path(),
    as_json: Json = False,
) -> None:
    """Say what works on this machine, and how to mend what does not.

    Exit code 0 when videos can be extracted, 2 when not. Nothing is changed or downloaded.

    Example: `feie doctor --json`
    """
    result = _perform("doctor", {"folder": folder}, as_json, _show_doctor)
    if not result.can_extract:
        raise typer.Exit(2)


def _show_doctor(result: Any) -> None:
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    for finding in result.findings:
        colour = colours[finding.state]
        _say(f"[{colour}]{finding.state:>7}[/]  {finding.name}: {escape(finding.found)}")
        if finding.cure:
            _say(f"{'':9}→ {escape(finding.cure)}")
    _say("videos can be extracted" if result.can_extract else "videos cannot be extracted yet")


@app.command(rich_help_panel="Start here")
def models(
    action: Annotated[
        str, typer.Argument(help="`list`, `fetch NAME`, or `add NAME FILE`.")
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="A name of the list.")] = None,
    file: Annotated[
        Path | None, typer.Argument(help="What to add: a file that was downloaded already.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept terms that forbid commercial use, unasked.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(help="Folder on the web to take the file from.", show_default="its makers'"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List weights of others with their terms and what is there of them; fetch or add one.

    Only `fetch` uses the network; `add` copies a file to where feie looks for it. Files whose
    sha256 is known are kept only if they match it.

    Example: `feie models fetch yunet`
    """
    if action != "list" and name and not yes and not as_json and sys.stdin.isatty():
        from feie.features.catalogue import find_model

        if (model := find_model(name)) is not None and not model.commercial:
            yes = typer.confirm(f"{name}: {model.licence}. Is your use allowed by that?")
    values = {"action": action, "name": name, "file": file, "yes": yes, "mirror": mirror}
    result = _perform("models", values, as_json, _show_models, "nothing was kept")
    if not result.sound:
        raise typer.Exit(1)


def _show_models(result: Any) -> None:
    said = {True: "as known", False: "[red]not the known file[/]", None: "not pinned"}
    for entry in result.models:
        _say(f"[bold]{escape(entry.name)}[/]  ({escape(entry.use)})  {escape(entry.licence)}")
        for file in entry.files:
            _say(f"    {escape(file.path)}  sha256 {file.sha256}  {said[file.pinned]}")
        if not entry.files:
            _say(f"    not here: {escape(entry.url)} → {escape(entry.folder)}")


@app.command(rich_help_panel="Start here")
def demo(
    data: Annotated[
        Path, typer.Option(help="The example clips and their labels, from a checkout of feie.")
    ] = Path("data.example"),
    folder: Annotated[Path, typer.Option("--out", help="Where store and runs go.")] = Path(
        "feie-demo"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the head.")] = 0,
    as_json: Json = False,
) -> None:
    """Extract, train and evaluate on the example clips: the whole of feie, offline, in minutes.

    Example: `feie demo --data data.example`
    """
    values = {"data": data, "out": folder, "seed": seed}
    _perform("demo", values, as_json, _show_demo, "the same command starts anew")


def _show_demo(result: Any) -> None:
    _show_extract(result.extract)
    _show_train_head(result.train_head)
    _show_evaluate(result.evaluate)
    _say(f"all of it took {result.seconds:g} s")


if __name__ == "__main__":
    app()
