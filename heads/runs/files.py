"""JSON and safetensors files that are whole or not there, and one clear error for each fault."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from feie.features.errors import HeadError


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


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> str:
    """Write tensors, with JSON notes in the same file, atomically; gives the file's SHA-256."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    data = save(whole, {"notes": json.dumps(notes)})
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


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
    if not isinstance(notes, dict):
        raise HeadError(f"{path} cannot be read: its notes are no JSON object")
    return tensors, notes


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
