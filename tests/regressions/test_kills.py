"""Issue 19, kills: SIGKILL at random instants of the first write of dump, import and merge.

Afterwards the same command is given again, and every value of the result is compared with that of
an undisturbed run. ``FEIE_KILLS`` sets how many kills fall upon each (1 unless told otherwise).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from feie.features.errors import StoreError
from feie.features.formats.reading.imported import ReadOptions
from feie.features.formats.registry import find_format
from feie.features.store.check import check_store
from feie.features.store.layout import frame_arrays
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.dump import job as dump
from feie.pipeline.imports import job as imports
from feie.pipeline.stores import merge

KILLS = int(os.environ.get("FEIE_KILLS", "1"))
FORMATS = {"hdf5": ".h5", "hdf5-groups": ".h5", "parquet": ".parquet",
           "safetensors": ".safetensors", "npz": "", "muse": "", "openface": ""}  # fmt: skip
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([
    "feie.pipeline.dump.job", "feie.pipeline.imports.job", "feie.pipeline.stores.merge",
    "feie.features.formats.own.hdf5", "feie.features.formats.own.parquet",
    "feie.features.formats.own.safetensors", "feie.features.formats.own.muse",
])  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def killed_and_resumed(run, options, seconds, seed):
    """Kill a command at a random instant, then give it again; tells whether the kill came in time.

    Its server has imported the libraries, so that the instants spread over the work.
    """
    process = _context.Process(target=run, args=(options,))
    process.start()
    time.sleep(random.Random(seed).uniform(0.02, seconds))
    process.kill()
    process.join()
    in_time = process.exitcode == -9
    run(options)
    return in_time


def timed(run, options):
    """Seconds that the command takes in a process of the warm server."""
    began = time.monotonic()
    process = _context.Process(target=run, args=(options,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - began


@pytest.fixture(scope="module")
def store(tmp_path_factory, settings, record):
    path = tmp_path_factory.mktemp("kills") / "s.zarr"
    with StoreWriter(path, settings) as writer:
        for i in range(60):
            writer.append(record(f"clips/{i:03d}", 100 + i, seed=i))
    return path


def frames(path):
    store = open_store(path)
    return {
        spec.name: np.asarray(store.read_rows(spec.name, slice(store.frames)))
        for spec in frame_arrays(store.schema)
    }


def assert_same_frames(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def rows_of(form, out):
    """Every number of a dump, by video, as `feie import` reads it."""
    read = find_format(f"feie-{form}").open(out, ReadOptions())
    found = {}
    for file in read.files:
        for video in read.read(file, set(read.ids(file))):
            found[video.video_id] = (video.values, video.time, video.valid)
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_the_first_dump_of_each_format(store, tmp_path, form):
    def asked(name):
        return dump.DumpOptions(
            store=str(store), format=form, out=tmp_path / (name + FORMATS[form])
        )

    seconds = timed(dump.run, asked("expected"))
    expected = rows_of(form, asked("expected").out)
    assert len(expected) == 60
    for kill in range(KILLS):
        options = asked(f"killed-{kill}")
        killed_and_resumed(dump.run, options, seconds, kill)
        got = rows_of(form, options.out)
        assert got.keys() == expected.keys()
        for video_id, arrays in expected.items():
            for one, other in zip(arrays, got[video_id], strict=True):
                np.testing.assert_array_equal(one, other)
    left = [p.name for p in tmp_path.rglob("*") if p.name.endswith((".partial", ".dumping"))]
    assert left == []


def test_the_first_import(store, tmp_path):
    dump.run(dump.DumpOptions(store=str(store), format="npz", out=tmp_path / "npz"))

    def asked(name):
        return imports.ImportFeaturesOptions(
            source=tmp_path / "npz", store=tmp_path / name, commit_videos=5
        )

    seconds = timed(imports.run, asked("expected.zarr"))
    expected = frames(tmp_path / "expected.zarr")
    for kill in range(KILLS):
        options = asked(f"killed-{kill}.zarr")
        killed_and_resumed(imports.run, options, seconds, kill)
        assert check_store(options.store) == []
        assert open_store(options.store).ids == open_store(store).ids
        assert_same_frames(frames(options.store), expected)


def test_the_first_merge(store, tmp_path):
    def asked(name):
        return merge.MergeOptions(stores=(str(store),), out=tmp_path / name)

    seconds = timed(merge.run, asked("expected.zarr"))
    expected = frames(tmp_path / "expected.zarr")
    for kill in range(KILLS):
        options = asked(f"killed-{kill}.zarr")
        process = _context.Process(target=merge.run, args=(options,))
        process.start()
        time.sleep(random.Random(kill).uniform(0.02, seconds))
        process.kill()
        process.join()
        if not options.out.exists():  # whatever is there is complete
            merge.run(options)
        assert check_store(options.out) == []
        assert_same_frames(frames(options.out), expected)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".merging")]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_during_a_merge_leaves_no_working_folder(store, small_disk):
    with pytest.raises(StoreError, match="the disk is full"):
        merge.run(merge.MergeOptions(stores=(str(store),), out=small_disk / "m.zarr"))
    assert [p.name for p in Path(small_disk).iterdir() if not p.name.endswith(".lock")] == []
