"""Where networks run, and in which precision: one answer for training and for extraction."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from feie.features.errors import UsageError

Precision = Literal["fp32", "bf16", "fp16"]
"""fp32, or the type in which autocast runs convolutions and matrix products."""

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(spec: str) -> torch.device:
    """Give the device of that name, after a trial that it works.

    Parameters
    ----------
    spec : str
        A torch device, e.g. ``cpu`` or ``cuda:0``; ``auto`` is ``cuda`` where one is usable,
        else ``cpu``.

    Raises
    ------
    UsageError
        A device that is unknown, or that this machine lacks.
    """
    name = spec
    if spec == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        ones = torch.ones(1, 1, 3, 3, device=device)
        F.conv2d(ones, ones).item()
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        # One sentence of torch's many lines says what is wrong.
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"device {spec!r} is not usable here ({reason}); use cpu, cuda:0 or auto"
        ) from error
    return device


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that the device does not have.

    Raises
    ------
    UsageError
        fp16 on a CPU, or bf16 on a GPU that is too old for it.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "precision fp16 is for CUDA: CPUs run it slower than fp32; use fp32 or bf16, "
            "or another --device"
        )
    if precision == "bf16" and device.type == "cuda":
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                raise UsageError(f"the GPU {device} has no bf16: use precision fp16 or fp32")


def check_compiler(device: torch.device) -> None:
    """Try ``torch.compile`` on a trifle.

    Raises
    ------
    UsageError
        This machine lacks what it needs, for instance a C++ compiler.
    """
    try:
        torch.compile(torch.sigmoid)(torch.ones(2, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"torch.compile does not work here ({reason}); leave it out") from error


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Give the context in which a network runs in a precision; none at all for fp32."""
    return torch.autocast(device.type, _TYPES[precision], enabled=precision != "fp32")
