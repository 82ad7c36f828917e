"""The doctor and the commands say what is right for each library that is gone or broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Python runs it at start: an import of the module named fails as it would.
_BREAK = """
import os, sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        module, text = os.environ["FEIE_TEST_BREAKS"].split("|")
        if name.partition(".")[0] != module:
            return None
        if text:
            raise ImportError(text, name=name)
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Broken())
"""
_XCB = "libxcb.so.1: cannot open shared object file: No such file or directory"


def run(tmp_path, broken: str, *command: str) -> subprocess.CompletedProcess:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_BREAK)
    path = os.pathsep.join([str(tmp_path / "site"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "FEIE_TEST_BREAKS": broken}
    return subprocess.run(
        [sys.executable, "-m", "feie.cli", *command],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "check", "cure"),
    [
        ("numpy|", "numpy", "pip install numpy"),
        (f"cv2|{_XCB}", "opencv", "apt-get install --no-install-recommends libxcb1"),
        ("cv2|", "opencv", "pip install opencv-python"),
        ("torch|", "torch", "pip install torch"),
        ("onnxruntime|", "onnxruntime", "pip install onnxruntime"),
        ("av|", "video codecs", "pip install av"),
        ("zarr|", "store", "pip install zarr"),
        ("av|numpy.dtype size changed", "video codecs", "pip install --force-reinstall av"),
    ],
)
def test_the_doctor_names_what_is_broken_and_its_cure(tmp_path, broken, check, cure):
    done = run(tmp_path, broken, "doctor", "--json")
    assert done.returncode == 2, done.stderr
    findings = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert findings[check]["state"] == "missing"
    assert cure in findings[check]["cure"]
    assert findings["python"]["state"] == "ok"


def test_a_command_says_it_in_one_line(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(b"x")
    done = run(tmp_path, f"cv2|{_XCB}", "extract", "--videos", "v", "--no-isolate")
    assert done.returncode == 2
    assert done.stderr.startswith("error: libxcb.so.1 is not on this machine")
    assert "pip install opencv-python-headless" in done.stderr
    assert "Traceback" not in done.stderr
