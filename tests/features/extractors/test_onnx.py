"""ONNX extractors: small networks of the same signature as the real ones, and a real one."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import EngineError, MissingWeightsError, StoreMismatchError, UsageError
from feie.features.extractors.load import load_extractor
from feie.features.extractors.onnx import graph as graph_module
from feie.features.extractors.onnx.description import InputPart, builtin_names
from feie.features.extractors.onnx.extractor import activated, prepared
from feie.features.faces.crop import Crop
from feie.features.faces.detection import Faces
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.schema import VA_EXPR8
from feie.features.store.reader import open_store
from feie.features.video.sources import discover
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractOptions
from feie.pipeline.extractor import evaluate_mma
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaOptions
from feie.pipeline.machine import models

LOGITS = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
"""EmotiEffLib's order; valence and arousal follow."""
FER = "facial_expression_recognition_mobilefacenet_2022july_int8.onnx"
FER_COLUMNS = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]


def small(
    path: Path, size: int = 32, batch: int | str = "N", width: int = 10, layout: str = "NCHW",
    channels: int = 3, **changes: Any,
) -> tuple[Path, dict[str, NDArray[np.float32]]]:  # fmt: skip
    """A network of EmotiEffLib's signature: ``input`` to ten numbers by a last Gemm."""
    rng = np.random.default_rng(size)
    k = size // 4
    w = {
        "cw": rng.normal(size=(4, channels, k, k)) / k,
        "dw": rng.normal(size=(64, 6)) / 4,
        "ow": rng.normal(size=(width, 6)),
        "ob": rng.normal(size=width),
    }
    w = {name: value.astype(np.float32) for name, value in w.items()}
    w |= changes.pop("weights", {})
    image = [channels, size, size] if layout == "NCHW" else [size, size, channels]
    first = ["input"]
    nodes = []
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", first, ["x"], perm=[0, 3, 1, 2]))
        first = ["x"]
    if changes.pop("mixing", False):
        nodes.append(helper.make_node("ReduceMax", first, ["top"], keepdims=1))
        nodes.append(helper.make_node("Div", [*first, "top"], ["scaled"]))
        first = ["scaled"]
    nodes += [
        helper.make_node("Conv", [*first, "cw"], ["conv"], strides=[k, k]),
        helper.make_node("Flatten", ["conv"], ["flat"]),
        helper.make_node("MatMul", ["flat", "dw"], ["dense"]),
        helper.make_node("Tanh", ["dense"], ["features"]),
        helper.make_node("Gemm", ["features", "ow", "ob"], ["output"], transB=1),
        *changes.pop("nodes", []),
    ]
    kind = changes.pop("kind", TensorProto.FLOAT)
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, width])]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", kind, [batch, *image])],
        outputs + changes.pop("outputs", []),
        [numpy_helper.from_array(value, name) for name, value in w.items()],
    )
    assert not changes
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(made, opset_imports=imports, ir_version=8), path)
    return path, w


def by_hand(
    faces: NDArray[np.uint8], w: dict[str, NDArray[np.float32]], mean: Any, sd: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outputs and embeddings of `small`, slowly, in float64."""
    outputs, embeddings = [], []
    for face in faces:
        k = len(face) // 4
        flat = np.zeros((4, 4, 4))
        for c in range(4):
            for i in range(4):
                for j in range(4):
                    for channel in range(3):
                        patch = face[i * k : (i + 1) * k, j * k : (j + 1) * k, channel] / 255
                        x = (patch - mean[channel]) / sd[channel]
                        flat[c, i, j] += (x * w["cw"][c, channel].astype(float)).sum()
        embedding = np.tanh(flat.reshape(-1) @ w["dw"].astype(float))
        embeddings.append(embedding)
        outputs.append(w["ow"].astype(float) @ embedding + w["ob"])
    return np.array(outputs), np.array(embeddings)


def described(**changes: Any) -> dict[str, Any]:
    """A description of `small`."""
    return {
        "format": "feie-onnx/1",
        "name": "small",
        "file": "small.onnx",
        "input": {"size": 32},
        "groups": [{"name": "scores", "columns": [f"s{i}" for i in range(10)]}],
        **changes,
    }


def written(folder: Path, **changes: Any) -> str:
    path = folder / "small.json"
    path.write_text(json.dumps(described(**changes)))
    return str(path)


def noise(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize("colour", ["RGB", "BGR", "grey"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_preprocessing_equals_the_slow_formula(colour, layout):
    faces = noise(2, 16)
    many = (0.4,) if colour == "grey" else (0.485, 0.456, 0.406)
    given = InputPart(size=16, colour=colour, layout=layout, range=(-1, 3), mean=many, sd=(0.3,))
    got = prepared(faces, given)
    assert got.dtype == np.float32
    for face in range(2):
        for y in range(16):
            for x in range(16):
                r, g, b = (float(v) for v in faces[face, y, x])
                pixel = {"RGB": (r, g, b), "BGR": (b, g, r)}.get(colour)
                if pixel is None:
                    pixel = (round(0.299 * r + 0.587 * g + 0.114 * b),)
                for channel, value in enumerate(pixel):
                    want = (value / 255 * 4 - 1 - many[channel]) / 0.3
                    at = (face, channel, y, x) if layout == "NCHW" else (face, y, x, channel)
                    # OpenCV's grey is in fixed point: one step of 255 at most, at a rounding edge.
                    near = 4 / 255 / 0.3 if colour == "grey" else 0
                    assert abs(got[at] - want) <= near + 1e-6


def test_output_functions_are_stable_and_right():
    x = np.array([[0, 1, -2], [900, 0, -900]], np.float32)
    e = np.exp(x[0].astype(float))
    np.testing.assert_allclose(activated(x, "softmax"), [e / e.sum(), [1, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(activated(x, "sigmoid")[0], e / (1 + e), rtol=1e-6)
    np.testing.assert_array_equal(activated(x, "sigmoid")[1], [1, 0.5, 0])
    np.testing.assert_allclose(activated(x, "tanh")[0], np.tanh(x[0]), rtol=1e-6)
    np.testing.assert_array_equal(activated(x, "none"), x)


@pytest.mark.parametrize("name", builtin_names())
def test_emotiefflibs_networks_give_named_columns(name, tmp_path):
    half = "mobilefacenet" in name
    size, mean, sd = (
        (112, [0.5] * 3, [0.5] * 3) if half else (224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    path, w = small(tmp_path / "any.onnx", size)
    extractor = load_extractor(name, weights=path)
    assert extractor.crop == Crop("box", size)
    assert (extractor.name, extractor.schema, extractor.embedding_dim) == (name, VA_EXPR8, 6)
    faces = noise(3, size)
    got = extractor(faces)
    outputs, embeddings = by_hand(faces, w, mean, sd)
    columns = dict(zip(extractor.schema.columns, got.affect.T, strict=True))
    e = np.exp(outputs[:, :8])
    for place, label in enumerate(LOGITS):
        np.testing.assert_allclose(
            columns[label.lower()], (e / e.sum(1, keepdims=True))[:, place], atol=2e-5
        )
    np.testing.assert_allclose(columns["valence"], outputs[:, 8], atol=1e-4)
    np.testing.assert_allclose(columns["arousal"], outputs[:, 9], atol=1e-4)
    np.testing.assert_allclose(got.embedding, embeddings, atol=1e-3)


def test_they_are_looked_for_where_models_puts_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(MissingWeightsError, match=r"mbf_va_mtl\.onnx; `feie models fetch mt-mobil"):
        load_extractor("mt-mobilefacenet")
    path, _ = small(tmp_path / "downloaded.onnx", 112)
    add = models.ModelsOptions(action="add", name="mt-mobilefacenet", file=path)
    with pytest.raises(UsageError, match="--yes"):
        models.run(add)
    entry = models.run(add.model_copy(update={"yes": True})).models[0]
    assert (entry.use, [f.pinned for f in entry.files]) == ("--extractor mt-mobilefacenet", [None])
    extractor = load_extractor("mt-mobilefacenet")
    assert extractor.sha256 == entry.files[0].sha256
    with pytest.raises(UsageError, match="no file"):
        models.run(add.model_copy(update={"yes": True, "file": tmp_path / "none.onnx"}))
    # The makers' name of the file serves as well.
    by_file = models.run(models.ModelsOptions(action="list", name="mbf_va_mtl"))
    assert by_file.models == [entry]


class Fixed:
    """A detector that finds one face, always at the same place."""

    name, sha256, options = "fixed", "0" * 64, {}
    refresh = 0

    def __init__(self, box: tuple[float, ...]) -> None:
        self._box = box

    def detect(self, rgb: NDArray[np.uint8]) -> Faces:
        points = np.array([[30, 30], [60, 30], [45, 45], [33, 60], [57, 60]], np.float32)
        return Faces(np.array([self._box], np.float32), np.ones(1, np.float32), points[None])

    def detect_many(self, images):
        return [self.detect(image) for image in images]

    def follow(self, rgb, box):
        return Faces.none()


@pytest.mark.parametrize(
    ("box", "margin", "window"),
    [
        ((20.4, 10.6, 70.2, 79.5), 0.0, (20, 11, 70, 80)),
        ((20.0, 10.0, 60.0, 70.0), 0.25, (10, 0, 70, 85)),
        ((-30.0, -5.0, 50.0, 400.0), 0.0, (0, 0, 50, 90)),
        ((500.0, 20.0, 540.0, 60.0), 0.0, (119, 20, 120, 60)),
    ],
)
def test_a_box_is_cut_at_the_frame_and_stretched(tmp_path, box, margin, window):
    image = noise(1, 120)[0][:90]
    folder = tmp_path / "v" / "clip"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "00001.png"), image[..., ::-1])
    source = discover(tmp_path / "v").sources[0]
    options = FaceOptions(faces="detect", crop=Crop("box", 48, margin))
    with FaceStream(source, options, Fixed(box)) as stream:
        chunk = next(iter(stream))
    x0, y0, x1, y1 = window
    want = cv2.resize(image[y0:y1, x0:x1], (48, 48), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(chunk.aligned, want[None])
    np.testing.assert_array_equal(chunk.bbox[0], np.float32(box))


def test_an_aligned_crop_may_have_another_size(tmp_path):
    folder = tmp_path / "v" / "clip"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "00001.png"), cv2.GaussianBlur(noise(1, 112)[0], (0, 0), 4))
    source = discover(tmp_path / "v").sources[0]
    box = (20.0, 20.0, 70.0, 70.0)
    found = {}
    for size in (112, 224):
        options = FaceOptions(faces="detect", crop=Crop(size=size))
        with FaceStream(source, options, Fixed(box)) as stream:
            found[size] = next(iter(stream)).aligned[0]
    half = found[224].reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert np.abs(half - found[112]).mean() < 2
    with FaceStream(source, FaceOptions(crop=Crop("box", 56))) as stream:  # a crop already
        assert (stream.mode, next(iter(stream)).aligned.shape) == ("aligned", (1, 56, 56, 3))


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batches_give_what_free_ones_give(batch, tmp_path):
    small(tmp_path / "small.onnx")
    free = load_extractor(written(tmp_path))
    faces = noise(10, 32)
    want = free(faces).affect
    small(tmp_path / "fixed.onnx", batch=batch)
    fixed = load_extractor(written(tmp_path, file="fixed.onnx"))
    np.testing.assert_allclose(fixed(faces).affect, want, atol=1e-5)
    chosen = load_extractor(written(tmp_path, batch=batch))
    np.testing.assert_array_equal(chosen(faces).affect, fixed(faces).affect)
    assert fixed(faces[:0]).affect.shape == free(faces[:0]).affect.shape == (0, 10)


@pytest.mark.parametrize("batch", ["N", 4])
def test_neighbours_and_places_do_not_change_a_bit(batch, tmp_path):
    """In batches of one size on a CPU, as stage one makes them; across sizes within 1e-5."""
    small(tmp_path / "small.onnx", batch=batch)
    extractor = load_extractor(written(tmp_path))
    faces, order = noise(64, 32), np.random.default_rng(1).permutation(64)
    want = extractor(faces).affect
    np.testing.assert_array_equal(extractor(faces[order]).affect, want[order])
    others = noise(64, 32, seed=2)
    others[17] = faces[5]
    np.testing.assert_array_equal(extractor(others).affect[17], want[5])
    for some in (1, 3):
        np.testing.assert_allclose(extractor(faces[:some]).affect, want[:some], atol=1e-5)


def test_a_network_that_mixes_a_batch_takes_one_face_at_a_time(tmp_path):
    small(tmp_path / "small.onnx", mixing=True)
    with pytest.raises(UsageError, match=r'changes with the other faces of its batch; add "batch"'):
        load_extractor(written(tmp_path))
    extractor = load_extractor(written(tmp_path, batch=1))
    faces = noise(5, 32) // np.arange(1, 6, dtype=np.uint8)[:, None, None, None]
    one_by_one = np.concatenate([extractor(face[None]).affect for face in faces])
    np.testing.assert_array_equal(extractor(faces).affect, one_by_one)


def test_other_signatures(tmp_path):
    """Channels last, grey, float16, several outputs and groups, inner tensors."""
    faces = noise(4, 32)
    small(tmp_path / "small.onnx")
    want = load_extractor(written(tmp_path))(faces).affect
    small(tmp_path / "last.onnx", layout="NHWC")
    got = load_extractor(written(tmp_path, file="last.onnx", input={"size": 32, "layout": "NHWC"}))
    np.testing.assert_allclose(got(faces).affect, want, atol=1e-6)
    small(tmp_path / "grey.onnx", channels=1)
    grey = written(tmp_path, file="grey.onnx", input={"size": 32, "colour": "grey", "mean": [0.5]})
    assert load_extractor(grey)(faces).affect.shape == (4, 10)
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["N", 64])
    small(tmp_path / "two.onnx", outputs=[flat])
    groups = [
        {"name": "first", "columns": ["a", "b"], "output": "output", "at": [9, 0]},
        {"name": "rest", "columns": ["c"], "output": "output", "at": [4], "activation": "tanh"},
        {"name": "flat", "columns": [f"f{i}" for i in range(64)], "output": "flat"},
    ]
    two = load_extractor(
        written(tmp_path, file="two.onnx", groups=groups, embedding={"tensor": "conv"})
    )
    assert dict(two.schema.groups) == {"first": (0, 2), "rest": (2, 3), "flat": (3, 67)}
    got = two(faces)
    np.testing.assert_allclose(got.affect[:, :2], want[:, [9, 0]], atol=1e-6)
    np.testing.assert_allclose(got.affect[:, 2], np.tanh(want[:, 4]), atol=1e-6)
    assert two.embedding_dim == 64
    np.testing.assert_allclose(got.embedding, got.affect[:, 3:], atol=1e-2)
    own = load_extractor(written(tmp_path, embedding={"tensor": "output"}))(faces)
    np.testing.assert_allclose(own.embedding, own.affect, atol=1e-2)
    half = {n: v.astype(np.float16) for n, v in small(tmp_path / "x.onnx")[1].items()}
    path, _ = small(tmp_path / "half.onnx", weights=half, kind=TensorProto.FLOAT16)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    got = load_extractor(written(tmp_path, file="half.onnx"))
    np.testing.assert_allclose(got(faces).affect, want, atol=0.05)


GOOD = [{"name": "scores", "columns": [f"s{i}" for i in range(10)]}]
BAD = [
    ({"format": "feie-onnx/2"}, "format: Input should be 'feie-onnx/1'"),
    ({"colour": "RGB"}, "colour: Extra inputs are not permitted"),
    ({"input": {"size": 4}}, "input.size: Input should be greater than or equal to 16"),
    ({"input": {"size": 32, "sd": [0.1, 0.0, 0.1]}}, "input: sd must be positive"),
    ({"input": {"size": 32, "mean": [0.1, 0.0]}}, "input: mean needs one number"),
    ({"input": {"size": 32, "range": [1, 0]}}, "input: range must rise"),
    ({"crop": {"kind": "aligned", "margin": 0.5}}, "belongs to the crop 'box'"),
    ({"groups": [{**GOOD[0], "activation": "relu"}]}, "groups.0.activation: Input should be"),
    ({"groups": [*GOOD, {"name": "more", "columns": ["s3"]}]}, "two columns have the same name"),
    ({"groups": [{**GOOD[0], "at": [1, 2]}]}, "at has 2 places for 10 columns"),
    ({"file": "../small.onnx"}, "file: the ONNX file lies beside its description"),
    ({"file": "/etc/passwd"}, "file: the ONNX file lies beside its description"),
    ({"file": "none.onnx"}, "there is no .*none.onnx; put it there, or name the file with --weigh"),
    ({"file": None}, "names no file: say with --weights"),
    ({"file": "text.onnx"}, "damaged or no ONNX model"),
    ({"file": "cut.onnx"}, "damaged or no ONNX model|is no ONNX model, or an empty one"),
    ({"file": "outside.onnx"}, "keeps weights in other files, which are never read"),
    ({"file": "foreign.onnx"}, "needs the operator Odd of 'elsewhere', which onnxruntime does not"),
    ({"file": "nan.onnx"}, "gives numbers that are not finite"),
    ({"file": "broken.onnx"}, "cannot be loaded: "),
    ({"file": "bytes.onnx"}, "takes UINT8 as 'input'; feie gives float32 or float16"),
    ({"sha256": "0" * 64}, "it is another file than the one that was described"),
    ({"input": {"size": 64}}, r"of shape \?x3x32x32, its description says \?x3x64x64 \(NCHW\)"),
    ({"input": {"size": 32, "layout": "NHWC"}}, r"its description says \?x32x32x3 \(NHWC\)"),
    ({"input": {"size": 32, "name": "data"}}, "has no input 'data'; it has input"),
    ({"groups": [{**GOOD[0], "output": "logits"}]}, "has no output 'logits'; it has output"),
    ({"groups": [{"name": "a", "columns": ["x"]}]}, "has 10 numbers a face, group 'a' has 1 col"),
    ({"groups": [{"name": "a", "columns": ["x"], "at": [10]}]}, "group 'a' wants place 10, coun"),
    ({"embedding": {"tensor": "nowhere"}}, "has no tensor 'nowhere' to keep as the embedding"),
    ({"file": "fixed.onnx", "batch": 2}, "takes batches of 3, its description says 2"),
    ({"file": "two.onnx"}, r"has 2 outputs \(output, features\): name the one"),
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """Good and bad files that descriptions may name."""
    folder = tmp_path_factory.mktemp("zoo")
    good, w = small(folder / "small.onnx")
    content = good.read_bytes()
    (folder / "text.onnx").write_text("not a network")
    (folder / "cut.onnx").write_bytes(content[: len(content) // 2])
    small(
        folder / "foreign.onnx",
        nodes=[helper.make_node("Odd", ["output"], ["o"], domain="elsewhere")],
    )
    small(folder / "nan.onnx", weights={"ob": np.full(10, np.nan, np.float32)})
    small(folder / "broken.onnx", weights={"dw": w["dw"][:60]})
    small(folder / "fixed.onnx", batch=3)
    small(folder / "bytes.onnx", kind=TensorProto.UINT8)
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 6])
    small(folder / "two.onnx", outputs=[features])
    model = onnx.load(good)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")
    (folder / "outside.onnx").write_bytes(model.SerializeToString())
    return folder


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_what_does_not_fit_is_one_clear_error(zoo, changes, message):
    with pytest.raises((UsageError, MissingWeightsError), match=message) as raised:
        load_extractor(written(zoo, **changes))
    assert "\n" not in str(raised.value)


def test_no_subgraph_hides_weights_in_other_files(tmp_path):
    path, _ = small(tmp_path / "small.onnx")
    model = onnx.load(path)
    hidden = numpy_helper.from_array(np.zeros(10, np.float32), "hidden")
    hidden.ClearField("raw_data")
    hidden.data_location = TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="/etc/passwd")
    value = helper.make_node("Constant", [], ["c"], value=hidden)
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, [10])
    branch = helper.make_graph([value], "branch", [], [out])
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["maybe"], then_branch=branch, else_branch=branch)
    )
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="keeps weights in other files"):
        load_extractor(written(tmp_path))


def test_sizes_are_sane(zoo, tmp_path, monkeypatch):
    huge = tmp_path / "huge.json"
    huge.write_text(" " * (2 << 20))
    with pytest.raises(UsageError, match="is no description of an ONNX file"):
        load_extractor(str(huge))
    with pytest.raises(MissingWeightsError, match="there is no description"):
        load_extractor(str(tmp_path / "none.json"))
    monkeypatch.setattr(graph_module, "_LARGEST", 100)
    with pytest.raises(UsageError, match="is larger than"):
        load_extractor(written(zoo))


def test_numbers_that_are_none_stop_the_run(tmp_path):
    """A network that divides by what only some faces have."""
    faces = noise(2, 32)
    faces[1] = 0
    nodes = [helper.make_node("ReduceMax", ["input"], ["m"], axes=[1, 2, 3], keepdims=0),
             helper.make_node("Unsqueeze", ["m", "ax"], ["m2"]),
             helper.make_node("Div", ["output", "m2"], ["ratio"])]  # fmt: skip
    ratio = helper.make_tensor_value_info("ratio", TensorProto.FLOAT, ["N", 10])
    weights = {"ax": np.array([1])}
    small(tmp_path / "small.onnx", nodes=nodes, outputs=[ratio], weights=weights)
    extractor = load_extractor(written(tmp_path, groups=[{**GOOD[0], "output": "ratio"}]))
    assert np.isfinite(extractor(faces[:1]).affect).all()
    with pytest.raises(EngineError, match="not finite"):
        extractor(faces)


def test_arithmetic_and_devices_are_the_networks_own(zoo):
    spec = written(zoo)
    for options in ({"precision": "bf16"}, {"compiled": True}):
        with pytest.raises(UsageError, match="leave out --precision and --compile"):
            load_extractor(spec, **options)
    with pytest.raises(UsageError, match=r"not usable here|onnxruntime cannot use"):
        load_extractor(spec, "cuda:97")
    assert load_extractor(spec, "auto").device in ("cpu", "cuda")
    with pytest.raises(UsageError, match="leave out --weights"):
        load_extractor("mma-lite", weights=zoo / "small.onnx")
    with pytest.raises(UsageError, match=r"describe it in a \.json file"):
        load_extractor(str(zoo / "small.onnx"))
    with pytest.raises(MissingWeightsError, match=r"mma-lite.*mt-emotieffnet.*FILE\.py:NAME"):
        load_extractor("frob")
    with pytest.raises(UsageError, match=r"takes uint8 faces of shape \(b, 32, 32, 3\)"):
        load_extractor(spec)(noise(1, 112))


def test_several_threads_share_one_network_of_one_thread(zoo):
    extractor = load_extractor(written(zoo))
    said = extractor._session.get_session_options()
    assert (said.intra_op_num_threads, said.inter_op_num_threads) == (1, 1)
    assert extractor.concurrent
    batches = [noise(16, 32, seed) for seed in range(24)]
    want = [extractor(batch).affect for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for got, expected in zip(pool.map(extractor, batches), want, strict=True):
            np.testing.assert_array_equal(got.affect, expected)


def test_faces_of_a_pack_are_brought_to_its_size(tmp_path):
    small(tmp_path / "small.onnx")
    faces, columns = noise(12, 112), ["neutral", *FER_COLUMNS[:4], *FER_COLUMNS[5:]]
    group = {"name": "expr", "columns": columns, "at": list(range(7)), "activation": "softmax"}
    spec = written(tmp_path, groups=[group])
    extractor = load_extractor(spec)
    seen = np.stack([cv2.resize(f, (32, 32), interpolation=cv2.INTER_AREA) for f in faces])
    top = extractor(seen).affect.argmax(1)
    with h5py.File(tmp_path / "pack.h5", "w") as pack:
        pack["images"] = faces
        pack["expression"] = np.array([columns[i] for i in top], dtype=h5py.string_dtype())
    options = EvaluateMmaOptions(data=tmp_path / "pack.h5", extractor=spec, repeats=10)
    scored = evaluate_mma.run(options)
    assert (scored.extractor, scored.n, scored.accuracy) == ("small", 12, 1.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, clip) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for i, (name, frames) in enumerate([("a", 9), ("b", 30), ("c", 14)]):
        clip(root / f"{name}.mp4", frames, seed=i)
    return root


def test_a_store_tells_all_that_made_its_numbers(zoo, videos, tmp_path):
    store = tmp_path / "s.zarr"
    small(tmp_path / "small.onnx")
    spec = written(tmp_path, embedding={})
    given = {"videos": videos, "store": store, "extractor": spec, "isolate": False}
    given |= {"batch_size": 8, "embedding": True}
    done = extract.run(ExtractOptions(**given, weights=zoo / "small.onnx"))
    assert (done.extracted, done.frames) == (3, 53)
    made = open_store(store).provenance["extractor"]
    again = load_extractor(spec)
    assert (made["name"], made["sha256"]) == ("small", again.sha256)
    assert (made["crop"]["kind"], made["input"]["size"], made["batch"]) == ("aligned", 32, None)
    source = discover(videos).sources[1]
    with FaceStream(source, FaceOptions(crop=again.crop)) as stream:
        faces = np.concatenate([chunk.aligned for chunk in stream])
    video = open_store(store)["b"]
    np.testing.assert_allclose(video.affect, again(faces).affect, atol=1e-5)
    result = CliRunner().invoke(app, ["info", str(store), "--reproduce"])
    assert f"--extractor {spec} --weights {zoo / 'small.onnx'}" in result.stdout
    changed = written(tmp_path, embedding={}, crop={"kind": "box"})
    with pytest.raises(StoreMismatchError, match=r"made with extractor crop = .*aligned.*box"):
        extract.run(ExtractOptions(**{**given, "extractor": changed}))


def test_errors_come_before_any_video_and_leave_no_store(zoo, videos, tmp_path):
    """From the isolated process too: one line, exit code 2."""
    options = ["--videos", str(videos), "--store", str(tmp_path / "s.zarr")]
    spec = written(zoo, file="nan.onnx")
    result = CliRunner().invoke(app, ["extract", *options, "--extractor", spec])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "s.zarr").exists()


@pytest.fixture
def real(shared, tmp_path) -> str:
    """A real network of seven expressions, described."""
    path = tmp_path / "fer.json"
    columns = {"name": "expr", "columns": FER_COLUMNS, "activation": "softmax"}
    form = {"size": 112, "mean": [0.5], "sd": [0.5]}
    path.write_text(json.dumps(described(name="fer", file=FER, input=form, groups=[columns])))
    shutil.copy(shared / "models" / FER, tmp_path / FER)
    return str(path)


@pytest.mark.shared
def test_a_real_network_tells_a_smile(shared, real, tmp_path):
    store = tmp_path / "s.zarr"
    detector = f"scrfd:{shared / 'models' / 'det_500m.onnx'}"
    options = ["--store", str(store), "--extractor", real, "--detector", detector, "--fps", "10"]
    clip = str(shared / "videos" / "clips" / "single_face.mp4")
    result = CliRunner().invoke(app, ["extract", "--videos", clip, *options])
    assert result.exit_code == 0, result.output
    video = open_store(store)["single_face"]
    happy = video.affect[:, FER_COLUMNS.index("happiness")]
    assert happy[:5].max() < 0.1
    assert happy[-5:].min() > 0.9
