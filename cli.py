"""The command line: parses, reports progress, prints results and maps errors to exit codes.

Commands come from the table of jobs and their options models: `feie.pipeline.jobs` says which there
are, and this module turns the fields of a model into what is typed. One is built when it is called,
so that ``--help`` is instant.

Exit codes: 0 done; 2 usage or environment; 3 some videos failed (named, the store is good);
130, 143, 138 interrupted by Ctrl-C, SIGTERM, SIGUSR1; 1 anything else.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from feie import __version__
from feie.features.errors import FeieError, TermsError, UsageError
from feie.features.text import suggest
from feie.pipeline import stopping
from feie.pipeline.functions import problems
from feie.pipeline.jobs import COMMANDS, command_model, command_run

if TYPE_CHECKING:
    from feie.pipeline.options import Option
    from feie.pipeline.progress import Progress
    from feie.pipeline.result import Cell, Result, Table

_STYLES = {"ok": "green", "note": "yellow", "missing": "red", "failed": "red"}
"""Of lines that begin with such a word."""


def _standard_streams() -> None:
    """Open what a daemon was started without, before a file of ours gets its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without UTF-8 gets ? for →, no traceback
            stream.reconfigure(errors="replace")


_standard_streams()
out = Console()
err = Console(stderr=True)


class Commands(TyperGroup):
    """The commands of the table of jobs; a list of them loads none of their options."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Give the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Build a command; in a list of commands only what the list shows."""
        if cmd_name not in COMMANDS:
            return None
        one = typer.Typer(rich_markup_mode="markdown", add_completion=False)
        job = COMMANDS[cmd_name]
        function = (lambda: None) if self._listing else _function(cmd_name)
        one.command(cmd_name, help=job.about, rich_help_panel=job.panel)(function)
        return typer.main.get_command(one)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, or say which may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}{suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        self._listing = True
        super().format_help(ctx, formatter)
        self._listing = False


app = typer.Typer(
    name="feie",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Facial expression intensity estimation from video, offline, in two stages.\n\n"
    "Stage one, once: `feie extract --videos DIR` turns every frame's face into 26 numbers. "
    "Stage two, in minutes: `feie train-head --subset va,au`, then `feie evaluate`. "
    "`feie demo` runs all of it on example clips.",
)


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


# From an options model to a command.


def _function(command: str) -> Callable[..., None]:
    """Give a command as a function with the signature that typer reads."""
    from feie.pipeline.options import options_of

    options = options_of(command_model(command))

    def function(ctx: typer.Context, json_: bool, **typed: Any) -> None:
        _perform(command, _gathered(ctx, options, typed), json_)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("ctx", kind, annotation=typer.Context)]
    for option in options.values():
        parameters += [] if option.flag.hidden else _parameters(option)
    as_json = typer.Option("--json", help="Print one JSON object on standard output, nothing else.")
    parameters.append(
        inspect.Parameter("json_", kind, default=False, annotation=Annotated[bool, as_json])
    )
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


def _gathered(
    ctx: typer.Context, options: Mapping[str, Option], typed: Mapping[str, Any]
) -> dict[str, Any]:
    """Give what was typed, by option; defaults are the model's business."""
    from feie.pipeline.options import gathered

    named, older, words = {}, {}, list[str]()
    for name, value in typed.items():
        source = ctx.get_parameter_source(name)
        if source is None or source.name == "DEFAULT":
            continue
        way, _, of = name.partition("_")
        if name in options and options[name].flag.argument:
            words += value if isinstance(value, list | tuple) else [value]
        elif name in options or way == "by":
            named[name if name in options else of] = value
        else:
            option = options[of]
            _note(f"{option.old_names[int(way[3:])]} is called {option.names[0]} now")
            older[of] = value
    try:
        return gathered(options, named, older, words)
    except UsageError as error:
        ctx.fail(str(error))


def _parameters(option: Option) -> Iterator[inspect.Parameter]:
    """Give the ways in which one option is typed: by place, by name, by older names."""
    flag, kind, several = option.flag, option.typed, option.several
    default = option.default
    shown: bool | str = True
    if option.required or default in (None, ()) or flag.default is not None:
        shown, default = flag.default or False, None
    elif isinstance(default, tuple):
        shown, default = ", ".join(map(str, default)), None
    if kind is bool and default is None:
        default = False
    of = f"Only with --{option.choice} {' or '.join(option.kinds)}" if option.choice else flag.panel
    about: dict[str, Any] = {"help": option.help, "show_default": shown, "rich_help_panel": of}
    if flag.argument:
        text = f"{option.help} (required)" if option.required else option.help
        place = typer.Argument(metavar=option.name.upper(), help=text, show_default=shown)
        word = list[str] if several else str
        yield _parameter(option.name, word | None, place, default and str(default))
        if not flag.names:
            return
        about |= {"help": f"The same, by name: {option.name.upper()}.", "show_default": False}
    names = option.names
    if kind is bool and default is True:
        names = tuple(f"{name}/--no-{name[2:]}" for name in names)
    plain = kind if kind is bool or default is not None else kind | None
    if option.required and not flag.argument and not option.old_names:
        plain, default = kind, inspect.Parameter.empty
    typed_as = f"by_{option.name}" if flag.argument else option.name
    yield _parameter(typed_as, plain, typer.Option(*names, **about), default)
    for number, name in enumerate(option.old_names):
        old = typer.Option(name, hidden=True)
        yield _parameter(f"old{number}_{option.name}", kind | None, old, None)


def _parameter(name: str, kind: Any, info: Any, default: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, info])


# A job, from what was typed to its exit code.


def _perform(command: str, given: dict[str, Any], as_json: bool) -> None:
    """Run a job and print its result; ends with `typer.Exit`."""
    try:
        result = _result(command, given)
    except TermsError as error:
        if as_json or not sys.stdin.isatty() or not typer.confirm(error.question):
            _complain(str(error))
            raise typer.Exit(error.exit_code) from None
        return _perform(command, {**given, error.option: True}, as_json)
    except FeieError as error:
        _complain(str(error))
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(2) from None
    except ImportError as error:
        from feie.pipeline.libraries import cannot_import

        _complain(cannot_import(error))
        raise typer.Exit(2) from None
    except MemoryError:
        _complain("this needs more memory than the machine has; take smaller sizes or batches")
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        _complain(f"interrupted{stopping.reason(stop)}; {COMMANDS[command].again}")
        raise typer.Exit(stopping.exit_code(stop)) from None
    try:
        if as_json:
            print(result.model_dump_json(indent=2))
        else:
            _show(result)
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        if error.errno != errno.EPIPE:  # a reader such as `head` has enough
            _complain(f"done, but the result cannot be printed: {error.strerror}")
        raise typer.Exit(1) from None
    raise typer.Exit(result.exit_code)


def _result(command: str, given: dict[str, Any]) -> Result:
    from pydantic import ValidationError

    from feie.pipeline.options import options_of

    model = command_model(command)
    try:
        options = model(**given)
    except ValidationError as error:
        called = {name: option.typed_as for name, option in options_of(model).items()}
        for problem in problems(error, called):
            _complain(problem)
        raise typer.Exit(2) from None
    with stopping.stoppable(), Reporter() as reporter:
        result: Result = command_run(command)(options, reporter)
    return result


class Reporter:
    """Shows a job's progress: bars with ETA on a terminal, a line now and then in a log.

    A standard error that cannot be written (a full disk, a terminal that is gone) ends no job.
    """

    _LINE_EVERY = 30.0  # seconds, where standard error is no terminal

    def __init__(self) -> None:
        from rich import progress as bars

        self._bars = bars.Progress(
            bars.SpinnerColumn(),
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("ETA"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("[dim]{task.fields[figures]}"),
            console=err,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Reporter:
        with _lenient():
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with _lenient():
            self._bars.stop()

    def __call__(self, report: Progress) -> None:
        """Take one report of a job."""
        with _lenient():
            self._take(report)

    def _take(self, report: Progress) -> None:
        figures = "  ".join(f"{name} {value}" for name, value in report.info.items())
        if report.message:
            self._bars.console.print(Text(report.message), soft_wrap=True)
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


# What is printed.


@contextmanager
def _lenient() -> Iterator[None]:
    """Go on without standard error where it cannot be written."""
    try:
        yield
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Send the rest of a stream nowhere, what waits in its buffer included."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _complain(message: str) -> None:
    with _lenient():
        err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def _note(message: str) -> None:
    with _lenient():
        err.print(Text.assemble(("note: ", "yellow"), message), soft_wrap=True)


def _show(result: Result) -> None:
    """Print the tables of a result, then its lines."""
    for table in result.tables():
        out.print(_rich(table))
    for line in result.lines():
        found = re.match(r"\s*(\w+) ", line)
        style = _STYLES.get(found[1], "") if found else ""
        text = Text(line)
        if found and style:
            text.stylize(style, *found.span(1))
        out.print(text, soft_wrap=True)


def _rich(table: Table) -> Any:
    from rich.table import Table as Shown

    shown = Shown(title=Text(table.title), title_justify="left", header_style="bold")
    for number, name in enumerate(table.columns):
        cells = [row[number] for row in (*table.rows, *table.totals)]
        right = any(not isinstance(cell, str) for cell in cells)
        shown.add_column(Text(name), justify="right" if right else "left")
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    if table.totals:
        shown.add_section()
    for row in table.totals:
        shown.add_row(*map(_cell, row), style="bold")
    return shown


def _cell(value: Cell) -> Text:
    if value is None:
        return Text("undefined")
    return Text(f"{value:.3f}" if isinstance(value, float) else str(value))


if __name__ == "__main__":
    app()
