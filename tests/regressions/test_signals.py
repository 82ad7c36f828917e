"""SIGTERM and SIGUSR1, as SLURM and docker send them: what is finished is kept, as by Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.pipeline.stopping import Stopped, exit_code, stoppable

FEIE = [sys.executable, "-c", "from feie.cli import app; app()"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory, clip):
    """Two short videos, then ones that are not done when a signal comes."""
    root = tmp_path_factory.mktemp("videos")
    for i in range(6):
        clip(root / f"{i}.mp4", 20 if i < 2 else 4_000, seed=i)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_what_is_finished_is_committed(tmp_path, videos, untrained, number, code):
    command = [*FEIE, "extract", videos, tmp_path / "s.zarr", "--threads", "1"]
    # Nothing is committed before the end: what the store holds then, the signal has put there.
    command += ["--extractor", untrained, "--commit-seconds", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "s.zarr" / "video").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert f"interrupted by {number.name}; the same command goes on where it stopped" in " ".join(
        said.split()
    )
    assert "Traceback" not in said
    assert check_store(tmp_path / "s.zarr") == []
    held = open_store(tmp_path / "s.zarr").ids
    assert held[:2] == ["0", "1"]
    assert len(held) < 6
    subprocess.run(command, check=True, capture_output=True)
    assert open_store(tmp_path / "s.zarr").ids == [str(i) for i in range(6)]


def twice() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # while the first is being dealt with


def test_handlers_come_back_and_a_second_signal_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stop, stoppable():
        twice()
    assert exit_code(stop.value) == 143
    assert isinstance(stop.value, KeyboardInterrupt)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_forked_process_ends_at_once():
    ready, begun = os.pipe()
    with stoppable():
        child = os.fork()
        if child == 0:
            os.write(begun, b"!")
            time.sleep(30)
            os._exit(0)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    os.close(ready)
    os.close(begun)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work() -> None:
        with stoppable():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_commit_is_finished_first(tmp_path, settings, record, monkeypatch, number):
    from feie.features.store.writer import StoreWriter

    writing = StoreWriter._write

    def interrupted(self, records):
        os.kill(os.getpid(), number)
        writing(self, records)

    monkeypatch.setattr(StoreWriter, "_write", interrupted)
    stopped = pytest.raises(KeyboardInterrupt)
    with stopped, stoppable(), StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.append(record("a", 5))
        writer.commit()
        pytest.fail("the signal was lost")
    assert open_store(tmp_path / "s.zarr").ids == ["a"]
