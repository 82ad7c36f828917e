"""Weights of an MMA as one safetensors file that says itself what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from feie.features.errors import DataError, MissingWeightsError
from feie.features.files import file_sha256, write_whole
from feie.features.mma.network import MMANetwork, NetworkConfig

FORMAT = "feie-mma-1"

_SMALLEST, _LARGEST = 32, 112  # sides in pixels, as PhaseConfig allows them


@dataclass(frozen=True)
class LoadedWeights:
    """A network in evaluation mode.

    Attributes
    ----------
    name, sha256 : str
        Name of the extractor, and hex digest of the file.
    size : int
        Side in pixels to which 112x112 faces are scaled before the network sees them: that of
        its last phase of training.
    network : MMANetwork
        In evaluation mode, without gradients.
    """

    name: str
    sha256: str
    size: int
    network: MMANetwork


def save_weights(
    path: Path, name: str, network: MMANetwork, size: int, notes: dict[str, str]
) -> None:
    """Write weights atomically; kernels and matrices as float16, the rest as float32.

    Parameters
    ----------
    path : Path
        The ``.safetensors`` file.
    name : str
        Name of the extractor.
    network : MMANetwork
        Weights and configuration.
    size : int
        Side in pixels of the images that the network was trained on last.
    notes : dict of str to str
        More metadata, e.g. the training configuration.
    """
    tensors = {}
    for key, value in network.state_dict().items():
        stored = value.half().cpu() if value.ndim > 1 else value.cpu()
        tensors[key] = stored.contiguous()
    metadata = notes | {
        "format": FORMAT,
        "name": name,
        "network": network.config.model_dump_json(),
        "columns": json.dumps(network.config.outputs.columns),
        "groups": json.dumps(network.config.outputs.groups),
        "size": str(size),
        "input": "112x112 RGB, ArcFace template, resampled to size, scaled to [-1, 1]",
    }
    write_whole(path, _ordered(save(tensors, metadata)))


def _ordered(content: bytes) -> bytes:
    """Put the metadata, which safetensors writes in random order, in order of their names."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors behind it start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_weights(path: Path) -> LoadedWeights:
    """Read a network from its weights.

    Raises
    ------
    MissingWeightsError
        No such file.
    DataError
        Not weights of an MMA, or damaged, or not finite.
    """
    if not path.is_file():
        raise MissingWeightsError(
            f"no weights at {path}: give the path of a .safetensors file that train-mma wrote, "
            "or the name of bundled weights"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is no readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path} holds no MMA weights (its metadata lack format {FORMAT})")
    try:
        network = MMANetwork(NetworkConfig.model_validate_json(metadata["network"]))
        columns = json.loads(metadata["columns"])
        if columns != list(network.config.outputs.columns):
            raise ValueError(f"its columns {columns} are not the outputs of its network")
        network.load_state_dict(tensors)
        size = int(metadata["size"])
        if not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"size {size} is outside [{_SMALLEST}, {_LARGEST}]")
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            raise ValueError("some weights are not finite")
    except (KeyError, ValueError, ValidationError, RuntimeError) as error:
        raise DataError(f"{path} is damaged: its network cannot be rebuilt ({error})") from error
    network.eval().requires_grad_(False)
    return LoadedWeights(metadata.get("name", path.stem), file_sha256(path), size, network)
