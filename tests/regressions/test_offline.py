"""Telemetry of libraries: no socket but loopback's, and nothing outside the paths that are named.

Two witnesses: an audit hook in every process (Python's own sockets and files), and, since C
libraries pass it by, what lies in an empty home folder and what is open at each process's end.
"""

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

_HOOK = """
import atexit, os, sys

LOG = os.environ["FEIE_WITNESS"]
NAMED = os.environ["FEIE_NAMED"].split(os.pathsep)

def tell(words):
    handle = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, (words + "\\n").encode())
    os.close(handle)

def is_named(path):
    path = os.path.realpath(path)
    # Compiled code, beside its source: Python's own, and numba's; matplotlib's list of fonts.
    cached = "__pycache__" in path or "/.cache/matplotlib" in path
    return cached or path.startswith(("/dev/", "/proc/", "/memfd")) or any(
        path == name or path.startswith(name + os.sep) for name in NAMED
    )

def witness(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and isinstance(path, (str, bytes)) and os.fsdecode(path) != LOG:
            if not is_named(os.fsdecode(path)):
                tell(f"writes {os.fsdecode(path)}")
    elif event in ("socket.connect", "socket.sendto", "socket.bind"):
        address = arguments[1]
        if isinstance(address, tuple) and str(address[0]) not in ("127.0.0.1", "::1"):
            tell(f"{event} {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if str(arguments[0]) not in ("127.0.0.1", "::1", "localhost", "None", ""):
            tell(f"{event} {arguments[0]}")

def at_the_end():
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if target.startswith("/") and not is_named(target):
            flags = int(open(f"/proc/self/fdinfo/{number}").read().split()[3], 8)
            if flags & (os.O_WRONLY | os.O_RDWR):
                tell(f"holds {target}")
    if "onnxruntime" in sys.modules:
        tell("onnxruntime was here")

atexit.register(at_the_end)
sys.addaudithook(witness)
"""


def network(folder: Path) -> Path:
    """An ONNX extractor of three columns, and its description."""
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Tanh", ["mean"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "means", [image], [out])
    imports = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), folder / "n.onnx")
    return folder / "n.onnx"


@pytest.fixture
def feie(tmp_path, clip):
    """Run a command in a folder, from an empty home, and give what its witnesses saw."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    for name in ("site", "home", "work", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_HOOK)
    for i in range(3):
        clip(tmp_path / "work" / "v" / f"{i}.mp4", 8 + i, seed=i)
    log = tmp_path / "witness"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    env |= {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FEIE_WITNESS": str(log),
        "FEIE_NAMED": os.pathsep.join(str(tmp_path / name) for name in ("work", "tmp")),
    }

    def run(*words: str, codes: tuple[int, ...] = (0,)) -> list[str]:
        log.unlink(missing_ok=True)
        program = [sys.executable, "-c", "from feie.cli import app; app()"]
        done = subprocess.run(
            [*program, *words], cwd=tmp_path / "work", env=env, capture_output=True, text=True,
            timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode in codes, done.stderr
        left = {str(p.relative_to(tmp_path / "home")) for p in (tmp_path / "home").rglob("*")}
        # Not switched off yet: matplotlib keeps its list of fonts there, where a picture is drawn.
        fonts = {".cache", ".config", ".cache/matplotlib", ".config/matplotlib"}
        assert {name for name in left - fonts if "matplotlib/fontlist" not in name} == set()
        return log.read_text().splitlines() if log.exists() else []

    return run


def seen(lines: list[str]) -> list[str]:
    return [line for line in lines if line != "onnxruntime was here"]


@pytest.mark.parametrize("how", [["--no-isolate"], []])
def test_an_onnx_extractor_says_nothing_to_anybody(feie, tmp_path, how: list[str]) -> None:
    network(tmp_path / "work")
    (tmp_path / "work" / "plugin.py").write_text(
        "import numpy as np, onnxruntime\n"
        "from feie.features.extractors.base import Extraction\n"
        "from feie.features.schema import Schema\n"
        "class Means:\n"
        "    name, input_size, embedding_dim = 'means', 112, 0\n"
        "    schema = Schema.of({'mean': ('r', 'g', 'b')})\n"
        "    def __init__(self, device, weights):\n"
        "        self.device = 'cpu'\n"
        "        self._net = onnxruntime.InferenceSession('n.onnx')\n"
        "    def __call__(self, faces):\n"
        "        x = faces.transpose(0, 3, 1, 2).astype('f4') / 255\n"
        "        rows = [self._net.run(None, {'input': x[i:i + 1]})[0][0] for i in range(len(x))]\n"
        "        return Extraction(np.array(rows, 'f4').reshape(-1, 3), None)\n"
    )
    words = ["extract", "--videos", "v", "--store", "s.zarr", "--extractor", "plugin.py:Means"]
    lines = feie(*words, *how)
    assert seen(lines) == []
    if how:  # a child is killed at the end, and says nothing: its home folder does
        assert "onnxruntime was here" in lines


def test_doctor_and_the_rest_of_the_commands(feie, tmp_path, untrained) -> None:
    assert "onnxruntime was here" in (lines := feie("doctor", codes=(0, 2)))
    assert seen(lines) == []
    labels = "\n".join(["id,split,joy", "0,train,0.1", "1,train,0.8", "2,val,0.4", ""])
    (tmp_path / "work" / "labels.csv").write_text(labels)
    extractor = ["--extractor", str(untrained)]
    for words in (
        ["models", "list"],
        ["extract", "--videos", "v", "--store", "s.zarr", *extractor],
        ["info", "s.zarr"],
        ["verify", "s.zarr"],
        ["dump", "s.zarr", "--out", "dumped"],
        ["merge", "s.zarr", "--out", "m.zarr"],
        ["inspect", "s.zarr", "0"],
    ):
        assert seen(feie(*words, codes=(0, 2, 3))) == [], words


@pytest.mark.slow
def test_workers_of_a_cluster_say_nothing_either(feie, tmp_path, untrained) -> None:
    words = ["extract", "--videos", "v", "--store", "s.zarr", "--extractor", str(untrained)]
    assert seen(feie(*words, "--workers", "2")) == []
