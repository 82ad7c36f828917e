"""`feie merge`: what is joined, chosen, refused, and what a kill leaves."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import StoreError, StoreLockedError, StoreMismatchError
from feie.features.store import merge as joining
from feie.features.store.backends.lock import WriterLock
from feie.features.store.check import check_store
from feie.features.store.layout import VIDEO_ARRAYS, frame_arrays
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.extract.reproduce import commands
from feie.pipeline.stores import merge
from feie.pipeline.stores.merge import MergeOptions


@pytest.fixture
def write(tmp_path, settings):
    def make(name, *records, detector=None, **changes):
        path = tmp_path / name
        with StoreWriter(path, replace(settings, **changes)) as writer:
            if detector:
                writer.use_detector(detector)
            for item in records:
                writer.append(item)
        return path

    return make


def run(out, *stores, **options):
    return merge.run(MergeOptions(stores=tuple(map(str, stores)), out=out, **options))


def contents(path):
    store = open_store(path)
    frames = int(store.array("video/offset")[store.committed])
    found = {
        f"video/{s.name}": np.asarray(store.array(f"video/{s.name}")[: store.committed])
        for s in VIDEO_ARRAYS
    }
    names = [s.name for s in frame_arrays(store.schema)]
    return found | {name: np.asarray(store.array(name)[:frames]) for name in names}


def test_shards_become_the_store_of_one_run(tmp_path, write, record, detector_named):
    """Value for value, in the same order; a video longer than a block among them."""
    videos = [record(f"v/{i:02d}", frames) for i, frames in enumerate([40, 5000, 0, 7, 90, 3])]
    videos.append(record("v/99", 0, message="broken: no video"))
    whole = write("whole.zarr", *videos, detector=detector_named)
    said = {"versions": {"feie": "test"}, "arguments": {"videos": "/v"}}
    one = write("1.zarr", *videos[1::2], detector=detector_named, session=said)
    two = write("2.zarr", *videos[0::2])  # no video of this shard needed a detector
    result = run(tmp_path / "out.zarr", one, two)
    assert (result.videos, result.failed, result.left_out) == (7, 1, 0)
    assert check_store(tmp_path / "out.zarr") == []
    expected = contents(whole)
    for name, values in contents(tmp_path / "out.zarr").items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    made = open_store(tmp_path / "out.zarr").provenance
    assert made["detector"] == detector_named
    assert made["sessions"][0]["versions"] == {"feie": "test"}
    assert commands(open_store(tmp_path / "out.zarr")) == [
        f"feie extract --videos /v --store {tmp_path / 'out.again.zarr'}"
    ]
    assert [part["store"] for part in made["sessions"][0]["merged"]] == [str(one), str(two)]


def test_a_single_store_is_compacted(tmp_path, write, record):
    path = write("a.zarr", record("a", 50), record("b", 5), record("a", 7, seed=1))
    assert len(open_store(path).rows) == 3
    result = run(tmp_path / "b.zarr", path)
    assert (result.videos, result.frames, result.left_out) == (2, 12, 1)
    store = open_store(tmp_path / "b.zarr")
    assert store.array("affect").shape[0] == 12
    np.testing.assert_array_equal(store["a"].affect, open_store(path)["a"].affect)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"extractor": {"name": "mma-test", "sha256": "f" * 64}}, "extractor sha256"),
        ({"options": {"faces": "auto", "fps": 5.0}}, "options fps = None"),
        ({"detector": {"name": "scrfd:test", "sha256": "d" * 64, "threshold": 0.6}}, "threshold"),
    ],
)
def test_stores_made_in_other_ways_are_refused(
    tmp_path, write, record, detector_named, changes, named
):
    one = write("1.zarr", record("a", 5), detector=detector_named)
    two = write("2.zarr", record("b", 5), **{"detector": detector_named, **changes})
    with pytest.raises(StoreMismatchError, match=named):
        run(tmp_path / "out.zarr", one, two)
    assert not (tmp_path / "out.zarr").exists()


def test_a_video_in_two_stores(tmp_path, write, record):
    one = write("1.zarr", record("same", 5), record("mended", 0, message="broken: cut"))
    two = write("2.zarr", record("same", 5), record("mended", 9), record("new", 2))
    result = run(tmp_path / "out.zarr", one, two)
    assert (result.videos, result.failed, result.left_out) == (3, 0, 2)
    assert len(open_store(tmp_path / "out.zarr")["mended"]) == 9
    three = write("3.zarr", record("same", 8, seed=4))
    with pytest.raises(StoreMismatchError, match=r"1\.zarr and .*3\.zarr hold same"):
        run(tmp_path / "no.zarr", one, three)
    run(tmp_path / "last.zarr", one, three, duplicates="last")
    assert len(open_store(tmp_path / "last.zarr")["same"]) == 8


def test_nothing_is_overwritten_and_two_merges_do_not_meet(tmp_path, write, record):
    one = write("1.zarr", record("a", 5))
    with pytest.raises(StoreError, match="exists"):
        run(one, one)
    with WriterLock(tmp_path / "out.zarr"), pytest.raises(StoreLockedError):
        run(tmp_path / "out.zarr", one)


def test_a_kill_leaves_nothing_that_opens(tmp_path, write, record):
    one = write("1.zarr", *(record(f"{i}", 5) for i in range(6)))
    program = """
import os, signal, sys
from feie.pipeline.stores import merge

def kill(report):
    if report.done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

merge._COMMIT_VIDEOS = 1
merge.run(merge.MergeOptions(stores=(sys.argv[1],), out=sys.argv[2]), kill)
"""
    out = tmp_path / "out.zarr"
    killed = subprocess.run([sys.executable, "-c", program, str(one), str(out)], check=False)
    assert killed.returncode == -9
    assert not out.exists()
    assert list(tmp_path.glob(".out.zarr.*.merging"))  # it had begun
    run(out, one)
    assert check_store(out) == []
    assert len(open_store(out)) == 6
    assert not list(tmp_path.glob(".out.zarr.*.merging"))


def test_memory_holds_a_block_and_not_the_store(write, record, monkeypatch):
    path = write("a.zarr", *(record(f"{i:03d}", 2000) for i in range(60)))  # 21 MB of rows
    monkeypatch.setattr(joining, "_CACHE_BYTES", 1 << 20)
    stores = [open_store(path)]
    choices = joining.choose(stores)
    tracemalloc.start()
    frames = sum(len(item.time) for item in joining.chosen_records(stores, choices))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames == 120_000
    assert peak < 10e6


def test_the_command(tmp_path, write, record):
    one, two = write("1.zarr", record("a", 5)), write("2.zarr", record("b", 5))
    arguments = ["merge", str(one), str(two), "--out", str(tmp_path / "out.zarr")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["videos"] == 2
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "exists" in again.stderr
