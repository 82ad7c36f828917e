"""Face detectors by name: ``scrfd``, ``scrfd:PACK``, ``scrfd:FILE``, ``yunet:FILE``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from feie.features import scrfd, yunet
from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces import DetectOptions, Detector, Faces

__all__ = ["DEFAULT_DETECTOR", "DetectOptions", "Detector", "Faces", "load_detector"]

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
    kind, _, rest = (spec or DEFAULT_DETECTOR).partition(":")
    options = options or DetectOptions()
    if kind == "scrfd":
        path = scrfd.find_weights(rest)
        return scrfd.Scrfd(path, _sha256(path), options, threads, device)
    if kind == "yunet":
        path = yunet.find_weights(rest)
        return yunet.YuNet(path, _sha256(path), options)
    raise UsageError(
        f"unknown detector {spec!r}; there are scrfd, scrfd:PACK, scrfd:FILE and yunet:FILE"
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MissingWeightsError(f"{path} cannot be read: {error.strerror}") from error
