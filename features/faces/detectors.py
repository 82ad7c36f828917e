"""Face detectors by name: ``auto``, ``scrfd``, ``scrfd:PACK``, ``yunet:FILE``, ``A,B``, …."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

from feie.features.errors import FeieError, MissingWeightsError, UsageError
from feie.features.faces import finder, scrfd, yunet
from feie.features.faces.bundled import BUNDLED, ONET, YUNET, read_bundled
from feie.features.faces.detection import DetectOptions, Detector, Faces, search_options
from feie.features.faces.fallback import Fallback, chained_options
from feie.features.files import file_sha256

__all__ = [
    "DEFAULT_DETECTOR",
    "DetectOptions",
    "Detector",
    "Faces",
    "absolute_detector",
    "describe_detector",
    "find_detector",
    "load_detector",
]

DEFAULT_DETECTOR = "auto"


def load_detector(
    spec: str | None = None,
    options: DetectOptions | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> Detector:
    """Load a face detector from weights on this machine; nothing is ever downloaded.

    Parameters
    ----------
    spec : str, optional
        ``auto`` (the default), also ``yunet+onet``: `Finder`, which comes with feie, whatever else
        is on the machine, so that the same command gives the same numbers everywhere. ``scrfd``:
        the detector of the first of insightface's packs found below ``~/.insightface/models``, in
        the order of `scrfd.MODEL_PACKS`; ``scrfd:buffalo_l``: of that pack; ``yunet``: YuNet with
        landmarks of its own; ``scrfd:FILE.onnx`` and ``yunet:FILE.onnx``: that file. Several with
        commas: each is tried where the ones before it find nothing, see `Fallback`.
    options : DetectOptions, optional
        How to search a frame.
    threads : int
        Threads within one call of SCRFD; changes no numbers.
    device : str
        Where SCRFD runs: ``cpu``, or ``cuda:N`` if onnxruntime has CUDA (onnxruntime-gpu).

    Returns
    -------
    Detector
        Safe to share between threads, but for the count of a `Fallback`.

    Raises
    ------
    MissingWeightsError
        The weights are not there; the message says which file to put where.
    UsageError
        An unknown kind, or a file that is no such detector.
    """
    options = options or DetectOptions()
    loaded = [_load(one, options, threads, device) for one in _parts(spec)]
    return loaded[0] if len(loaded) == 1 else Fallback(loaded)


def describe_detector(
    spec: str | None = None, options: DetectOptions | None = None
) -> dict[str, Any]:
    """Tell what the provenance of a store would say of a detector, without loading it.

    Parameters
    ----------
    spec, options
        See `load_detector`.

    Returns
    -------
    dict
        ``name``, ``sha256`` and every option that changes numbers.

    Raises
    ------
    MissingWeightsError, UsageError
        See `load_detector`; whether the file is sound shows when it is loaded.
    """
    first, *others = (_describe(one, options or DetectOptions()) for one in _parts(spec))
    if not others:
        return first
    name = ",".join(part["name"] for part in (first, *others))
    return {"name": name, "sha256": first["sha256"], **chained_options(first, others)}


def find_detector(made: Mapping[str, Any], specs: Iterable[str] = ()) -> str:
    """Find on this machine the detector that a store was made with, so that it can be continued.

    Parameters
    ----------
    made : mapping
        ``detector`` of the store's provenance.
    specs : iterable of str
        What was asked for when the store was made, looked at first; see `load_detector`.

    Returns
    -------
    str
        A spec for `load_detector`.

    Raises
    ------
    MissingWeightsError
        No detector of that name and sha256 is here.
    """
    parts = [{"name": made["name"].split(",")[0], "sha256": made["sha256"]}]
    parts += made.get("fallback", ())
    asked = [one.strip() for spec in specs for one in spec.split(",")]
    return ",".join(_find(part, asked) for part in parts)


def _find(part: Mapping[str, Any], specs: Sequence[str]) -> str:
    kind, _, stem = part["name"].partition(":")
    packs = [f"scrfd:{pack}" for pack in scrfd.MODEL_PACKS] if kind == "scrfd" else []
    for spec in (*specs, DEFAULT_DETECTOR, kind, *packs):
        try:
            there = _describe(spec, DetectOptions())
        except FeieError:
            continue
        if (there["name"], there["sha256"]) == (part["name"], part["sha256"]):
            return str(spec)
    file = f"{stem}.onnx of sha256 {part['sha256'][:16]}…"
    raise MissingWeightsError(
        f"the store was made with the detector {part['name']}, which is not here: name its {file} "
        f"with --detector {kind}:FILE, or write another store"
        if stem
        else f"the store was made with the detector {part['name']}, which is not here"
    )


def absolute_detector(spec: str) -> str:
    """Give a spec that means the same in every folder: names as they are, files absolute."""
    parts = []
    for part in spec.split(","):
        kind, colon, rest = part.strip().partition(":")
        file = Path(expanduser(rest))
        named = rest.lower().endswith(".onnx") or (rest and file.is_file())
        parts.append(kind + colon + (str(file.absolute()) if named else rest))
    return ",".join(parts)


def _parts(spec: str | None) -> list[str]:
    parts = [part.strip() for part in (spec or DEFAULT_DETECTOR).split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(
            f"{spec!r}: give detectors with commas, each once, the first to be tried first"
        )
    return parts


def _load(spec: str, options: DetectOptions, threads: int, device: str) -> Detector:
    if _is_finder(spec):
        return finder.Finder(options)
    kind, path = _weights(spec)
    if kind == "scrfd":
        return scrfd.Scrfd(path, _sha256(path), options, threads, device)
    return yunet.YuNet(path, _sha256(path), options)


def _describe(spec: str, options: DetectOptions) -> dict[str, Any]:
    if _is_finder(spec):
        for name in (YUNET, ONET):
            read_bundled(name)
        return {
            "name": finder.NAME,
            "sha256": BUNDLED[YUNET],
            **finder.finder_options(options),
        }
    kind, path = _weights(spec)
    return {"name": f"{kind}:{path.stem}", "sha256": _sha256(path), **search_options(options)}


def _is_finder(spec: str) -> bool:
    return spec in (DEFAULT_DETECTOR, finder.NAME)


def _weights(spec: str) -> tuple[str, Path]:
    kind, _, rest = spec.partition(":")
    if kind == "scrfd":
        return kind, scrfd.find_weights(rest)
    if kind == "yunet":
        return kind, yunet.find_weights(rest)
    raise UsageError(
        f"unknown detector {spec!r}; there are auto (comes with feie), scrfd, scrfd:PACK, "
        "scrfd:FILE, yunet and yunet:FILE"
    )


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read: {error.strerror}") from error
