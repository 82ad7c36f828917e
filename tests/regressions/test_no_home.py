"""HOME unset and a user id without an entry (containers): a sentence or a working run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

NOBODY = """
import pwd

def getpwuid(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = getpwuid
"""


@pytest.fixture
def feie(tmp_path, example_folder, clip):
    """Run a command whose every process has no home."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOBODY)
    shutil.copytree(example_folder, tmp_path / "work")
    clip(tmp_path / "work" / "v" / "a.mp4", 10)
    gone = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    path = [str(tmp_path / "site"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))

    def run(*arguments):
        command = [sys.executable, "-c", "from feie.cli import app; app()", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, " ".join(done.stderr.split())

    return run


@pytest.mark.slow
def test_every_kind_of_command(feie, tmp_path):
    assert feie("models")[0] == 0
    assert feie("doctor")[0] in (0, 2)
    for add in (("add", "yunet", "labels.csv"), ("fetch", "yunet", "--mirror", "http://[::1]:9")):
        code, said = feie("models", *add)
        assert code == 2
        assert "no home folder is known: set HOME" in said
    extract = ("extract", "v", "--faces", "detect", "--store", "s.zarr")
    code, said = feie(*extract, "--detector", "scrfd")
    assert code == 2
    assert "scrfd:FILE" in said
    assert feie(*extract, "--detector", "yunet")[0] in (0, 2)  # comes with the wheel
    code, said = feie("extract", "v", "n.zarr", "--extractor", "mt-emotieffnet")
    assert code == 2
    assert "mt-emotieffnet" in said
    code, said = feie("train-head", "features.zarr", "--head", "~/code.py:Head")
    assert code == 2
    assert "code.py" in said
    assert not (tmp_path / "work" / "~").exists()


@pytest.mark.slow
def test_both_stages_run(feie, untrained):
    assert feie("extract", "v", "s.zarr", "--extractor", untrained)[0] == 0
    assert feie("extract", "v", "t.zarr", "--extractor", untrained, "--workers", "1")[0] == 0
    assert feie("inspect", "s.zarr", "a", "--out", "a.png")[0] == 0
    assert feie("train-head", "features.zarr", "--epochs", "1", "--width", "2")[0] == 0
    assert feie("evaluate", "--report", "r.html")[0] == 0
    assert feie("predict", "features.zarr")[0] == 3  # face-007 has failed before
