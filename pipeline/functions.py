"""The jobs as functions of their options by name: what ``feie.train_head(…)`` calls."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from feie.features.errors import UsageError
from feie.features.text import suggest
from feie.pipeline.jobs import JOBS, job_run, options_model
from feie.pipeline.progress import ProgressCallback, silent


@cache
def job(name: str) -> Callable[..., Any]:
    """Give a job as a function of its options by name, with ``progress`` beside them.

    The function returns the job's result, a pydantic model, and raises `UsageError` for options
    that make no sense and the job's own errors, all of them `FeieError`.

    Parameters
    ----------
    name : str
        One of `JOBS`.
    """
    from feie.pipeline.options import options_of

    if name not in JOBS:
        raise UsageError(f"there is no job {name!r}{suggest(name, JOBS)}")
    run, model = job_run(name), options_model(name)

    def function(*, progress: ProgressCallback = silent, **options: Any) -> Any:
        return run(_checked(name, model, options), progress)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "feie"
    function.__doc__ = _documented(name, run, model)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            option.name,
            keyword,
            annotation=option.annotation,
            default=inspect.Parameter.empty if option.required else option.default,
        )
        for option in options_of(model).values()
    ]
    parameters.append(
        inspect.Parameter("progress", keyword, annotation=ProgressCallback, default=silent)
    )
    returned = inspect.signature(run).return_annotation
    signature = inspect.Signature(parameters, return_annotation=returned)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _documented(name: str, run: Callable[..., Any], model: Any) -> str:
    """Write the docstring: what `run` says, then the options, then the other sections of it."""
    from feie.pipeline.options import options_of

    about, mark, sections = (inspect.getdoc(run) or name).partition("\n\nRaises\n")
    lines = [about, "", "Parameters", "----------"]
    for option in options_of(model).values():
        kind = getattr(option.annotation, "__name__", str(option.annotation))
        lines.append(f"{option.name} : {kind.replace('typing.', '')}")
        if option.help:
            lines.append(f"    {option.help}")
    lines += ["progress : callable", "    Called with every `feie.pipeline.progress.Progress`."]
    if command := JOBS[name].command:
        lines[0] += f"\n\nThe same as ``feie {command}``; see ``feie {command} --help``."
    return "\n".join(lines) + mark + sections


def _checked(name: str, model: Any, options: Mapping[str, Any]) -> Any:
    """Build the options; what does not fit becomes one clear sentence."""
    from pydantic import ValidationError

    from feie.pipeline.options import options_of

    known = options_of(model)
    others = {_python(n): o.name for o in known.values() for n in (*o.names, *o.old_names)}
    old = {_python(n) for o in known.values() for n in o.old_names}
    given = {}
    for option, value in options.items():
        found = option if option in known else others.get(option)
        if found is None:
            raise UsageError(f"{name} has no option {option!r}{suggest(option, known)}")
        if option in old - known.keys():
            warnings.warn(f"{name}: {option} is called {found} now", FutureWarning, stacklevel=3)
        given[found] = _plain(value)
    try:
        return model(**given)
    except ValidationError as error:
        raise UsageError("; ".join(problems(error, {}))) from None


def _python(flag: str) -> str:
    return flag.strip("-").replace("-", "_")


def problems(error: Any, called: Mapping[str, str]) -> list[str]:
    """Say what a pydantic error found wrong, a sentence a field.

    Parameters
    ----------
    error : ValidationError
    called : dict of str to str
        What the caller knows fields as, such as ``--batch-size``.
    """
    found = []
    for problem in error.errors():
        place = [str(part) for part in problem["loc"] if not isinstance(part, int)]
        said = problem["msg"].removeprefix("Value error, ")
        if not place:  # about several options at once; it names them itself
            found.append(said)
            continue
        name = called.get(place[-1], called.get(place[0], place[-1]))
        if problem["type"] == "extra_forbidden":
            found.append(f"{name} would do nothing here: leave it out")
        elif problem["type"] == "missing":
            found.append(f"{name} is missing")
        else:
            found.append(f"{name}: {said} (got {problem['input']!r})")
    return found


def _plain(value: Any) -> Any:
    """Write paths as text, which fits options that are paths and those that may be addresses."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
