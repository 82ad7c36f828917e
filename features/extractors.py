"""Extractors: the frozen models that turn aligned faces into affect vectors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.fusion import fuse_conv_bn_eval

from feie.features.devices import (
    Precision,
    autocast,
    check_compiler,
    check_precision,
    pick_device,
)
from feie.features.errors import MissingWeightsError, UsageError
from feie.features.mma.augment import resample
from feie.features.mma.network import MMANetwork, affect_from_raw, channels_last
from feie.features.mma.weights import LoadedWeights, load_weights
from feie.features.schema import Schema


@dataclass(frozen=True)
class Extraction:
    """What an extractor says about a batch of faces.

    Attributes
    ----------
    affect : ndarray (b, columns) float32
        One row a face, columns as in the extractor's schema.
    embedding : ndarray (b, d) float16 or None
        The shared embedding, where the extractor gives one.
    """

    affect: NDArray[np.float32]
    embedding: NDArray[np.float16] | None


class Extractor(Protocol):
    """A frozen per-frame model.

    Attributes
    ----------
    name : str
        Name that goes into the provenance of a store.
    sha256 : str
        Hex digest of the weight file.
    schema : Schema
        Columns of the affect vector.
    input_size : int
        Side of the aligned faces in pixels.
    embedding_dim : int
        Width of the embedding; 0 for none.
    device : str
        Where it runs, e.g. ``cpu`` or ``cuda``; never ``auto``.
    concurrent : bool
        Several threads may call it at the same time.
    """

    name: str
    sha256: str
    schema: Schema
    input_size: int
    embedding_dim: int
    device: str
    concurrent: bool

    def __call__(self, faces: NDArray[np.uint8]) -> Extraction:
        """Compute affect vectors of aligned RGB faces (b, 112, 112, 3) in [0, 255]."""


class MMAExtractor:
    """An MMA network as an extractor.

    Faces are scaled to [-1, 1] and to the size of its training inside. In batches of one fixed
    size the result of a face depends neither on its neighbours nor on its place (exactly so on
    a CPU).

    Parameters
    ----------
    weights : LoadedWeights
        Network, name and digest.
    device : torch.device
        Where it runs.
    precision : {"fp32", "bf16", "fp16"}
        Other than fp32, the network runs under autocast, on tensor cores where there are some;
        see `load_extractor` for what that does to the numbers.
    compiled : bool
        Let ``torch.compile`` make one kernel of several. Each batch size is compiled anew.
    """

    input_size = 112

    def __init__(
        self,
        weights: LoadedWeights,
        device: torch.device,
        precision: Precision = "fp32",
        compiled: bool = False,
    ) -> None:
        self.name = weights.name
        self.sha256 = weights.sha256
        self.schema = weights.network.config.outputs
        self.embedding_dim = weights.network.config.embedding
        self.device = str(device)
        self.concurrent = device.type == "cpu" and not compiled
        self._device = device
        self._precision: Precision = precision
        self._size = weights.size
        self._network = channels_last(_fuse(weights.network).to(device))
        if compiled:
            self._network.compile(dynamic=False)

    def __call__(self, faces: NDArray[np.uint8]) -> Extraction:
        """Compute affect vectors and embeddings of a batch.

        Parameters
        ----------
        faces : ndarray (b, 112, 112, 3) uint8
            Aligned RGB faces; b may be 0.

        Raises
        ------
        UsageError
            Another shape or type.
        """
        shape = (self.input_size, self.input_size, 3)
        if faces.ndim != 4 or faces.shape[1:] != shape or faces.dtype != np.uint8:
            raise UsageError(
                f"{self.name} takes uint8 faces of shape (b, {', '.join(map(str, shape))}), "
                f"not {faces.dtype} {faces.shape}"
            )
        if not len(faces):
            return Extraction(
                np.empty((0, len(self.schema)), np.float32),
                np.empty((0, self.embedding_dim), np.float16),
            )
        with torch.inference_mode():
            x = resample(torch.from_numpy(np.ascontiguousarray(faces)).to(self._device), self._size)
            with autocast(self._precision, self._device):
                embedding, raw = self._network(x)
            affect = affect_from_raw(raw.float(), self.schema)
        return Extraction(affect.cpu().numpy(), embedding.half().cpu().numpy())


def _fuse(network: MMANetwork) -> MMANetwork:
    """Fold every batch norm into the convolution before it: the same numbers, fewer passes."""
    for module in network.modules():
        if isinstance(module, torch.nn.Sequential) and len(module) == 2:
            convolution, norm = module[0], module[1]
            if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                module[0] = fuse_conv_bn_eval(convolution, norm)
                module[1] = torch.nn.Identity()
    return network


def bundled() -> list[str]:
    """Names of the weights that come with feie."""
    folder = files("feie.features.weights")
    return sorted(
        Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".safetensors")
    )


def bundled_sha256(name: str) -> str:
    """Hex digest that bundled weights had when feie was packed; ``sha256.json`` beside them."""
    text = files("feie.features.weights").joinpath("sha256.json").read_text(encoding="utf-8")
    return str(json.loads(text)[name])


def load_extractor(
    spec: str = "mma-lite",
    device: str = "cpu",
    precision: Precision = "fp32",
    compiled: bool = False,
) -> Extractor:
    """Load an extractor by the name of bundled weights or the path of a ``.safetensors`` file.

    The default, fp32 on a CPU, is the reference. Measured there on 576 faces, bf16 moves a number
    by 0.0006 on average and 0.016 at most (0.3 % of the faces get another expression), compilation
    by less than 1e-6. On a GPU, fp32 has PyTorch's usual TF32 in its convolutions.

    Parameters
    ----------
    spec : str
        ``mma-lite``, or a path.
    device : str
        A torch device, e.g. ``cpu`` or ``cuda:0``; ``auto`` is ``cuda`` where one is usable,
        else ``cpu``.
    precision, compiled
        See `MMAExtractor`.

    Raises
    ------
    MissingWeightsError
        Neither bundled nor a file.
    DataError
        A file that holds no weights of an MMA.
    UsageError
        A device that is unknown, or that this machine lacks, or fp16 on a CPU, or no compiler.
    """
    if spec in bundled():
        with as_file(files("feie.features.weights").joinpath(f"{spec}.safetensors")) as path:
            weights = load_weights(path)
    elif spec.endswith(".safetensors"):
        weights = load_weights(Path(spec))
    else:
        raise MissingWeightsError(
            f"no extractor {spec!r}: give a bundled name ({', '.join(bundled())}) "
            "or the path of a .safetensors file"
        )
    chosen = pick_device(device)
    check_precision(precision, chosen)
    if compiled:
        check_compiler(chosen)
    return MMAExtractor(weights, chosen, precision, compiled)
