"""What may go wrong at night: crashing and hanging decoders, killed processes, moving sources.

Videos do their harm by their names: Python's own start-up file (`sitecustomize`, found through
PYTHONPATH) gives every process of these tests an audit hook that crashes, hangs or stops it when
it opens such a file. feie itself knows nothing of it.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from feie.features.errors import EngineError, StoreError, StoreLockedError
from feie.features.store import writer
from feie.features.store.backends import durable
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.engine import threads as stage_one
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractOptions

_HOOK = """
import os, signal, sys, time

def harm(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    modules = sys.modules
    if "feie.pipeline.engine.child" not in modules or "feie.pipeline.engine.isolated" in modules:
        return  # only the process that reads videos
    name = os.path.basename(os.fspath(arguments[0]))
    if "once" in name:
        try:
            os.mkdir(os.fspath(arguments[0]) + ".harmed")
        except FileExistsError:
            return
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        time.sleep(100_000)
    if name.startswith("stop"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if name.startswith("orphan"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(100_000)

sys.addaudithook(harm)
"""


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """Names that begin with crash, hang, stop or orphan do so; with `once` in them, once."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_HOOK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))


def run(videos: Path, store: Path, untrained: Path, **options):
    given = {"videos": videos, "store": store, "extractor": str(untrained), "threads": 2}
    return extract.run(ExtractOptions(**{**given, **options}))


def is_gone(pid: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_crashes_hangs_and_kills_cost_no_other_video(tmp_path, untrained, clip, harmful):
    names = ["a", "b", "c", "crash", "crash-once", "d", "e", "hang", "y", "z"]
    for i, name in enumerate(names):
        clip(tmp_path / "v" / f"{name}.mp4", 5 + i, seed=i)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, timeout=10)
    assert set(result.failures) == {"crash", "hang"}
    assert result.failures["crash"].startswith("crash: crash.mp4")
    assert "SIGSEGV" in result.failures["crash"]
    assert result.failures["hang"].startswith("timeout: reading hang.mp4")
    left = [" ".join(p.cmdline()) for p in psutil.Process().children()]
    assert [line for line in left if "feie.pipeline.engine.child" in line] == []
    store = open_store(tmp_path / "s.zarr")
    assert list(store.rows["id"]) == names
    assert check_store(tmp_path / "s.zarr") == []
    # What the others give is what an undisturbed run in this process gives.
    for name in ("crash", "hang"):
        (tmp_path / "v" / f"{name}.mp4").unlink()
    run(tmp_path / "v", tmp_path / "calm.zarr", untrained, isolate=False)
    calm = open_store(tmp_path / "calm.zarr")
    assert calm.ids == store.ids
    for video_id in calm.ids:
        np.testing.assert_array_equal(store[video_id].affect, calm[video_id].affect)


@pytest.mark.slow
def test_a_process_that_stands_still_is_ended(tmp_path, untrained, clip, harmful):
    """Not even its heart beats: stopped, or stuck in C with the interpreter's lock held."""
    for i, name in enumerate(["a", "stop", "z"]):
        clip(tmp_path / "v" / f"{name}.mp4", 5, seed=i)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, timeout=3, threads=1)
    assert set(result.failures) == {"stop"}
    assert "gave no sign of life" in result.failures["stop"]
    # It was never hashed, so the next run would take it up again.
    plan = run(tmp_path / "v", tmp_path / "s.zarr", untrained, dry_run=True)
    assert plan.planned == ["stop"]


@pytest.mark.slow
def test_an_engine_that_never_lives_stops_the_run_in_one_sentence(
    tmp_path, untrained, clip, harmful
):
    clip(tmp_path / "v" / "a.mp4", 5)
    weights = tmp_path / "crash.safetensors"
    weights.write_bytes(untrained.read_bytes())
    with pytest.raises(EngineError, match="died 3 times"):
        run(tmp_path / "v", tmp_path / "s.zarr", weights)


def start(tmp_path: Path, untrained: Path, *options: str) -> tuple[subprocess.Popen, list[int]]:
    """Start the command in a process group of its own, as a shell does; wait until it hangs."""
    command = [sys.executable, "-c", "from feie.cli import app; app()", "extract"]
    command += ["--videos", tmp_path / "v", "--store", tmp_path / "s.zarr", "--commit-videos", "1"]
    command += ["--extractor", untrained, "--commit-seconds", "0.1", "--threads", "2", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, process_group=0, env=dict(os.environ)
    )
    marked = tmp_path / "v" / "hang-once.mp4.harmed"
    deadline = time.monotonic() + 300
    while not (marked.exists() and _committed(tmp_path) == 2) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return process, [p.pid for p in psutil.Process(process.pid).children(recursive=True)]


def _committed(tmp_path: Path) -> int:
    try:
        return open_store(tmp_path / "s.zarr").committed
    except StoreError:
        return -1


@pytest.fixture
def hanging(tmp_path, clip, harmful):
    for i, name in enumerate(["a", "b", "hang-once", "z"]):
        clip(tmp_path / "v" / f"{name}.mp4", 70, seed=i)


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_ctrl_c_ends_a_hanging_run_and_the_same_command_goes_on(
    tmp_path, untrained, hanging, options
):
    process, children = start(tmp_path, untrained, *options)
    assert len(children) >= (4 if options else 1)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on where it stopped" in said
    assert "Traceback" not in said
    assert all(is_gone(pid) for pid in children)
    again = run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False)
    assert (again.skipped, again.extracted) == (2, 2)


@pytest.mark.slow
def test_a_killed_coordinator_leaves_no_process_behind(tmp_path, untrained, hanging):
    process, children = start(tmp_path, untrained)
    assert children
    process.kill()
    process.communicate()
    assert all(is_gone(pid) for pid in children)
    assert check_store(tmp_path / "s.zarr") == []
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False).extracted == 2


@pytest.mark.parametrize("what", ["deleted", "replaced", "grown", "a folder"])
def test_a_source_that_changes_under_the_reader(tmp_path, untrained, clip, monkeypatch, what):
    for i, name in enumerate("abc"):
        clip(tmp_path / "v" / f"{name}.mp4", 5, seed=i)
    victim, spare = tmp_path / "v" / "b.mp4", clip(tmp_path / "spare.mp4", 9)
    real = stage_one.fingerprint

    def then_it_changes(source, *rest):
        digest = real(source, *rest)
        if source.path == victim and what == "grown":
            with victim.open("ab") as file:
                file.write(b"more")
        elif source.path == victim and what == "replaced":
            os.replace(spare, victim)
        elif source.path == victim:
            victim.unlink()
            if what == "a folder":
                victim.mkdir()
        return digest

    monkeypatch.setattr(stage_one, "fingerprint", then_it_changes)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False)
    assert list(result.failures) == ["b"]
    assert result.failures["b"].partition(":")[0] in {"missing", "changed", "broken"}
    assert check_store(tmp_path / "s.zarr") == []
    monkeypatch.undo()
    if what in ("replaced", "grown"):
        clip(victim, 9, seed=8)
        again = run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False)
        assert (again.extracted, again.failed) == (1, 0)


def test_two_extractions_on_one_store(tmp_path, untrained, clip, settings):
    clip(tmp_path / "v" / "a.mp4", 5)
    with (
        StoreWriter(tmp_path / "s.zarr", settings),
        pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
    ):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False)


def test_a_full_disk_in_mid_run_and_the_way_on(tmp_path, untrained, clip, monkeypatch):
    for i in range(6):
        clip(tmp_path / "v" / f"{i}.mp4", 5, seed=i)
    real = durable.write_whole
    writes = iter(range(10_000))

    def until_the_disk_is_full(path, value, **how):
        if next(writes) > 150:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, value, **how)

    monkeypatch.setattr(durable, "write_whole", until_the_disk_is_full)
    options = {"isolate": False, "commit_videos": 1}
    with pytest.raises(StoreError, match="disk is full"):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained, **options)
    monkeypatch.undo()
    assert check_store(tmp_path / "s.zarr") == []
    kept = open_store(tmp_path / "s.zarr").committed
    assert 0 < kept < 6
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained, **options).extracted == 6 - kept


def test_a_clock_that_runs_backwards(tmp_path, untrained, clip, monkeypatch):
    """Commits from the future, files from the future and from before 1970 change nothing."""
    for i, name in enumerate("abc"):
        clip(tmp_path / "v" / f"{name}.mp4", 5, seed=i)
    os.utime(tmp_path / "v" / "a.mp4", (4e9, 4e9))
    os.utime(tmp_path / "v" / "b.mp4", (-1e6, -1e6))
    years = iter(range(2100, 1970, -1))
    monkeypatch.setattr(writer, "_now", lambda: f"{next(years)}-01-01T00:00:00+00:00")
    monkeypatch.setattr(time, "time", lambda: float(next(years)))
    options = {"isolate": False, "commit_videos": 1}
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained, **options).extracted == 3
    clip(tmp_path / "v" / "b.mp4", 9, seed=9)
    os.utime(tmp_path / "v" / "b.mp4", (-2e6, -2e6))  # newer bytes, older time
    again = run(tmp_path / "v", tmp_path / "s.zarr", untrained, **options)
    assert (again.extracted, again.skipped) == (1, 2)
    assert len(open_store(tmp_path / "s.zarr")["b"]) == 9
    assert check_store(tmp_path / "s.zarr") == []


def test_a_touched_file_is_hashed_once(tmp_path, untrained, clip, monkeypatch):
    for i, name in enumerate("ab"):
        clip(tmp_path / "v" / f"{name}.mp4", 5, seed=i)
    run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False)
    os.utime(tmp_path / "v" / "b.mp4", (1e9, 1e9))
    hashed = []
    real = extract.fingerprint
    monkeypatch.setattr(extract, "fingerprint", lambda s: hashed.append(s.video_id) or real(s))
    for _ in range(2):
        assert run(tmp_path / "v", tmp_path / "s.zarr", untrained, isolate=False).skipped == 2
    assert hashed == ["b"]
    assert check_store(tmp_path / "s.zarr") == []
