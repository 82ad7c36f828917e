"""JSON and safetensors files of runs, and one clear error for each fault.

torch is loaded only by those who read or write tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feie.features import files
from feie.features.errors import HeadError
from feie.features.files import file_sha256, write_whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "disk_errors",
    "file_sha256",
    "load_tensors",
    "read_json",
    "save_tensors",
    "write_atomically",
    "write_json",
]


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
    """Replace a file of a run as a whole; see `feie.features.files.write_whole`.

    Raises
    ------
    HeadError
        It cannot be written.
    """
    with disk_errors(path):
        write_whole(path, data)


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
        return files.read_json(path)
    except FileNotFoundError:
        raise HeadError(f"there is no {path}") from None
    except (OSError, ValueError) as error:
        raise HeadError(f"{path} cannot be read: {error}") from None


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> str:
    """Write tensors, with JSON notes in the same file, atomically; gives the file's SHA-256."""
    from safetensors.torch import save

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
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = files.json_object((file.metadata() or {}).get("notes", "{}"))
    except FileNotFoundError:
        raise HeadError(f"there is no {path}") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise HeadError(f"{path} cannot be read: {error}") from None
    return tensors, notes
