"""Face detectors by name: ``scrfd``, ``scrfd:PACK``, ``scrfd:FILE``, ``yunet``, ``yunet:FILE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces import scrfd, yunet
from feie.features.faces.detection import DetectOptions, Detector, Faces, search_options
from feie.features.files import file_sha256

__all__ = [
    "DEFAULT_DETECTOR",
    "DetectOptions",
    "Detector",
    "Faces",
    "describe_detector",
    "load_detector",
]

DEFAULT_DETECTOR = "scrfd"


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
        ``scrfd`` (the default): the detector of the first of insightface's packs found below
        ``~/.insightface/models``, in the order of `scrfd.MODEL_PACKS`; ``scrfd:buffalo_l``: of
        that pack; ``scrfd:FILE.onnx`` and ``yunet:FILE.onnx``: that file.
    options : DetectOptions, optional
        How to search a frame.
    threads : int
        Threads within one call of SCRFD; changes no numbers.
    device : str
        Where SCRFD runs: ``cpu``, or ``cuda:N`` if onnxruntime has CUDA (onnxruntime-gpu).

    Returns
    -------
    Detector
        Safe to share between threads.

    Raises
    ------
    MissingWeightsError
        The weights are not there; the message says which file to put where.
    UsageError
        An unknown kind, or a file that is no such detector.
    """
    kind, path = _weights(spec)
    options = options or DetectOptions()
    if kind == "scrfd":
        return scrfd.Scrfd(path, _sha256(path), options, threads, device)
    return yunet.YuNet(path, _sha256(path), options)


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
    kind, path = _weights(spec)
    name = f"{kind}:{path.stem}"
    return {"name": name, "sha256": _sha256(path), **search_options(options or DetectOptions())}


def _weights(spec: str | None) -> tuple[str, Path]:
    kind, _, rest = (spec or DEFAULT_DETECTOR).partition(":")
    if kind == "scrfd":
        return kind, scrfd.find_weights(rest)
    if kind == "yunet":
        return kind, yunet.find_weights(rest)
    raise UsageError(
        f"unknown detector {spec!r}; there are scrfd, scrfd:PACK, scrfd:FILE, yunet and yunet:FILE"
    )


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read: {error.strerror}") from error
