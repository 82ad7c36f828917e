"""`feie doctor`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Literal

from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, computed_field

from feie.features.errors import FeieError
from feie.pipeline.libraries import cannot_import
from feie.pipeline.machine.options import DoctorOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["DoctorOptions", "DoctorResult", "Finding", "run"]

_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "gif")
_LEAST_FREE = 1 << 30  # bytes; a store of 25,000 short videos has about as many
_EXTRAS = {
    "s3fs": ("stores on S3", "pip install s3fs"),
    "ai-edge-litert": ("feie label-units", "pip install 'feie[teacher]'"),
}

_BUNDLED = "mma-lite"


class Finding(BaseModel):
    """What was found about one thing.

    Attributes
    ----------
    state : {"ok", "note", "missing"}
        ``note``: something optional is not there; ``missing``: extraction cannot run.
    cure : str
        What to do; empty where all is well.
    """

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    cure: str = ""


class DoctorResult(Result):
    """All findings."""

    findings: list[Finding]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def can_extract(self) -> bool:
        """Whether nothing that extraction needs is missing."""
        return all(finding.state != "missing" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """2 where videos cannot be extracted."""
        return 0 if self.can_extract else 2

    def lines(self) -> list[str]:
        """Say what was found, a cure below what needs one."""
        said = []
        for finding in self.findings:
            said.append(f"{finding.state:>7}  {finding.name}: {finding.found}")
            if finding.cure:
                said.append(f"{'':9}→ {finding.cure}")
        state = "can be extracted" if self.can_extract else "cannot be extracted yet"
        return [*said, f"videos {state}"]


def run(options: DoctorOptions, progress: ProgressCallback = silent) -> DoctorResult:
    """Look at all that stage one needs; nothing is changed and nothing is downloaded."""
    checks: list[tuple[str, str, Callable[[], Finding]]] = [
        ("python", "", _python),
        ("numpy", "pip install --force-reinstall numpy", _numpy),
        ("opencv", "pip install --force-reinstall opencv-python-headless", _opencv),
        ("torch", "pip install 'torch>=2.6'", _torch),
        ("onnxruntime", "pip install onnxruntime", _onnxruntime),
        ("video codecs", "pip install av", _codecs),
        ("insightface", "pip install insightface", _insightface),
        ("detector", "", _detector),
        ("extractor", "install feie anew: its weights are damaged or gone", _extractor),
        ("store", "pip install 'zarr>=3.1'", lambda: _disk(options.folder)),
        ("cluster", "", _cluster),
        ("recurrence", "pip install 'feie[fast]'", _recurrence),
        *((name, "", lambda name=name: _extra(name)) for name in _EXTRAS),
    ]
    findings = []
    for done, (name, cure, check) in enumerate(checks, start=1):
        try:
            with redirect_stdout(sys.stderr):  # broken libraries talk
                findings.append(check())
        except ImportError as error:
            found, _, cure = cannot_import(error).partition(": ")
            findings.append(Finding(name=name, state="missing", found=found, cure=cure))
        except Exception as error:  # whatever is broken is what this is here to tell
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            findings.append(Finding(name=name, state="missing", found=reason, cure=cure))
        progress(Progress("checks", done, len(checks)))
    return DoctorResult(findings=findings)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        wanted = SpecifierSet(metadata("feie")["Requires-Python"])
    except PackageNotFoundError:  # a checkout on the path, which pip never looked at
        return Finding(name="python", state="ok", found=found)
    if not wanted.contains(platform.python_version(), prereleases=True):
        cure = f"use a Python that is {wanted}"
        return Finding(name="python", state="missing", found=found, cure=cure)
    return Finding(name="python", state="ok", found=found)


def _numpy() -> Finding:
    import numpy as np

    return Finding(name="numpy", state="ok", found=np.__version__)


def _opencv() -> Finding:
    import cv2
    import numpy as np

    cv2.resize(np.zeros((4, 4, 3), np.uint8), (2, 2))
    return Finding(name="opencv", state="ok", found=cv2.__version__)


def _torch() -> Finding:
    import torch

    from feie.features.devices import pick_device

    device = pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no CUDA device"
    return Finding(name="torch", state="ok", found=f"{torch.__version__}, {device} ({name})")


def _onnxruntime() -> Finding:
    import onnxruntime
    import torch

    names = [p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()]
    found = f"{onnxruntime.__version__}, {', '.join(names)}"
    if torch.cuda.is_available() and "CUDA" not in names:
        cure = "pip install onnxruntime-gpu, to detect faces on the GPU too"
        return Finding(name="onnxruntime", state="note", found=found, cure=cure)
    return Finding(name="onnxruntime", state="ok", found=found)


def _codecs() -> Finding:
    import av

    there = {name for name in _CODECS if _decodes(name)}
    found = f"av {av.__version__}: {', '.join(c for c in _CODECS if c in there)}"
    if absent := [c for c in _CODECS if c not in there]:
        cure = f"videos in {', '.join(absent)} will fail by name: pip install --upgrade av"
        return Finding(name="video codecs", state="note", found=found, cure=cure)
    return Finding(name="video codecs", state="ok", found=found)


def _decodes(codec: str) -> bool:
    import av

    try:
        av.Codec(codec, "r")
    except ValueError:
        return False
    return True


def _insightface() -> Finding:
    from insightface.model_zoo.scrfd import SCRFD  # noqa: F401

    return Finding(name="insightface", state="ok", found=version("insightface"))


def _detector() -> Finding:
    """Look at feie's own face finder, and name what else could find faces."""
    import numpy as np

    from feie.features.catalogue import CATALOGUE
    from feie.features.faces.detectors import load_detector

    named = [model for model in CATALOGUE.values() if model.use.startswith("--detector ")]
    others = [model.use for model in named if model.name != "onet" and model.on_disk()]
    also = f"there are {', '.join(others)}" if others else ""
    try:
        detector = load_detector()
    except FeieError as error:
        return Finding(
            name="detector",
            state="note" if others else "missing",
            found=f"feie's own face finder cannot be used; {also or 'nor is there another'}",
            cure=str(error),
        )
    detector.detect(np.zeros((120, 160, 3), np.uint8))
    found = f"{detector.name}, which comes with feie, sha256 {detector.sha256[:16]}…"
    return Finding(name="detector", state="ok", found=f"{found}; {also}")


def _extractor() -> Finding:
    import numpy as np

    from feie.features.extractors.load import bundled_sha256, load_extractor

    extractor = load_extractor(_BUNDLED, "cpu")
    if extractor.sha256 != bundled_sha256(_BUNDLED):
        raise ValueError(
            f"{_BUNDLED} has sha256 {extractor.sha256[:16]}…, not the one it came with"
        )
    affect = extractor(np.full((2, 112, 112, 3), 127, np.uint8)).affect
    if affect.shape != (2, len(extractor.schema)) or not np.isfinite(affect).all():
        raise ValueError(f"{_BUNDLED} gives numbers that are none")
    found = f"{_BUNDLED}, sha256 {extractor.sha256[:16]}…, {affect.shape[1]} numbers a face"
    return Finding(name="extractor", state="ok", found=found)


def _disk(folder: Path) -> Finding:
    import zarr

    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".feie-") as file:
            file.write(b"\0" * 65_536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        found = f"{folder.absolute()} cannot be written: {error.strerror}"
        cure = "go to a folder that you may write, or give --store one"
        return Finding(name="store", state="missing", found=found, cure=cure)
    free = shutil.disk_usage(folder).free
    found = f"zarr {zarr.__version__}, {free / 2**30:.1f} GiB free in {folder.absolute()}"
    if free < _LEAST_FREE:
        cure = "free some space: 100 hours of video take about 1 GiB"
        return Finding(name="store", state="note", found=found, cure=cure)
    return Finding(name="store", state="ok", found=found)


def _cluster() -> Finding:
    return _package(
        "distributed", "cluster", "--workers and --scheduler", "pip install distributed"
    )


def _recurrence() -> Finding:
    """Which implementation of the GRU trains heads on the CPU."""
    from feie.heads.models.recurrence import backend  # imports torch

    if backend() == "fused":
        return Finding(name="recurrence", state="ok", found="fused (numba)")
    why = "chosen" if os.environ.get("FEIE_RECURRENCE") else "no numba"
    cure = "pip install 'feie[fast]', without FEIE_RECURRENCE=plain, trains heads faster"
    return Finding(name="recurrence", state="note", found=f"plain ({why})", cure=cure)


def _extra(name: str) -> Finding:
    use, cure = _EXTRAS[name]
    return _package(name, name, use, cure)


def _package(package: str, name: str, use: str, cure: str) -> Finding:
    try:
        return Finding(name=name, state="ok", found=f"{package} {version(package)}, for {use}")
    except PackageNotFoundError:
        found = f"not installed: needed for {use}"
        return Finding(name=name, state="note", found=found, cure=cure)
