"""Scripts without a main guard that start workers; processes without standard streams; signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from feie.features.store.reader import open_store

UNGUARDED = """
import feie
feie.extract(videos={videos!r}, store={store!r}, extractor={weights!r}, workers=2)
"""
GUARDED = """
import feie

def main():
    print(feie.extract(videos={videos!r}, store={store!r}, extractor={weights!r}, workers=1))

if __name__ == "__main__":
    main()
"""


def script(folder: Path, text: str, untrained: Path) -> Path:
    path = folder / "study.py"
    store = str(folder / "s.zarr")
    path.write_text(text.format(videos=str(folder / "v"), store=store, weights=str(untrained)))
    return path


def test_a_script_without_a_main_guard_is_told_so_in_one_sentence(
    tmp_path, untrained, clip
) -> None:
    clip(tmp_path / "v" / "a.mp4", 5)
    path = script(tmp_path, UNGUARDED, untrained)
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        "--workers runs study.py again in each worker: put line 3 under "
        '`if __name__ == "__main__":`'
    )
    assert done.stderr.count("Traceback") == 1
    assert len(done.stderr.splitlines()) < 30
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_a_script_with_a_main_guard_runs(tmp_path, untrained, clip) -> None:
    clip(tmp_path / "v" / "a.mp4", 5)
    path = script(tmp_path, GUARDED, untrained)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert open_store(tmp_path / "s.zarr").ids == ("a",) or open_store(tmp_path / "s.zarr").ids


@pytest.mark.parametrize("how", ["import feie; feie.extract", "from feie.cli import app; app"])
@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "2>&-", "0<&- 2>&-"])
def test_closed_standard_streams(tmp_path, untrained, clip, how: str, closed: str) -> None:
    clip(tmp_path / "v" / "a.mp4", 5)
    if "cli" in how:
        words = ["extract", "--videos", "v", "--store", "s.zarr", "--extractor", str(untrained)]
        call = f"import sys; sys.argv = {['feie', *words]!r}; {how}()"
    else:
        call = f"{how}(videos='v', store='s.zarr', extractor={str(untrained)!r})"
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, call]
    assert subprocess.run(command, cwd=tmp_path, timeout=240, check=False).returncode == 0
    store = open_store(tmp_path / "s.zarr")
    assert store.failures == {}
    assert len(store["a"].time) == 5


def test_a_full_disk_behind_stderr_ends_no_extraction(tmp_path, untrained, clip) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    clip(tmp_path / "v" / "a.mp4", 5)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video at all" * 100)
    words = ["extract", "--videos", "v", "--store", "s.zarr", "--extractor", str(untrained)]
    call = f"import sys; sys.argv = {['feie', *words]!r}; from feie.cli import app; app()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", call], cwd=tmp_path, stderr=full, timeout=240, check=False
        )
    assert done.returncode == 3
    assert set(open_store(tmp_path / "s.zarr").failures) == {"broken"}
    assert len(open_store(tmp_path / "s.zarr")["a"].time) == 5


def test_a_signal_to_the_whole_job_blames_no_video(tmp_path, untrained, clip) -> None:
    """SLURM sends SIGTERM, or what --signal names, to every process of a step."""
    for i in range(40):
        clip(tmp_path / "v" / f"{i:02}.mp4", 60, seed=i)
    words = ["extract", "--videos", "v", "--store", "s.zarr", "--extractor", str(untrained)]
    words += ["--commit-videos", "2", "--threads", "1"]
    call = f"import sys; sys.argv = {['feie', *words]!r}; from feie.cli import app; app()"
    run = subprocess.Popen(
        [sys.executable, "-c", call], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            if open_store(tmp_path / "s.zarr").committed >= 2:
                break
        except Exception:  # not there yet
            time.sleep(0.05)
    everyone = [run.pid, *(p.pid for p in psutil.Process(run.pid).children(recursive=True))]
    for pid in reversed(everyone):  # children first
        os.kill(pid, signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "Traceback" not in said
    store = open_store(tmp_path / "s.zarr")
    assert store.failures == {}
    assert 2 <= store.committed < 40
    assert not any(psutil.pid_exists(pid) for pid in everyone[1:])
