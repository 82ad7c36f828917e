"""A frame-level head on the disk: safetensors and JSON, like the heads of videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feie.features.errors import HeadError
from feie.heads.data.inputs import InputConfig
from feie.heads.data.ragged import Ragged
from feie.heads.models.frame_va import FrameVA, fill_gaps
from feie.heads.runs.checkpoint import FRAMES_FORMAT, HEAD_JSON, HEAD_WEIGHTS
from feie.heads.runs.files import file_sha256, load_tensors, read_json, save_tensors, write_json

_SHAPES = {"mean": (None,), "sd": (None,), "weight": (2, None), "bias": (2,)}


@dataclass(frozen=True)
class FrameHead:
    """A frame-level head with what it needs to read a store.

    Attributes
    ----------
    model : FrameVA
    inputs : InputConfig
        Its columns, groups and space; every frame is read.
    label_mean : ndarray of float64, shape (2,)
        Mean label of the training frames: what is said of a video without any face.
    notes : dict
        Training, store, labels, versions (JSON).
    """

    model: FrameVA
    inputs: InputConfig
    label_mean: NDArray[np.float64]
    notes: dict[str, Any]

    def predict(self, frames: Ragged) -> NDArray[np.float64]:
        """Valence and arousal of every frame, shape (rows, 2), finite.

        Parameters
        ----------
        frames : Ragged
            In the head's space, NaN where there is no face.
        """
        found = self.model.predict(frames)
        without: NDArray[np.bool_] = np.any(np.isnan(fill_gaps(frames).values), axis=1)
        if not np.isfinite(found[~without]).all():
            raise HeadError(
                "the frame-level head predicts what is not finite: its weights are damaged, or the "
                "store's columns lie far outside those of its training"
            )
        return np.where(without[:, None], self.label_mean, found)


def is_frame_level(folder: Path) -> bool:
    """Whether a run folder holds a frame-level head."""
    path = folder / HEAD_JSON
    return path.exists() and read_json(path).get("format") == FRAMES_FORMAT


def save_frame_head(head: FrameHead, folder: Path) -> None:
    """Write a head into a run folder; `head.json`, written last, marks the run as finished."""
    tensors = {name: torch.from_numpy(getattr(head.model, name)) for name in _SHAPES}
    tensors["label_mean"] = torch.from_numpy(head.label_mean)
    sha256 = save_tensors(folder / HEAD_WEIGHTS, tensors, {"format": FRAMES_FORMAT})
    write_json(
        folder / HEAD_JSON,
        {
            "format": FRAMES_FORMAT,
            "weights_sha256": sha256,
            "half": head.model.half,
            "inputs": head.inputs.model_dump(mode="json", include={"columns", "groups", "space"}),
            **head.notes,
        },
    )


def load_frame_head(folder: Path) -> FrameHead:
    """Read a frame-level head.

    Raises
    ------
    HeadError
        It is not finished, damaged, or no such head.
    """
    if not folder.is_dir():
        raise HeadError(f"there is no run {folder}")
    if not is_frame_level(folder):
        raise HeadError(f"{folder} holds no head of feie train-head --head frame-va")
    notes = read_json(folder / HEAD_JSON)
    tensors, _ = load_tensors(folder / HEAD_WEIGHTS)
    try:
        if notes["weights_sha256"] != file_sha256(folder / HEAD_WEIGHTS):
            raise ValueError(f"{HEAD_WEIGHTS} is not the file that {HEAD_JSON} was written with")
        inputs = InputConfig.model_validate(notes["inputs"])
        arrays = {}
        for name, shape in {**_SHAPES, "label_mean": (2,)}.items():
            wanted = tuple(len(inputs.columns) if n is None else n for n in shape)
            if tuple(tensors[name].shape) != wanted or not torch.isfinite(tensors[name]).all():
                raise ValueError(f"{name} is not finite, or not of shape {wanted}")
            arrays[name] = tensors[name].double().numpy()
        mean = arrays.pop("label_mean")
        half = int(notes["half"])
        if half < 0 or not (arrays["sd"] > 0).all():
            raise ValueError("half is negative, or sd is not positive")
        for part in ("store", "labels"):
            if not isinstance(notes[part]["path"], str):
                raise ValueError(f"{part} path is no text")
        return FrameHead(FrameVA(**arrays, half=half), inputs, mean, notes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise HeadError(f"{folder} holds a damaged head: {what}") from None
