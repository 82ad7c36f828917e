"""A run that dies at 3 a.m. goes on where it stopped: SIGKILL at random instants, then a resume.

Each kill falls into a fresh process (forked from a server that has imported the libraries, so
that the instants spread over the work and not over the imports; for the same reason the engine is
not isolated). After each one the store opens
at its last commit and is sound; after the resume it equals an undisturbed run, value for value.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from feie.features.store.check import check_store
from feie.features.store.layout import VIDEO_ARRAYS, frame_arrays
from feie.features.store.reader import open_store
from feie.pipeline.extract import job as extract

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["feie.pipeline.extract.job", "feie.pipeline.engine.local", "insightface.model_zoo"]
)


def start(options: extract.ExtractOptions) -> multiprocessing.process.BaseProcess:
    process = _context.Process(target=extract.run, args=(options,))
    process.start()
    return process


def finish(options: extract.ExtractOptions) -> float:
    began = time.monotonic()
    process = start(options)
    process.join(300)
    assert process.exitcode == 0
    return time.monotonic() - began


def values(path: Path) -> dict[str, np.ndarray]:
    store = open_store(path)
    offsets = np.asarray(store.array("video/offset")[: store.committed + 1])
    found = {"video/offset": offsets}
    for spec in VIDEO_ARRAYS[:1] + VIDEO_ARRAYS[2:]:
        found[f"video/{spec.name}"] = np.asarray(store.array(f"video/{spec.name}"))[
            : store.committed
        ]
    for spec in frame_arrays(store.schema):
        found[spec.name] = np.asarray(store.array(spec.name)[: offsets[-1]])
    return found


def kill_and_resume(options: extract.ExtractOptions, kills: int, tmp_path: Path) -> None:
    options = options.model_copy(update={"isolate": False})
    undisturbed = options.model_copy(update={"store": str(tmp_path / "undisturbed.zarr")})
    finish(undisturbed)
    shutil.rmtree(undisturbed.store)
    duration = finish(undisturbed)  # the second run: the server is warm
    expected = values(Path(undisturbed.store))
    rng = random.Random(int(os.environ.get("FEIE_KILL_SEED", "0")))
    committed = []
    for kill in range(kills):
        store = tmp_path / f"killed-{kill}.zarr"
        disturbed = options.model_copy(update={"store": str(store)})
        process = start(disturbed)
        time.sleep(rng.uniform(0, duration))
        process.kill()
        process.join()
        if (store / "zarr.json").exists() and "spec_version" in (store / "zarr.json").read_text():
            assert check_store(store) == []
            committed.append(open_store(store).committed)
        finish(disturbed)
        assert check_store(store) == []
        got = values(store)
        for name, array in expected.items():
            np.testing.assert_array_equal(got[name], array, err_msg=f"{name} after kill {kill}")
        shutil.rmtree(store)
        if (kill + 1) % 10 == 0:
            print(f"{kill + 1} kills, {len(committed)} of them left a store to open", flush=True)
    # The instants did fall between commits, or this test shows nothing.
    total = len(expected["video/id"])
    assert len({n for n in committed if 0 < n < total}) >= 2


@pytest.mark.slow
def test_killed_on_the_example_videos(project, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for clip in sorted((project / "data.example" / "videos").iterdir())[:8]:
        shutil.copy2(clip, clips)
    kill_and_resume(extract.ExtractOptions(videos=clips, threads=2, commit_videos=1), 10, tmp_path)


@pytest.mark.shared
@pytest.mark.slow
def test_killed_50_times_on_real_clips(shared, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("brother", "help", "hungry", "no", "thanks", "yes"):
        shutil.copy2(shared / "videos" / "asl" / f"{name}.mkv", clips)
    options = extract.ExtractOptions(
        videos=clips,
        detector=f"scrfd:{shared / 'models' / 'det_500m.onnx'}",
        fps=2,
        threads=2,
        commit_videos=1,
    )
    kill_and_resume(options, 50, tmp_path)
