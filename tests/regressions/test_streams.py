"""Standard streams that cannot be written or are not there: a job goes on to its end."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feie.features.store.check import check_store
from feie.features.store.reader import open_store

FEIE = [sys.executable, "-c", "from feie.cli import app; app()"]


@pytest.fixture
def videos(tmp_path, clip) -> Path:
    """Two clips, and a broken one whose message goes to standard error."""
    for i, name in enumerate("ab"):
        clip(tmp_path / "v" / f"{name}.mp4", 20, seed=i)
    (tmp_path / "v" / "broken.mp4").write_text("no video")
    return tmp_path / "v"


def extraction(videos: Path, untrained: Path) -> list[str]:
    store = videos.parent / "s.zarr"
    options = ["extract", videos, "--store", store, "--extractor", untrained, "--no-isolate"]
    return [*FEIE, *map(str, options)]


def sound(videos: Path) -> None:
    store = videos.parent / "s.zarr"
    assert check_store(store) == []
    assert open_store(store).ids == ["a", "b"]
    assert set(open_store(store).failures) == {"broken"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_error(videos, untrained):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            extraction(videos, untrained), stderr=full, stdout=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    assert "2 extracted" in done.stdout
    sound(videos)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_told_after_the_work(videos, untrained):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            extraction(videos, untrained), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert "done, but the result cannot be printed" in done.stderr
    assert "Traceback" not in done.stderr
    sound(videos)


def test_a_terminal_that_goes_away_in_the_middle(videos, untrained):
    """The bars are drawn by a thread; what it cannot write must end neither it nor the job."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        extraction(videos, untrained), stderr=theirs, stdout=subprocess.PIPE, text=True
    )
    os.close(theirs)
    time.sleep(0.5)
    os.close(ours)  # every write gives EIO from now on
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "2 extracted" in said
    sound(videos)


def test_a_daemon_without_any_stream(videos, untrained):
    """Descriptors 0 to 2 are closed: the store's own files must not get their numbers."""

    def close() -> None:
        for number in range(3):
            os.close(number)

    command = extraction(videos, untrained)
    process = subprocess.Popen(command, preexec_fn=close, close_fds=True)
    assert process.wait(120) == 3
    sound(videos)
    command.remove("--no-isolate")
    process = subprocess.Popen([*command, "--retry-failed"], preexec_fn=close)
    assert process.wait(120) == 3
    sound(videos)


def test_a_reader_that_has_enough(example_folder):
    command = [*FEIE, "info", str(example_folder / "features.zarr")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert said == ""
