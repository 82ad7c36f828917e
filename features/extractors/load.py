"""Extractors: the frozen models that turn aligned faces into affect vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import as_file, files
from os.path import expanduser
from pathlib import Path
from typing import Any

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
from feie.features.extractors.base import Extraction, Extractor, check_faces
from feie.features.extractors.onnx.description import builtin, builtin_names, read_description
from feie.features.extractors.onnx.extractor import OnnxExtractor
from feie.features.extractors.plugin import PluginExtractor
from feie.features.faces.bundled import FETCHED
from feie.features.faces.crop import ALIGNED
from feie.features.mma.augment import resample
from feie.features.mma.network import MMANetwork, affect_from_raw, channels_last
from feie.features.mma.weights import LoadedWeights, load_weights
from feie.features.plugins import find_plugin, plugin_names

__all__ = ["Extraction", "Extractor", "MMAExtractor", "bundled", "bundled_sha256", "load_extractor"]


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

    crop = ALIGNED

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
        # Stores made before there was a choice do not say: what is exact is not named.
        self.extra: Mapping[str, Any] = (
            {"precision": precision} if precision != "fp32" else {}
        ) | ({"compiled": "yes"} if compiled else {})
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
        check_faces(self.name, faces, self.crop.size)
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
    folder = files("feie.features.extractors.weights")
    return sorted(
        Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".safetensors")
    )


def bundled_sha256(name: str) -> str:
    """Hex digest that bundled weights had when feie was packed; ``sha256.json`` beside them."""
    text = (
        files("feie.features.extractors.weights")
        .joinpath("sha256.json")
        .read_text(encoding="utf-8")
    )
    return str(json.loads(text)[name])


def load_extractor(
    spec: str = "mma-lite",
    device: str = "cpu",
    precision: Precision = "fp32",
    compiled: bool = False,
    weights: Path | None = None,
) -> Extractor:
    """Load an extractor.

    The default, fp32 on a CPU, is the reference. Measured there on 568 faces, bf16 moves a number
    by 0.0004 on average and 0.014 at most (none of the faces gets another expression), compilation
    by less than 1e-6. On a GPU, fp32 has PyTorch's usual TF32 in its convolutions.

    Parameters
    ----------
    spec : str
        The name of bundled weights; the path of a ``.safetensors`` file of an MMA; a network of
        others that feie describes, such as ``mt-emotieffnet``; the path of a ``.json`` file that
        describes an ONNX network; what an installed package offers as entry point
        ``feie.extractors``; or ``FILE.py:NAME``, code that is run because it is named here.
    device : str
        A torch device, e.g. ``cpu`` or ``cuda:0``; ``auto`` is ``cuda`` where one is usable,
        else ``cpu``.
    precision, compiled
        Of an MMA, see `MMAExtractor`.
    weights : Path, optional
        Of an ONNX network or of code of others, where they are not in their usual place.

    Raises
    ------
    MissingWeightsError
        Nothing of that name, or its weights are not there.
    DataError
        A file that holds no weights of an MMA.
    UsageError
        A device that is unknown, or that this machine lacks, or fp16 on a CPU, or no compiler; a
        network that is not as it is described; code that does not run.
    """
    if spec in bundled() or spec.endswith(".safetensors"):
        if weights is not None:
            raise UsageError(f"{spec} is all there is to load: leave out --weights")
        return _mma(spec, device, precision, compiled)
    if precision != "fp32" or compiled:
        raise UsageError(f"{spec} runs in its own arithmetic: leave out --precision and --compile")
    if spec in builtin_names() or spec.endswith(".json"):
        return _onnx(spec, device, weights)
    if (plugin := find_plugin(spec, "feie.extractors")) is not None:
        return PluginExtractor(plugin, str(pick_device(device)), weights)
    if spec.endswith(".onnx"):
        raise UsageError(
            f"{spec} does not say what goes in and what comes out: describe it in a .json file "
            "(docs/extending.md), or name it with --weights beside --extractor mt-emotieffnet "
            "and the like"
        )
    known = ", ".join([*bundled(), *builtin_names(), *plugin_names("feie.extractors")])
    raise MissingWeightsError(
        f"no extractor {spec!r}: give a name ({known}), the path of a .safetensors file, of a "
        ".json file that describes an ONNX network, or FILE.py:NAME"
    )


def _mma(spec: str, device: str, precision: Precision, compiled: bool) -> MMAExtractor:
    if spec in bundled():
        with as_file(
            files("feie.features.extractors.weights").joinpath(f"{spec}.safetensors")
        ) as path:
            weights = load_weights(path)
    else:
        weights = load_weights(Path(spec))
    chosen = pick_device(device)
    check_precision(precision, chosen)
    if compiled:
        check_compiler(chosen)
    return MMAExtractor(weights, chosen, precision, compiled)


def _onnx(spec: str, device: str, weights: Path | None) -> OnnxExtractor:
    """Load a network that feie or a file describes, from beside that file or where it belongs."""
    if spec.endswith(".json"):
        path = Path(expanduser(spec))
        description, folder, cure = read_description(path), path.parent, "put it there"
    else:
        description, folder = builtin(spec), Path(expanduser(FETCHED))
        cure = f"`feie models fetch {spec}` puts it there"
    if weights is None and description.file is None:
        raise UsageError(f"{spec} names no file: say with --weights where the ONNX file is")
    path = weights or folder / str(description.file)
    if not path.is_file():
        raise MissingWeightsError(f"there is no {path}; {cure}, or name the file with --weights")
    return OnnxExtractor(path, description, device)
