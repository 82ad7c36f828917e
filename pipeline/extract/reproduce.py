"""The command that made a store, kept with its numbers and given back in words for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any

from feie.features.faces.detectors import absolute_detector
from feie.features.store.reader import Store
from feie.pipeline.engine.options import ExtractOptions, absolute_extractor

# What changes numbers or chooses videos; how fast and where the rest was done is no part of it.
_KEPT = (
    "videos",
    "extractor",
    "weights",
    "detector",
    "faces",
    "fps",
    "image_fps",
    "follow",
    "stride",
    "all_faces",
    "smooth",
    "detect_batch",
    "embedding",
    "device",
    "precision",
    "compiled",
    "batch_size",
    "shard",
)
_FLAGS = {"compiled": "compile"}


def arguments_of(options: ExtractOptions) -> dict[str, Any]:
    """Give the options of an extraction that are not the defaults, paths made absolute.

    Returns
    -------
    dict
        In JSON types, by the names of `ExtractOptions`.
    """
    given = options.model_dump(mode="json", include=set(_KEPT), exclude_defaults=True)
    given["videos"] = str(options.videos.absolute())
    if "extractor" in given:
        given["extractor"] = absolute_extractor(options.extractor)
    if options.weights is not None:
        given["weights"] = str(Path(expanduser(options.weights)).absolute())
    if options.detector is not None:
        given["detector"] = absolute_detector(options.detector)
    return {name: given[name] for name in _KEPT if name in given}


def commands(store: Store) -> list[str]:
    """Give the commands that make the store again, quoted for a POSIX shell.

    One for each different set of options and folders among the sessions, in their order; they
    write to a new store beside the old one. Empty where sessions do not say how they were
    called (stores of feie 0.1).
    """
    target = _beside(store.path)
    found = []
    for session in _all(store.provenance["sessions"]):
        if arguments := session.get("arguments"):
            words = ["feie", session.get("command", "extract")]
            for name, value in arguments.items():
                words += _option(name, value)
            command = shlex.join([*words, "--store", target])
            if command not in found:
                found.append(command)
    return found


def _beside(location: str) -> str:
    """Name a store beside one: features.again.zarr for features.zarr."""
    scheme, mark, rest = location.rpartition("://")
    path = (PurePosixPath if mark else Path)(rest)
    return f"{scheme}{mark}{path.with_name(f'{path.stem}.again{path.suffix}')}"


def _all(sessions: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Give every session, those of the stores that `feie merge` joined included."""
    for session in sessions:
        yield session
        for part in session.get("merged", ()):
            yield from _all(part["sessions"])


def _option(name: str, value: Any) -> list[str]:
    if name == "source":  # of `feie import`, which has no name
        return [value]
    if isinstance(value, list) and name == "groups":
        value = ",".join(value)
    flag = "--" + _FLAGS.get(name, name).replace("_", "-")
    if value is True:
        return [flag]
    if value is False:
        return [flag.replace("--", "--no-", 1)]
    if name == "shard":
        value = f"{value[0]}/{value[1]}"
    return [flag, str(value)]
