"""Runs of feie 0.1.0 that are written otherwise today: frame-level heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from feie.heads.config import FrameVaConfig

FRAMES_FORMAT = "feie-frame-va/1"


def from_frame_format(
    tensors: dict[str, Tensor], notes: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give what `feie.heads.runs.checkpoint.save_head` would have written.

    Parameters
    ----------
    tensors : dict
        ``mean``, ``sd``, ``weight``, ``bias`` and ``label_mean``, float64.
    notes : dict
        Of ``head.json``: ``half`` is the box filter's.

    Raises
    ------
    KeyError, TypeError, ValueError
        Something lacks, or is no such thing.
    """
    columns = list(notes["inputs"]["columns"])
    config = FrameVaConfig(inputs=len(columns), targets=2, box=notes["half"])
    built = {f"model.{name}": tensors[name].float() for name in ("weight", "bias")}
    built |= {f"standardiser.{name}": tensors[name].double() for name in ("mean", "sd")}
    built |= {
        "calibration.slope": torch.ones(2, dtype=torch.float64),
        "calibration.offset": torch.zeros(2, dtype=torch.float64),
        "label_mean": tensors["label_mean"].double(),
    }
    own = {"unit": "frame", "missing": "interpolate"}
    rest = {name: value for name, value in notes.items() if name != "half"}
    return built, {
        **rest,
        "targets": ["valence", "arousal"],
        "model": config.model_dump(mode="json"),
        "inputs": {**notes["inputs"], **own},
    }
