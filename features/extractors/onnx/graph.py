"""Reading an ONNX file with suspicion, and holding its graph against a description."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.extractors.onnx.description import Description

_LARGEST = 1 << 30  # bytes; a protobuf ends at twice that, face networks at a quarter
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Operators that onnxruntime has built in; no library of other operators is ever loaded."""


@dataclass(frozen=True)
class Signature:
    """What of a graph is run.

    Attributes
    ----------
    model : bytes
        The graph, with the embedding among its outputs.
    sha256 : str
        Of the file.
    input : str
        Name of the input.
    half : bool
        The input is float16, not float32.
    batch : int or None
        Faces in one call, where the graph takes one number only.
    outputs : tuple of str
        The tensor that each group is taken from.
    embedding : str or None
        The tensor that the embedding is taken from.
    """

    model: bytes
    sha256: str
    input: str
    half: bool
    batch: int | None
    outputs: tuple[str, ...]
    embedding: str | None


def read_graph(path: Path, description: Description) -> Signature:
    """Read an ONNX file, and check its names and shapes against a description.

    Parameters
    ----------
    path : Path
        A file that holds everything: weights in further files are refused, whatever their paths.
    description : Description

    Raises
    ------
    MissingWeightsError
        There is no such file.
    UsageError
        It is too large, another file than the description's, no ONNX model, not self-contained,
        in need of operators that onnxruntime lacks, or of another signature.
    """
    content = _read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if description.sha256 not in (None, sha256):
        raise UsageError(
            f"{path} has sha256 {sha256}, its description wants {description.sha256}: it is "
            "another file than the one that was described"
        )
    model = _parse(path, content)
    graph = model.graph
    _refuse_outside(path, model)
    constants = {tensor.name for tensor in graph.initializer}
    given = _chosen(
        path, "input", [i for i in graph.input if i.name not in constants], description.input.name
    )
    half, batch = _check_input(path, given, description)
    outputs = []
    for group in description.groups:
        value = _chosen(path, "output", graph.output, group.output)
        _check_output(path, value, group.name, len(group.columns), group.at)
        outputs.append(value.name)
    embedding = None
    if description.embedding is not None:
        embedding = description.embedding.tensor or _feeds_last(path, graph, outputs[0])
        if embedding not in {value.name for value in graph.output}:
            _expose(path, graph, embedding)
    return Signature(
        model=model.SerializeToString(),
        sha256=sha256,
        input=given.name,
        half=half,
        batch=batch,
        outputs=tuple(outputs),
        embedding=embedding,
    )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path} is larger than {_LARGEST >> 30} GiB: no network of faces is")
        return path.read_bytes()
    except FileNotFoundError:
        raise MissingWeightsError(
            f"there is no {path}; put the ONNX file there, or name it with --weights"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _parse(path: Path, content: bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise UsageError(f"{path} is damaged or no ONNX model; copy it anew") from error
    if not model.graph.node:
        raise UsageError(f"{path} is no ONNX model, or an empty one")
    return model


def _refuse_outside(path: Path, model: Any) -> None:
    """Refuse whatever lies outside the file: weights in other files, operators of others."""
    known = _DOMAINS | {function.domain for function in model.functions}
    for owner in (model.graph, *model.functions):
        for node in _nodes(owner):
            if node.domain not in known:
                raise UsageError(
                    f"{path} needs the operator {node.op_type} of {node.domain!r}, which "
                    "onnxruntime does not have; libraries of operators are never loaded"
                )
        if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(owner)):
            raise UsageError(
                f"{path} keeps weights in other files, which are never read; save it as one file, "
                "with onnx.save(onnx.load(FILE), NEW)"
            )


def _nodes(owner: Any) -> Iterator[Any]:
    """Nodes of a graph or function, and of the graphs inside its nodes."""
    for node in owner.node:
        yield node
        for graph in _inner(node):
            yield from _nodes(graph)


def _inner(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(owner: Any) -> Iterator[Any]:
    """Constant tensors, wherever they hide."""
    yield from getattr(owner, "initializer", ())
    for sparse in getattr(owner, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in owner.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
        for graph in _inner(node):
            yield from _tensors(graph)


def _chosen(path: Path, what: str, values: Sequence[Any], name: str | None) -> Any:
    """Find an input or output by its name, or the only one there is."""
    names = [value.name for value in values]
    if name is None and len(values) == 1:
        return values[0]
    if name is None:
        raise UsageError(f"{path} has {len(names)} {what}s ({', '.join(names)}): name the one")
    if name not in names:
        raise UsageError(f"{path} has no {what} {name!r}; it has {', '.join(names)}")
    return values[names.index(name)]


def _shape(value: Any) -> list[int | None] | None:
    """Sides of a tensor, None where they are free; None where the graph does not say any."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return [d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim]


def _check_input(path: Path, value: Any, description: Description) -> tuple[bool, int | None]:
    """Give whether the input is float16, and the number of faces that it insists on."""
    import onnx

    wanted = description.input
    kind = value.type.tensor_type.elem_type
    if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        raise UsageError(
            f"{path} takes {onnx.TensorProto.DataType.Name(kind)} as {value.name!r}; feie gives "
            "float32 or float16"
        )
    image = [wanted.channels, wanted.size, wanted.size]
    if wanted.layout == "NHWC":
        image = [*image[1:], image[0]]
    shape = _shape(value) or [None] * 4
    if len(shape) != 4 or any(s not in (None, w) for s, w in zip(shape[1:], image, strict=True)):
        raise UsageError(
            f"{path} takes {value.name!r} of shape {_written(shape)}, its description says "
            f"{_written([None, *image])} ({wanted.layout})"
        )
    if shape[0] is not None and description.batch not in (None, shape[0]):
        raise UsageError(
            f"{path} takes batches of {shape[0]}, its description says {description.batch}: leave "
            "out batch"
        )
    return kind == onnx.TensorProto.FLOAT16, shape[0]


def _check_output(
    path: Path, value: Any, group: str, columns: int, at: tuple[int, ...] | None
) -> None:
    shape = _shape(value)
    if shape is None or len(shape) < 2 or shape[1] is None:
        return  # what comes out at load will tell
    check_width(f"{path}: output {value.name!r}", shape[1], group, columns, at)


def check_width(
    output: str, width: int, group: str, columns: int, at: tuple[int, ...] | None
) -> None:
    """Refuse places that an output does not have.

    Raises
    ------
    UsageError
        The output is narrower than the group needs, or, without places, not just as wide.
    """
    if at is None and width != columns:
        raise UsageError(
            f"{output} has {width} numbers a face, group {group!r} has {columns} columns: say "
            "with 'at' which of them they are"
        )
    if at is not None and max(at) >= width:
        raise UsageError(
            f"{output} has {width} numbers a face, group {group!r} wants place {max(at)}, "
            "counted from 0"
        )


def _feeds_last(path: Path, graph: Any, output: str) -> str:
    """Find the tensor that feeds the last layer of an output: Gemm, or MatMul and Add."""
    made = [node for node in graph.node if node.op_type != "Constant"]
    makers = {name: node for node in made for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type not in ("Gemm", "MatMul"):
        before = [name for name in node.input if name in makers]
        node = makers[before[0]] if len(before) == 1 else None
    if node is None:
        raise UsageError(
            f"{path}: no Gemm or MatMul makes the output {output!r}, so what feeds it is not "
            "known; name a tensor as the embedding, or leave the embedding out"
        )
    return str(node.input[0])


def _expose(path: Path, graph: Any, tensor: str) -> None:
    """Make a tensor inside a graph one of its outputs."""
    import onnx

    if not any(tensor in node.output for node in graph.node):
        raise UsageError(f"{path} has no tensor {tensor!r} to keep as the embedding")
    graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))


def _written(shape: Sequence[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape)
