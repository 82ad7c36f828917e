"""An ONNX network as an extractor: preprocessing, batches, output functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.devices import pick_device
from feie.features.errors import EngineError, UsageError
from feie.features.extractors.base import Extraction, check_faces
from feie.features.extractors.onnx.description import Activation, Description, InputPart
from feie.features.extractors.onnx.graph import check_width, read_graph
from feie.features.faces.scrfd import onnx_providers

_PROBES = 3  # faces tried at load
_SAME = 1e-3  # of the size of an output: more than arithmetic in another order does


class OnnxExtractor:
    """An ONNX network that a `Description` describes.

    A network that takes any number of faces gets the whole batch at once; one of a fixed batch
    size, its own or the description's, gets batches of that size, the last one padded. In batches
    of one fixed size the result of a face depends neither on its neighbours nor on its place. A
    graph where it does, such as one that scales by the largest value of its batch, is refused at
    load unless it is told to take one face at a time.

    Parameters
    ----------
    path : Path
        The ONNX file.
    description : Description
    device : str
        ``cpu``, ``cuda:N`` or ``auto``. CUDA needs the package onnxruntime-gpu.

    Raises
    ------
    MissingWeightsError, UsageError
        See `graph.read_graph`; besides, a device that onnxruntime does not have, and a network
        that does not run, or gives what was not described.
    """

    def __init__(self, path: Path, description: Description, device: str = "cpu") -> None:
        self._signature = read_graph(path, description)
        self._description = description
        self._where = str(path)
        self.name = description.name
        self.sha256 = self._signature.sha256
        self.schema = description.schema_of_columns()
        self.crop = description.seen()
        self.extra: Mapping[str, Any] = description.provenance()
        self._session, self.device = _session(self._where, self._signature.model, device)
        # onnxruntime's sessions may be shared; a GPU works through one batch after another anyway.
        self.concurrent = self.device == "cpu"
        self._batch = self._signature.batch or description.batch
        wanted = (*self._signature.outputs, self._signature.embedding)
        self._names = [name for name in dict.fromkeys(wanted) if name is not None]
        self.embedding_dim = self._try()

    def __call__(self, faces: NDArray[np.uint8]) -> Extraction:
        """Compute affect vectors and embeddings of a batch.

        Parameters
        ----------
        faces : ndarray (b, size, size, 3) uint8
            RGB faces, cut as `crop` says; b may be 0.

        Raises
        ------
        UsageError
            Another shape or type.
        EngineError
            The network gives what is not finite.
        """
        check_faces(self.name, faces, self.crop.size)
        affect = np.empty((len(faces), len(self.schema)), np.float32)
        embedding = np.empty((len(faces), self.embedding_dim), np.float16)
        step = self._batch or max(len(faces), 1)
        for start in range(0, len(faces), step):
            batch = faces[start : start + step]
            found = self._run(batch)
            rows = slice(start, start + len(batch))
            affect[rows] = self._columns(found)
            if self.embedding_dim:
                embedding[rows] = self._embedding(found)
        if not np.isfinite(affect).all():
            raise EngineError(f"{self._where} gives numbers that are not finite: it cannot be used")
        return Extraction(affect, embedding if self.embedding_dim else None)

    def _run(self, faces: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the network once; outputs by name, of shape (b, numbers)."""
        count = len(faces)
        if self._batch is not None and count < self._batch:
            padding = np.zeros((self._batch - count, *faces.shape[1:]), np.uint8)
            faces = np.concatenate([faces, padding])
        x = prepared(faces, self._description.input)
        given = {self._signature.input: x.astype(np.float16) if self._signature.half else x}
        results = dict(zip(self._names, self._session.run(self._names, given), strict=True))
        for name, values in results.items():
            if values.ndim < 2 or len(values) != len(faces) or values.dtype.kind != "f":
                raise UsageError(
                    f"{self._where}: {name!r} has shape {values.shape} and type {values.dtype} "
                    f"for {len(faces)} faces; it should be numbers with one row a face"
                )
            results[name] = values.reshape(len(faces), -1)[:count].astype(np.float32)
        return results

    def _columns(self, found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        parts = []
        for group, output in zip(self._description.groups, self._signature.outputs, strict=True):
            values = found[output]
            if group.at is not None:
                values = values[:, list(group.at)]
            parts.append(activated(values, group.activation))
        return np.concatenate(parts, axis=1)

    def _embedding(self, found: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float16]:
        assert self._signature.embedding is not None
        values = found[self._signature.embedding]
        if not (np.abs(values) <= np.finfo(np.float16).max).all():
            raise EngineError(
                f"the embedding of {self._where} does not fit float16; leave it out of the "
                "description"
            )
        return values.astype(np.float16)

    def _try(self) -> int:
        """Run the network on noise before any video is read; gives the embedding's width.

        Raises
        ------
        UsageError
            It does not run, gives what was not described, or mixes the faces of a batch.
        """
        rng = np.random.default_rng(0)
        side = self.crop.size
        faces = rng.integers(0, 64, (_PROBES, side, side, 3), np.uint8)
        bright = faces + np.uint8(192)
        # The same face among dark and among bright ones: what is scaled by the batch shows.
        faces[0] = bright[0] = faces[0] * 2 + 64
        count = min(self._batch or _PROBES, _PROBES)
        try:
            found, other = self._run(faces[:count]), self._run(bright[:count])
        except UsageError:
            raise
        except Exception as error:  # onnxruntime's own classes share no public base
            raise UsageError(f"{self._where} does not run: {_first_line(error)}") from error
        groups = zip(self._description.groups, self._signature.outputs, strict=True)
        for group, output in groups:
            said, width = f"{self._where}: output {output!r}", found[output].shape[1]
            check_width(said, width, group.name, len(group.columns), group.at)
        if not np.isfinite(self._columns(found)).all():
            raise UsageError(f"{self._where} gives numbers that are not finite: it cannot be used")
        for name in self._names:
            one, two = found[name][0], other[name][0]
            if np.abs(one - two).max() > _SAME * max(1.0, float(np.abs(one).max())):
                raise UsageError(
                    f"{self._where}: a face's {name!r} changes with the other faces of its batch; "
                    'add "batch": 1 to the description, or export it with a batch of one'
                )
        embedding = self._signature.embedding
        return 0 if embedding is None else found[embedding].shape[1]


def prepared(faces: NDArray[np.uint8], given: InputPart) -> NDArray[np.float32]:
    """Bring faces into the form that a network takes.

    Parameters
    ----------
    faces : ndarray (b, size, size, 3) uint8
        RGB; at least one.
    given : InputPart

    Returns
    -------
    ndarray float32
        (b, channels, size, size), or (b, size, size, channels) for the layout NHWC.
    """
    shape = faces.shape[:3]
    if given.colour == "grey":
        tall = faces.reshape(-1, shape[2], 3)
        faces = np.asarray(cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY), np.uint8).reshape(*shape, 1)
    elif given.colour == "BGR":
        faces = faces[..., ::-1]
    x = np.empty((shape[0], given.channels, *shape[1:]), np.float32)
    for c, becomes in enumerate(_table(given)):
        # OpenCV's table takes a quarter of the time of NumPy's indexing.
        channel = np.ascontiguousarray(faces[..., c]).reshape(-1, shape[2])
        x[:, c] = cv2.LUT(channel, becomes).reshape(shape)
    return x if given.layout == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _table(given: InputPart) -> NDArray[np.float32]:
    """Give what each pixel value becomes, rounded once; shape (channels, 256)."""
    low, high = given.range
    scaled = np.arange(256) / 255 * (high - low) + low
    values = (scaled - np.array(given.mean)[:, None]) / np.array(given.sd)[:, None]
    return np.ascontiguousarray(np.broadcast_to(values, (given.channels, 256)), np.float32)


def activated(values: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Apply an output function to a group, shape (b, columns), in float64 inside."""
    x = values.astype(np.float64)
    if activation == "tanh":
        x = np.tanh(x)
    elif activation == "sigmoid":
        x = 0.5 * (1 + np.tanh(0.5 * x))  # no exponential, no overflow
    elif activation == "softmax":
        with np.errstate(invalid="ignore"):  # infinite logits become NaN, which callers refuse
            e = np.exp(x - x.max(axis=1, keepdims=True))
        x = e / e.sum(axis=1, keepdims=True)
    return x.astype(np.float32)


def _session(where: str, model: bytes, device: str) -> tuple[Any, str]:
    """Start onnxruntime on a device; gives its session and the device that it runs on."""
    import onnxruntime

    chosen = pick_device(device)
    providers = onnx_providers(str(chosen)) if chosen.type == "cuda" else onnx_providers("cpu")
    if len(providers) == 1 and device != "auto" and chosen.type != "cpu":
        raise UsageError(
            f"onnxruntime cannot use {device!r} here: pip install onnxruntime-gpu in place of "
            "onnxruntime, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    # Stage one has a thread a core of its own; one within a call also fixes the order of sums.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's own classes share no public base
        raise UsageError(f"{where} cannot be loaded: {_first_line(error)}") from error
    if "CUDAExecutionProvider" in session.get_providers():
        return session, str(chosen)
    if len(providers) > 1 and device != "auto":
        raise UsageError(
            f"onnxruntime-gpu does not start on {device!r}: its CUDA libraries are missing or of "
            "another version; use --device cpu"
        )
    return session, "cpu"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
