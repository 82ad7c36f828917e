"""What else made a number: the versions of the libraries and the device it ran on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = (
    "feie",
    "torch",
    "onnxruntime",
    "insightface",
    "opencv-python",
    "av",
    "numpy",
    "zarr",
)


def library_versions() -> dict[str, str]:
    """Versions of Python and of each library that touches the numbers; ``""`` where absent."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _LIBRARIES:
        found[name] = _version(name) or _version(f"{name}-headless")
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
