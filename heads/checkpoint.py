"""Run folders: heads and half-done trainings on the disk, as safetensors and JSON."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from feie.features.errors import HeadError
from feie.heads.baselines import LengthBaseline
from feie.heads.head import Calibration, Head
from feie.heads.inputs import InputConfig, Standardiser
from feie.heads.mrnn import MRNN, MRNNConfig

FORMAT = "feie-head/1"
HEAD_WEIGHTS, HEAD_JSON, STATE = "head.safetensors", "head.json", "state.safetensors"
_ARRAYS = {
    "standardiser": ("mean", "sd"),
    "calibration": ("slope", "offset"),
    "baseline": ("mean", "sd", "weights", "offset"),
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or vanished disk into one clear error.

    Raises
    ------
    HeadError
    """
    try:
        yield
    except OSError as error:
        raise HeadError(f"cannot write {path}: {error.strerror or error}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a kill or a full disk leaves the old one.

    Raises
    ------
    HeadError
        It cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with disk_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people and programs; see `write_atomically`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a run.

    Raises
    ------
    HeadError
        It is not there, or no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HeadError(f"there is no {path}") from None
    except (OSError, ValueError) as error:
        raise HeadError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise HeadError(f"{path} holds no JSON object")
    return content


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write tensors, with JSON notes in the same file, atomically."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(whole, {"notes": json.dumps(notes)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises
    ------
    HeadError
        It is not there, or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
    except FileNotFoundError:
        raise HeadError(f"there is no {path}") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise HeadError(f"{path} cannot be read: {error}") from None
    return tensors, notes


def save_head(head: Head, run: Path) -> None:
    """Write a head into a run folder; `head.json`, written last, marks the run as finished."""
    tensors = {f"model.{n}": p.detach() for n, p in head.model.named_parameters()}
    tensors["label_mean"] = torch.from_numpy(head.label_mean)
    for part, names in _ARRAYS.items():
        for name in names:
            tensors[f"{part}.{name}"] = torch.from_numpy(
                np.ascontiguousarray(getattr(getattr(head, part), name))
            )
    save_tensors(run / HEAD_WEIGHTS, tensors, {"format": FORMAT})
    write_json(
        run / HEAD_JSON,
        {
            "format": FORMAT,
            "targets": list(head.targets),
            "model": head.model.config.model_dump(mode="json"),
            "inputs": head.inputs.model_dump(mode="json"),
            **head.notes,
        },
    )


def load_head(run: Path) -> Head:
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
    if notes.get("format") != FORMAT:
        raise HeadError(
            f"{run / HEAD_JSON} has format {notes.get('format')!r}, this feie reads {FORMAT!r}; "
            f"use the feie that made it or train again"
        )
    tensors, _ = load_tensors(run / HEAD_WEIGHTS)
    try:
        model = MRNN(MRNNConfig.model_validate(notes["model"]))
        weights = {n[6:]: t for n, t in tensors.items() if n.startswith("model.")}
        model.load_state_dict(weights)
        arrays = {
            part: {name: tensors[f"{part}.{name}"].numpy() for name in names}
            for part, names in _ARRAYS.items()
        }
        return Head(
            model=model,
            targets=tuple(notes["targets"]),
            inputs=InputConfig.model_validate(notes["inputs"]),
            standardiser=Standardiser(**arrays["standardiser"]),
            calibration=Calibration(**arrays["calibration"]),
            label_mean=tensors["label_mean"].numpy(),
            baseline=LengthBaseline(**arrays["baseline"]),
            notes={
                k: v for k, v in notes.items() if k not in ("format", "targets", "model", "inputs")
            },
        )
    except (KeyError, RuntimeError, ValidationError) as error:
        raise HeadError(f"{run} holds a damaged head: {error}") from None


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


def latest_run(runs: Path) -> Path:
    """Find the finished run whose training ended last.

    Raises
    ------
    HeadError
        There is none.
    """
    finished = [path.parent for path in runs.glob(f"*/{HEAD_JSON}")]
    if not finished:
        raise HeadError(
            f"there is no finished run in {runs}; `feie train-head` makes one, "
            f"--run names one that is elsewhere"
        )
    return max(finished, key=lambda run: (str(read_json(run / HEAD_JSON).get("ended")), run.name))
