"""Run folders: trained heads on the disk, as safetensors and JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feie.features.errors import FeieError, HeadError
from feie.heads.config import InputConfig, MRNNConfig, StatConfig, config_of
from feie.heads.data.inputs import Standardiser
from feie.heads.measures.baselines import LengthBaseline
from feie.heads.models.stat import STATISTICS
from feie.heads.runs.earlier import FRAMES_FORMAT, from_frame_format
from feie.heads.runs.files import (
    disk_errors,
    file_sha256,
    load_tensors,
    read_json,
    save_tensors,
    write_json,
)
from feie.heads.runs.trained import Calibration, TrainedHead

FORMAT, FUSION_FORMAT = "feie-head/1", "feie-fusion/1"
_FORMATS = {FORMAT, FUSION_FORMAT, FRAMES_FORMAT}
HEAD_WEIGHTS, HEAD_JSON, STATE = "head.safetensors", "head.json", "state.safetensors"
_ARRAYS = {
    "standardiser": ("mean", "sd"),
    "calibration": ("slope", "offset"),
    "baseline": ("mean", "sd", "weights", "offset"),
}
_NOTES = {"store": ("path", "fingerprint"), "labels": ("path", "sha256")}


def save_head(head: TrainedHead, run: Path) -> None:
    """Write a head into a run folder; `head.json`, written last, marks the run as finished."""
    tensors = {f"model.{n}": p.detach() for n, p in head.model.named_parameters()}
    tensors["label_mean"] = torch.from_numpy(head.label_mean)
    for part, names in _ARRAYS.items():
        if getattr(head, part) is None:
            continue
        for name in names:
            tensors[f"{part}.{name}"] = torch.from_numpy(
                np.ascontiguousarray(getattr(getattr(head, part), name))
            )
    sha256 = save_tensors(run / HEAD_WEIGHTS, tensors, {"format": FORMAT})
    write_json(
        run / HEAD_JSON,
        {
            "format": FORMAT,
            "weights_sha256": sha256,
            "targets": list(head.targets),
            "model": head.model.config.model_dump(mode="json"),
            "inputs": head.inputs.model_dump(mode="json"),
            **head.notes,
        },
    )


def load_head(run: Path) -> TrainedHead:
    """Read the head of a finished run.

    Raises
    ------
    HeadError
        The run is not finished, damaged, or of another format.
    """
    if not run.is_dir():
        raise HeadError(f"there is no run {run}")
    if not (run / HEAD_JSON).exists():
        raise HeadError(f"{run} holds no trained head (no {HEAD_JSON}): its training has not ended")
    notes = read_json(run / HEAD_JSON)
    if notes.get("format") not in (FORMAT, FRAMES_FORMAT):
        raise HeadError(
            f"{run / HEAD_JSON} has format {notes.get('format')!r}, this feie reads {FORMAT!r}; "
            f"use the feie that made it or train again"
        )
    tensors, _ = load_tensors(run / HEAD_WEIGHTS)
    try:
        if notes["weights_sha256"] != file_sha256(run / HEAD_WEIGHTS):
            raise ValueError(f"{HEAD_WEIGHTS} is not the file that {HEAD_JSON} was written with")
        if notes["format"] == FRAMES_FORMAT:
            tensors, notes = from_frame_format(tensors, notes)
        return _build(tensors, notes)
    except FeieError as error:
        raise HeadError(f"{run} cannot be loaded: {error}") from None
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # A KeyError says nothing but the key.
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise HeadError(f"{run} holds a damaged head: {what}") from None


def _build(tensors: dict[str, Tensor], notes: dict[str, Any]) -> TrainedHead:
    """Put a head together; every disagreement is a KeyError, TypeError, ValueError or the like."""
    for part, keys in _NOTES.items():
        for key in keys:
            if not isinstance(notes[part][key], str):
                raise ValueError(f"{part} {key} is no text")
    if not isinstance(notes["store"].get("extractor"), dict | None):
        raise ValueError("store extractor is no JSON object")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
    config = config_of(notes["model"])
    inputs = InputConfig.model_validate(notes["inputs"])
    targets = tuple(notes["targets"])
    if not all(isinstance(name, str) for name in targets):
        raise ValueError("targets are no names")
    n, m = len(inputs.columns), len(targets)
    longest = config.t if isinstance(config, MRNNConfig) else inputs.t
    if (n, m, inputs.t, inputs.unit) != (config.inputs, config.targets, longest, config.unit):
        raise ValueError("model, columns, targets, unit and t do not fit each other")
    shapes = {
        "standardiser": ((n,), (n,)),
        "calibration": ((m,), (m,)),
        "baseline": ((3,), (3,), (3, m), (m,)),
    }
    if config.unit == "frame":
        del shapes["baseline"]
    expected: dict[str, tuple[int, ...]] = {"label_mean": (m,)}
    if isinstance(config, MRNNConfig):
        expected["model.dense_weight"] = (config.t, config.width, config.dense)
    elif isinstance(config, StatConfig):
        columns = config.hidden or len(STATISTICS) * config.inputs
        expected["model.output_weight"] = (m, columns)
    for part, wanted in shapes.items():
        expected |= {f"{part}.{k}": shape for k, shape in zip(_ARRAYS[part], wanted, strict=True)}
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {shape}")
    if not (tensors["standardiser.sd"] > 0).all():
        raise ValueError("standardiser.sd is not positive")
    model = config.build()
    model.load_state_dict({k[6:]: t for k, t in tensors.items() if k.startswith("model.")})
    arrays = {
        part: {name: tensors[f"{part}.{name}"].numpy() for name in _ARRAYS[part]} for part in shapes
    }
    own = ("format", "weights_sha256", "targets", "model", "inputs")
    return TrainedHead(
        model=model,
        targets=targets,
        inputs=inputs,
        standardiser=Standardiser(**arrays["standardiser"]),
        calibration=Calibration(**arrays["calibration"]),
        label_mean=tensors["label_mean"].numpy(),
        baseline=LengthBaseline(**arrays["baseline"]) if "baseline" in arrays else None,
        notes={k: v for k, v in notes.items() if k not in own},
    )


def place(path: str, run: Path) -> dict[str, str]:
    """Note where a file of a run lies, so that `find_again` finds it from anywhere.

    Parameters
    ----------
    path : str
        Relative to the working directory, absolute, or an address with ``://``.
    run : Path
        The run folder.

    Returns
    -------
    dict
        ``path``, absolute; ``relative`` to the run folder, for a project that moves as a whole.
    """
    if "://" in path:
        return {"path": path}
    absolute = os.path.abspath(path)
    return {"path": absolute, "relative": os.path.relpath(absolute, run)}


def find_again(noted: Mapping[str, Any], run: Path) -> str:
    """Find what `place` noted: where it was, else where it lies as seen from the run folder."""
    path, relative = str(noted["path"]), noted.get("relative")
    if "://" in path or Path(path).exists() or not isinstance(relative, str):
        return path
    moved = os.path.normpath(run / relative)
    return moved if Path(moved).exists() else path


def new_run(runs: Path, name: str) -> Path:
    """Make a run folder of this name, or with a number behind it where that exists.

    Raises
    ------
    HeadError
        It cannot be made.
    """
    with disk_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            run = runs / (name if number == 1 else f"{name}-{number}")
            try:
                run.mkdir()
            except FileExistsError:
                continue
            return run
    raise HeadError(f"{runs} holds too many runs called {name}")


def find_run(run: Path | None, runs: Path) -> Path:
    """Find a run by its folder, or by its name below `runs`; without either, the newest.

    Raises
    ------
    HeadError
        None is named, and there is none.
    """
    if run is None:
        return latest_run(runs)
    return runs / run if not run.exists() and (runs / run).is_dir() else run


def latest_run(runs: Path) -> Path:
    """Find the finished run whose training ended last.

    Raises
    ------
    HeadError
        There is none.
    """
    finished, others = [], []
    for path in sorted(runs.glob(f"*/{HEAD_JSON}")):
        try:
            notes = read_json(path)
        except HeadError:
            notes = {}
        if notes.get("format") in _FORMATS:
            # Without a time of its end a run counts as the oldest.
            finished.append((str(notes.get("ended") or ""), path.parent.name, path.parent))
        else:
            others.append(path.parent.name)
    if not finished:
        unusable = f" (the head of {', '.join(others)} cannot be read)" if others else ""
        raise HeadError(
            f"there is no finished run in {runs}{unusable}; `feie train-head` makes one, "
            f"--run names one that is elsewhere"
        )
    return max(finished)[2]
