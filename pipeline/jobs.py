"""The jobs of the pipeline as functions: what ``feie.train_head(…)`` calls."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from feie.features.errors import UsageError
from feie.features.text import suggest
from feie.pipeline.progress import ProgressCallback, silent

JOBS = {
    "extract": "feie.pipeline.extract.job",
    "verify": "feie.pipeline.stores.verify",
    "merge": "feie.pipeline.stores.merge",
    "info": "feie.pipeline.stores.info",
    "inspect": "feie.pipeline.inspect.job",
    "dump": "feie.pipeline.dump.job",
    "import_features": "feie.pipeline.imports.job",
    "train_head": "feie.pipeline.train.job",
    "train_fusion": "feie.pipeline.train.fusion",
    "train_frame_va": "feie.pipeline.train.frame_va",
    "sweep": "feie.pipeline.grid.sweep",
    "ablate": "feie.pipeline.grid.ablate",
    "evaluate": "feie.pipeline.evaluate.job",
    "predict": "feie.pipeline.predict.job",
    "compound": "feie.pipeline.predict.compound",
    "train_mma": "feie.pipeline.extractor.train_mma",
    "evaluate_mma": "feie.pipeline.extractor.evaluate_mma",
    "render_faces": "feie.pipeline.extractor.render_faces",
    "models": "feie.pipeline.machine.models",
    "doctor": "feie.pipeline.machine.doctor",
    "demo": "feie.pipeline.machine.demo",
}
"""Modules by job, each with a function ``run`` and the one model of options that it takes."""


def options_model(name: str) -> Any:
    """Give the pydantic model of a job's options."""
    module = import_module(JOBS[name])
    return getattr(module, "".join(part.title() for part in name.split("_")) + "Options")


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
    module, model = import_module(JOBS[name]), options_model(name)

    def function(*, progress: ProgressCallback = silent, **options: Any) -> Any:
        return module.run(_checked(name, model, options), progress)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "feie"
    command = name.replace("_", "-")
    function.__doc__ = (
        f"{inspect.getdoc(module.run)}\n\nOptions are those of ``feie {command} --help``, with _ "
        f"for -. ``progress`` is called with every `feie.pipeline.progress.Progress`."
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            option,
            keyword,
            annotation=field.annotation,
            default=inspect.Parameter.empty
            if field.is_required()
            else field.get_default(call_default_factory=True),
        )
        for option, field in model.model_fields.items()
    ]
    parameters.append(
        inspect.Parameter("progress", keyword, annotation=ProgressCallback, default=silent)
    )
    returned = inspect.signature(module.run).return_annotation
    signature = inspect.Signature(parameters, return_annotation=returned)
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _checked(name: str, model: Any, options: dict[str, Any]) -> Any:
    """Build the options; what does not fit becomes one clear sentence."""
    from pydantic import ValidationError

    for option in options:
        if option not in model.model_fields:
            raise UsageError(
                f"{name} has no option {option!r}{suggest(option, model.model_fields)}"
            )
    try:
        return model(**{option: _plain(value) for option, value in options.items()})
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, p['loc'])) or name}: {p['msg']}"
            + ("" if p["type"] == "missing" else f" (got {p['input']!r})")
            for p in error.errors()
        ]
        raise UsageError("; ".join(problems)) from None


def _plain(value: Any) -> Any:
    """Write paths as text, which fits options that are paths and those that may be addresses."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
