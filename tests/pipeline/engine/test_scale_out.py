"""One worker, threads, a local cluster, a scheduler elsewhere, shards: always the same store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from feie.features.errors import EngineError, UsageError
from feie.features.store.check import check_store
from feie.features.store.layout import VIDEO_ARRAYS, frame_arrays
from feie.features.store.reader import open_store
from feie.pipeline.engine import cluster
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractOptions
from feie.pipeline.stores import merge

# Found through PYTHONPATH by every process of these tests, as in pipeline/extract/test_faults.py.
_HOOK = """
import os, signal, sys, time

def harm(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)):
        return
    modules = sys.modules
    if "feie.pipeline.engine.child" not in modules or "feie.pipeline.engine.isolated" in modules:
        return  # only the process that reads videos
    path = os.fspath(arguments[0])
    if "lost" not in os.path.basename(path):
        return
    if "once" in path:
        try:
            os.mkdir(path + ".harmed")
        except FileExistsError:
            return
    os.kill(os.getppid(), signal.SIGKILL)  # the worker of the cluster
    time.sleep(100_000)

sys.addaudithook(harm)
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory, clip):
    root = tmp_path_factory.mktemp("videos")
    for i, frames in enumerate([70, 1, 33, 9, 130, 20, 64, 5]):
        clip(root / f"{'xy'[i % 2]}" / f"{i}.mp4", frames, seed=i)
    (root / "broken.mp4").write_text("no video")
    return root


def options(videos, store, untrained, **more):
    given = {"videos": videos, "store": store, "extractor": str(untrained), "batch_size": 16}
    return ExtractOptions(**{**given, **more})


def run(videos, store, untrained, **more):
    return extract.run(options(videos, store, untrained, **more))


def contents(path: Path) -> dict[str, np.ndarray]:
    assert check_store(path) == []
    store = open_store(path)
    frames = int(store.array("video/offset")[store.committed])
    found = {
        f"video/{s.name}": np.asarray(store.array(f"video/{s.name}")[: store.committed])
        for s in VIDEO_ARRAYS
    }
    names = [s.name for s in frame_arrays(store.schema)]
    return found | {name: np.asarray(store.array(name)[:frames]) for name in names}


@pytest.fixture(scope="module")
def expected(videos, untrained, tmp_path_factory):
    """The store of one thread in this process."""
    store = tmp_path_factory.mktemp("expected") / "s.zarr"
    assert run(videos, store, untrained, threads=1, isolate=False).failed == 1
    return contents(store)


def assert_same(store: Path, expected: dict[str, np.ndarray]) -> None:
    for name, values in contents(store).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_a_child_process_gives_the_same_store(videos, untrained, tmp_path, expected):
    result = run(videos, tmp_path / "s.zarr", untrained, threads=3)
    assert (result.extracted, result.failed) == (8, 1)
    assert_same(tmp_path / "s.zarr", expected)


def test_a_local_cluster_gives_the_same_store(videos, untrained, tmp_path, expected):
    # Tests before this one may have left the server that processes are forked from.
    before = set(psutil.Process().children(recursive=True))
    result = run(videos, tmp_path / "s.zarr", untrained, workers=3, threads=1)
    assert (result.extracted, result.failed) == (8, 1)
    assert_same(tmp_path / "s.zarr", expected)
    new = set(psutil.Process().children(recursive=True)) - before
    left = [" ".join(p.cmdline()) for p in new]
    assert [line for line in left if "resource_tracker" not in line] == []


def _dask(module: str, *arguments: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env=dict(os.environ)
    )


def test_a_scheduler_elsewhere_gives_the_same_store(
    videos, untrained, tmp_path, expected, monkeypatch
):
    """Scheduler and workers are processes of their own, in another folder, over TCP."""
    address = tmp_path / "scheduler.json"
    common = ["--scheduler-file", address, "--host", "127.0.0.1", "--no-dashboard"]
    processes = [_dask("dask_scheduler", *common, "--port", "0")]
    try:
        worker = ["--scheduler-file", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        worker += ["--local-directory", tmp_path]
        processes += [_dask("dask_worker", *worker) for _ in range(2)]
        deadline = time.monotonic() + 120
        while not address.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        monkeypatch.chdir(videos.parent)
        result = run(Path(videos.name), tmp_path / "s.zarr", untrained, scheduler=str(address))
        assert (result.extracted, result.failed) == (8, 1)
        assert_same(tmp_path / "s.zarr", expected)
        engines = [p for worker in processes[1:] for p in psutil.Process(worker.pid).children()]
        assert engines == []  # the cluster lives on, without our engines
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_lost_in_mid_video_costs_a_retry(videos, untrained, tmp_path, clip, monkeypatch):
    """Twice lost, a video is named; nothing else is missing, repeated or out of order."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_HOOK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    names = ["a", "lost", "lost-once", "m", "n", "z"]
    for i, name in enumerate(names):
        clip(tmp_path / "v" / f"{name}.mp4", 5 + i, seed=i)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, workers=2, threads=1)
    assert list(result.failures) == ["lost"]
    assert result.failures["lost"].startswith("worker-lost: lost.mp4")
    store = open_store(tmp_path / "s.zarr")
    assert list(store.rows["id"]) == names
    assert check_store(tmp_path / "s.zarr") == []


def test_a_cluster_without_workers_ends_the_run(videos, untrained, tmp_path, monkeypatch):
    real = cluster._start_cluster

    def empty(*arguments):
        made = real(*arguments)
        made.scale(0)
        return made

    monkeypatch.setattr(cluster, "_start_cluster", empty)
    monkeypatch.setattr(cluster, "_NO_WORKER_SECONDS", 3)
    with pytest.raises(EngineError, match="none comes back: is the machine overloaded"):
        run(videos, tmp_path / "s.zarr", untrained, workers=1)


def test_shards_make_the_same_store(videos, untrained, tmp_path, expected):
    parts = [tmp_path / f"{i}.zarr" for i in (1, 2, 3)]
    done = [
        run(videos, part, untrained, shard=f"{i}/3", isolate=False)
        for i, part in enumerate(parts, start=1)
    ]
    assert sum(result.videos for result in done) == 9
    joined = merge.MergeOptions(
        stores=tuple(str(p) for p in parts if p.exists()), out=tmp_path / "all.zarr"
    )
    merge.run(joined)
    assert_same(tmp_path / "all.zarr", expected)


def test_a_shard_is_fixed_by_names_alone(videos, untrained, tmp_path, clip):
    def planned(i):
        plan = run(videos, tmp_path / "no.zarr", untrained, shard=f"{i}/4", dry_run=True)
        return plan.planned

    before = {i: planned(i) for i in (1, 2, 3, 4)}
    assert sorted(i for ids in before.values() for i in ids) == sorted(map(str, open_ids(videos)))
    extra = clip(videos / "a-new-one.mp4", 3)
    try:
        for i, ids in before.items():
            assert set(ids) <= set(planned(i))
    finally:
        extra.unlink()


def open_ids(videos):
    return [p.relative_to(videos).with_suffix("") for p in videos.rglob("*.mp4")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shard": "0/8"}, "1 <= i <= n"),
        ({"shard": "9/8"}, "1 <= i <= n"),
        ({"shard": "half"}, "1/8"),
        ({"gpus": "0;1"}, "0,1"),
        ({"gpus": "0,1", "workers": 3}, "one worker a GPU"),
        ({"gpus": "0", "device": "cpu"}, "leave out --device"),
        ({"scheduler": "tcp://a:1", "workers": 2}, "leave out --workers"),
        ({"workers": 2, "isolate": False}, "--no-isolate"),
    ],
)
def test_options_that_contradict_each_other(given, said):
    with pytest.raises(ValidationError, match=said):
        ExtractOptions(videos="v", **given)


def test_a_scheduler_that_is_not_there(videos, untrained, tmp_path, monkeypatch):
    from feie.pipeline.engine import cluster

    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    with pytest.raises(UsageError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run(videos, tmp_path / "s.zarr", untrained, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "s.zarr").exists()
