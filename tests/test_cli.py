"""The command line: what it prints where, and how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from feie.cli import app

COMMANDS = (
    "extract", "import", "merge", "info", "inspect", "verify", "dump", "train-head", "evaluate",
    "predict", "compound", "ablate", "train-mma", "evaluate-mma", "render-faces", "label-units",
    "demo", "doctor", "models",
)  # fmt: skip


@pytest.fixture(scope="module")
def cli():
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="module")
def store(cli, tmp_path_factory, clip, untrained):
    """A store of three clips, one of them broken, made by the command itself."""
    root = tmp_path_factory.mktemp("cli")
    clip(root / "v" / "a.mp4", 20)
    clip(root / "v" / "b.mp4", 30, seed=1)
    (root / "v" / "broken.mp4").write_text("no video")
    path = root / "s.zarr"
    options = ("--videos", root / "v", "--store", path, "--extractor", untrained)
    result = cli("extract", *options, code=3)
    assert "broken" in result.stdout
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_teaches_with_an_example(cli, command):
    text = cli(command, "--help").stdout
    assert "Example" in text
    assert f"feie {command}" in text


def test_every_command_is_known_here():
    names = {c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands}
    assert names == set(COMMANDS)


def test_help_loads_nothing_heavy():
    heavy = "torch", "zarr", "pandas", "cv2", "onnxruntime", "pydantic"
    code = f"import sys, feie.cli; sys.exit([m for m in {heavy!r} if m in sys.modules] or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version(cli):
    assert cli("--version").stdout.startswith("feie ")


def test_json_is_one_object_and_nothing_else(cli, store, untrained):
    options = ("--videos", store.parent / "v", "--store", store, "--extractor", untrained)
    result = json.loads(cli("extract", *options, "--json", code=3).stdout)
    assert (result["videos"], result["skipped"], result["failed"]) == (3, 3, 1)
    info = json.loads(cli("info", store, "--json").stdout)
    assert (info["videos"], info["frames"], info["failed"]) == (3, 50, 1)
    assert info["face_share"] == 1.0
    verified = json.loads(cli("verify", store, "--json").stdout)
    assert (verified["store"], verified["sound"], verified["violations"]) == (str(store), True, [])


@pytest.mark.slow
def test_the_three_lines_work_bare_where_labels_csv_lies(cli, project, tmp_path, monkeypatch):
    """Extract, train-head, evaluate, with defaults only, in a folder that holds labels.csv."""
    monkeypatch.chdir(tmp_path)
    rows = (project / "data.example" / "labels.csv").read_text().splitlines()
    by_split = {s: [r for r in rows if f",{s}," in r] for s in ("train", "val", "test")}
    kept = [rows[0], *by_split["train"][:14], *by_split["val"][:7], *by_split["test"][:7]]
    (tmp_path / "labels.csv").write_text("\n".join(kept))
    (tmp_path / "clips").mkdir()
    for row in kept[1:]:
        name = row.split(",")[0] + ".mp4"
        (tmp_path / "clips" / name).symlink_to(project / "data.example" / "videos" / name)
    cli("extract", "--videos", "clips")
    trained = json.loads(cli("train-head", "--subset", "va,au", "--json").stdout)
    assert trained["subset"] == ["va", "au"]
    assert (trained["n_train"], trained["n_val"]) == (14, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "clips", "features.zarr", "features.zarr.lock", "labels.csv", "runs",
    ]  # fmt: skip
    scores = json.loads(cli("evaluate", "--json").stdout)
    assert (scores["split"], scores["n"]) == ("val", 7)
    assert list(scores["pearson"]) == rows[0].split(",")[2:]
    assert -1 <= scores["mean_pearson"] <= 1
    assert json.loads(cli("evaluate", "--split", "test", "--json").stdout)["n"] == 7
    assert "Amusement" in cli("evaluate").stdout


def test_info_for_people(cli, store):
    text = cli("info", store).stdout
    assert "3 (1 failed)" in text
    assert "untrained" in text


def test_verify_finds_a_damaged_store(cli, store, tmp_path):
    import shutil

    damaged = tmp_path / "s.zarr"
    shutil.copytree(store, damaged)
    chunk = next(p for p in sorted((damaged / "affect" / "c").rglob("*")) if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    assert "S15" in cli("verify", damaged, code=1).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract"], "--videos"),
        (["extract", "--videos", "nowhere"], "nowhere"),
        (["extract", "--videos", ".", "--faces", "some"], "--faces"),
        (["extract", "--videos", ".", "--fps", "-1"], "--fps"),
        (["extract", "--videos", ".", "--batch-size", "0"], "--batch-size"),
        (["extract", "--videos", ".", "--frobnicate"], "--frobnicate"),
        (["extract", "--videos", ".", "--store", "https://lab.org/s.zarr"], "--store"),
        (["extract", "--videos", "x" * 300], "xxx"),
        (["info", "nowhere.zarr"], "feie extract"),
        (["train-head"], "feie extract"),
        (["train-head", "--preset", "fast"], "--preset"),
        (["train-head", "--subset", ","], "--subset"),
        (["train-head", "--gpus", "0"], "belongs to --sweep"),
        (["train-head", "--jobs", "2"], "belongs to --sweep"),
        (["evaluate"], "runs"),
        (["evaluate", "--split", "exam"], "--split"),
        (["verify", "nowhere.zarr"], "nowhere.zarr"),
        (["train-mma", "nowhere.yaml"], "nowhere.yaml"),
        (["evaluate-mma", "--data", "nowhere.h5"], "nowhere.h5"),
        (["demo", "--data", "nowhere"], "nowhere"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_usage_is_one_error_and_exit_code_2(cli, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments, code=2)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(tmp_path, clip, untrained):
    for i in range(3):
        clip(tmp_path / "v" / f"{i}.mp4", 700, seed=i)
    command = [sys.executable, "-c", "from feie.cli import app; app()", "extract"]
    command += ["--videos", tmp_path / "v", "--store", tmp_path / "s.zarr", "--threads", "1"]
    command += ["--extractor", untrained, "--commit-videos", "1"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "s.zarr" / "video").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "goes on where it stopped" in said
    assert "Traceback" not in said
    subprocess.run(command, check=True, capture_output=True)
    from feie.features.store.reader import open_store

    assert open_store(tmp_path / "s.zarr").ids == ["0", "1", "2"]
