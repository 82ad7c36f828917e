"""Damaged videos, a few of each container: tests/features/video/fuzz_videos.py feeds in more."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import psutil

from feie.pipeline.extract import job as extract

_spec = importlib.util.spec_from_file_location(
    "fuzz_videos", Path(__file__).parent / "fuzz_videos.py"
)
assert _spec is not None
assert _spec.loader is not None
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)


def test_damaged_videos_are_named_or_valid_and_nothing_leaks(tmp_path, untrained):
    folder = tmp_path / "videos"
    fuzz.damaged_videos(folder, 90, seed=7)  # every container in every state
    files, threads = psutil.Process().num_fds(), psutil.Process().num_threads()
    extract.run(
        extract.ExtractOptions(
            videos=folder,
            store=tmp_path / "s.zarr",
            extractor=str(untrained),
            faces="aligned",
            threads=2,
            isolate=False,
        )
    )
    ends, found = fuzz.defects(tmp_path / "s.zarr", folder)
    assert found == []
    assert ends["valid"] >= 10
    assert sum(ends.values()) - ends["valid"] >= 10
    # zarr and torch open a few for themselves; one a video would be 90.
    assert psutil.Process().num_fds() <= files + 8
    assert psutil.Process().num_threads() <= threads + 32
    assert [t.name for t in threading.enumerate() if "_work" in t.name] == []
