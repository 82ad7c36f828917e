"""Stores written at addresses: S3 and fsspec's memory; one writer, kills, servers that go away."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

import feie
from feie.cli import app
from feie.features.errors import StoreError, StoreLockedError, StoreMismatchError
from feie.features.store.backends.lease import Lease
from feie.features.store.backends.opening import backend_of
from feie.features.store.writer import StoreWriter

ARRAYS = ("affect", "time", "valid", "face_score", "bbox", "landmarks")


@pytest.fixture
def memory():
    """An empty folder in fsspec's memory, and its file system."""
    files = fsspec.filesystem("memory")
    files.pipe_file("/writing/other", b"")
    yield "memory://writing", files
    files.rm("/writing", recursive=True)


@pytest.fixture(scope="module")
def s3():
    """A bucket of a local server that speaks S3: its address and what a process needs for it."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    files = fsspec.filesystem("s3", endpoint_url=url, key="k", secret="s")
    files.mkdir("written")
    names = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    yield "s3://written", names, files
    server.stop()


def quick(store: str, beat: float = 0.05, patience: float = 0.4, **options) -> Lease:
    """A lease of a store that is given up soon."""
    backend = backend_of(store)
    return Lease(backend._files, backend._path, beat=beat, patience=patience, **options)


@pytest.fixture
def quickly(monkeypatch):
    """Leases of all writers are given up soon."""
    monkeypatch.setattr("feie.features.store.backends.bucket.Lease", _quick_lease)


def _quick_lease(files, path, **options):
    return Lease(files, path, beat=0.05, patience=0.4, **options)


def assert_same(one, other):
    one, other = feie.open_store(one), feie.open_store(other)
    assert one.ids == other.ids
    assert one.fingerprint == other.fingerprint
    assert one.failures == other.failures
    for name in ARRAYS:
        for video in one.ids:
            np.testing.assert_array_equal(getattr(one[video], name), getattr(other[video], name))


def fill(store, settings, record, detector_named):
    """Two runs: new videos, one replaced, one that failed."""
    with StoreWriter(store, settings, commit_videos=2) as writer:
        writer.use_detector(detector_named)
        for i in range(5):
            writer.append(record(f"face-{i}", 4_000, seed=i))
        writer.append(record("face-bad", 0, message="empty: no bytes"))
    with StoreWriter(store, settings) as writer:
        assert len(writer.known) == 6
        writer.touch({"face-0": 77})
        writer.append(record("face-1", 3_000, seed=9))


def test_an_address_holds_what_a_folder_holds(
    memory, tmp_path, settings, record, detector_named, quickly
):
    url, files = memory
    fill(f"{url}/s.zarr", settings, record, detector_named)
    fill(tmp_path / "s.zarr", settings, record, detector_named)
    assert_same(f"{url}/s.zarr", tmp_path / "s.zarr")
    kept = {
        str(path.relative_to(tmp_path / "s.zarr")): path.read_bytes()
        for path in (tmp_path / "s.zarr").rglob("*")
        if path.is_file()
    }
    there = {
        key.removeprefix("/writing/s.zarr/"): files.cat_file(key)
        for key in files.find("/writing/s.zarr")
    }
    assert there.keys() == kept.keys()
    different = {name for name in kept if kept[name] != there[name]}
    assert different <= {"zarr.json"}  # the time of the sessions
    assert not files.exists("/writing/s.zarr.lock.json")
    assert not files.exists("/writing/s.zarr.lock.signs.json")
    assert CliRunner().invoke(app, ["verify", f"{url}/s.zarr"]).exit_code == 0


def test_other_options_are_refused_at_an_address(memory, settings, record, quickly):
    from dataclasses import replace

    url, _ = memory
    with StoreWriter(f"{url}/s.zarr", settings) as writer:
        writer.append(record("a", 10))
    with (
        pytest.raises(StoreMismatchError, match=r"memory://writing/s\.zarr was made with options"),
        StoreWriter(f"{url}/s.zarr", replace(settings, options={"fps": 5.0})),
    ):
        pass
    with StoreWriter(f"{url}/s.zarr", settings) as writer:  # the lease was given back
        assert list(writer.known.index) == ["a"]


def test_what_is_no_store_is_refused(memory, settings):
    url, files = memory
    files.pipe_file("/writing/notes/a.txt", b"mine")
    with pytest.raises(StoreError, match="exists and is no store"), StoreWriter(
        f"{url}/notes", settings
    ):  # fmt: skip
        pass
    assert files.cat_file("/writing/notes/a.txt") == b"mine"
    for url in ("file:///tmp/s.zarr", "sftp://lab/s.zarr", "simplecache::s3://lab/s.zarr"):
        with pytest.raises(StoreError, match="neither a path nor an object store"):
            StoreWriter(url, settings)
    with pytest.raises(StoreError, match="may stand in the address"):
        StoreWriter("memory://writing/run[1]/s.zarr", settings)


def test_a_store_killed_while_being_laid_out_starts_anew(memory, settings, record, quickly):
    url, files = memory
    with StoreWriter(f"{url}/s.zarr", settings) as writer:
        writer.append(record("a", 10))
    root = json.loads(files.cat_file("/writing/s.zarr/zarr.json"))
    root["attributes"] = {"feie": "being laid out"}
    files.pipe_file("/writing/s.zarr/zarr.json", json.dumps(root).encode())
    files.rm("/writing/s.zarr/bbox/zarr.json")
    with StoreWriter(f"{url}/s.zarr", settings) as writer:
        assert not len(writer.known)
        writer.append(record("b", 10))
    assert feie.open_store(f"{url}/s.zarr").ids == ["b"]


def test_a_second_writer_is_refused_and_told_of_the_first(memory, settings, record, quickly):
    url, _ = memory
    with StoreWriter(f"{url}/s.zarr", settings) as writer:
        with (
            pytest.raises(StoreLockedError, match=f"process {os.getpid()} on "),
            StoreWriter(f"{url}/s.zarr", settings),
        ):
            pass
        writer.append(record("a", 10))
    assert feie.open_store(f"{url}/s.zarr").ids == ["a"]


def test_of_two_that_start_together_one_writes(memory):
    url, _ = memory
    first, second = quick(f"{url}/s.zarr"), quick(f"{url}/s.zarr")
    assert first._create()
    assert not second._create()
    # Where a file system knows no exclusive writing, the last one to write has it.
    second._claim()
    with pytest.raises(StoreLockedError, match="has taken over"):
        first.confirm()
    second.confirm()


def test_a_dead_holder_is_waited_for_and_then_succeeded(memory):
    url, _ = memory
    dead = quick(f"{url}/s.zarr")
    dead._claim()
    said = []
    heir = quick(f"{url}/s.zarr", waiting=said.append)
    began = time.monotonic()
    heir.acquire()
    assert time.monotonic() - began >= 0.4
    assert f"process {os.getpid()} on" in said[0]
    heir.release()
    free = quick(f"{url}/s.zarr", patience=60.0)
    free.acquire()  # at once
    free.release()


def test_a_lock_file_that_is_none_is_no_obstacle(memory):
    url, files = memory
    files.pipe_file("/writing/s.zarr.lock.json", b"[]")
    lease = quick(f"{url}/s.zarr")
    lease.acquire()
    lease.confirm()
    lease.release()


def test_a_late_sign_of_life_takes_nothing_back(memory):
    url, files = memory
    slept, heir = quick(f"{url}/s.zarr"), quick(f"{url}/s.zarr")
    slept.acquire()
    slept._done.set()
    slept._keeper.join()
    heir.acquire()
    slept._sign(99)  # hung in the network until now
    heir.confirm()
    with pytest.raises(StoreLockedError, match="taken over"):
        slept.confirm()
    slept.release()
    assert files.exists("/writing/s.zarr.lock.json")  # the heir's
    heir.release()
    assert not files.exists("/writing/s.zarr.lock.json")


def test_a_writer_stopped_in_mid_commit_asks_before_the_next_write(
    memory, settings, record, quickly
):
    url, files = memory
    store = f"{url}/s.zarr"
    slept = StoreWriter(store, settings).__enter__()
    slept.append(record("a", 10))
    slept.commit()
    slept._backend._lease._done.set()
    slept._backend._lease._keeper.join()
    slept._backend.confirm()  # a commit begins, and here the machine falls asleep
    with StoreWriter(store, settings) as heir:
        heir.append(record("b", 10))
    before = everything(files)
    with pytest.raises(StoreLockedError, match="taken over"):
        slept._write([record("c", 10)])
    assert everything(files) == before
    slept._backend.release()


@pytest.mark.parametrize("answer", ["lost", "no such thing"])
def test_beginning_where_servers_answer_oddly(memory, answer):
    url, files = memory
    lease = quick(f"{url}/s.zarr")
    real = lease._files.pipe_file

    def odd(path, content, **options):
        if "mode" not in options:
            return real(path, content)
        if answer == "lost":  # written, and then refused because it is there
            real(path, content)
            raise FileExistsError(path)
        raise OSError(errno.ENOSYS, "A header you provided implies functionality")

    lease._files.pipe_file = odd
    lease.acquire()
    lease.confirm()
    lease.release()
    assert not files.exists("/writing/s.zarr.lock.json")


def test_a_start_that_is_interrupted_leaves_no_lease(memory, monkeypatch):
    url, files = memory
    lease = quick(f"{url}/s.zarr")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("feie.features.store.backends.lease.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lease.acquire()
    assert not files.exists("/writing/s.zarr.lock.json")


_APPEND = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import make_record
from feie.features.schema import AFFECT
from feie.features.store.records import StoreSettings
from feie.features.store.writer import StoreWriter
settings = StoreSettings(
    AFFECT, {"name": "mma-test", "sha256": "e" * 64}, {"faces": "auto", "fps": None},
    session={"versions": {}},
)
with StoreWriter(sys.argv[2], settings) as writer:
    writer.append(make_record("b", 60_000))
"""


def test_listings_that_others_remember_are_not_believed(s3, settings, record, monkeypatch):
    _, names, _ = s3
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    url = "s3://written/listed.zarr"
    with StoreWriter(url, settings) as writer:
        writer.append(record("a", 40_000))
    fsspec.filesystem("s3").find("written/listed.zarr", detail=True)
    fsspec.filesystem("s3").du("written/listed.zarr")
    elsewhere = [sys.executable, "-c", _APPEND, str(Path(__file__).parents[2]), url]
    subprocess.run(elsewhere, check=True, env=os.environ | names)
    with StoreWriter(url, settings) as writer:
        writer.append(record("c", 100))
    for video, frames in (("a", 40_000), ("b", 60_000), ("c", 100)):
        found, made = feie.open_store(url)[video], record(video, frames)
        np.testing.assert_array_equal(found.time, made.time)
        np.testing.assert_array_equal(found.valid, made.valid)
        np.testing.assert_array_equal(found.affect, made.affect)
    fsspec.filesystem("s3").clear_instance_cache()


def everything(files):
    return {key: files.cat_file(key) for key in files.find("/writing/s.zarr")}


def test_a_holder_taken_for_dead_writes_no_more(memory, settings, record, quickly):
    url, files = memory
    store = f"{url}/s.zarr"
    slept = StoreWriter(store, settings).__enter__()
    slept.append(record("a", 10))
    slept.commit()
    slept._backend._lease._done.set()  # its machine sleeps
    slept._backend._lease._keeper.join()
    with StoreWriter(store, settings) as heir:
        heir.append(record("b", 10))
        heir.commit()
        slept.append(record("c", 10))
        before = everything(files)
        with pytest.raises(StoreLockedError, match="taken over this store"):
            slept.commit()
        slept.__exit__(None, None, None)
        assert everything(files) == before
        heir.append(record("d", 10))
    assert feie.open_store(store).ids == ["a", "b", "d"]


def extraction(url, names, videos, weights, *more):
    command = [sys.executable, "-m", "feie.cli", "extract", "--videos", str(videos)]
    command += ["--store", url, "--extractor", str(weights), "--device", "cpu"]
    return subprocess.Popen(
        [*command, *more], env=os.environ | names, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_an_extraction_to_s3_that_is_killed_goes_on(s3, tmp_path, untrained, clip):
    root, names, files = s3
    for i in range(6):
        clip(tmp_path / "videos" / f"{i}.mp4", 60, seed=i)
    url = f"{root}/killed.zarr"
    running = extraction(url, names, tmp_path / "videos", untrained, "--commit-videos", "1")
    while not files.exists("written/killed.zarr/zarr.json") or not json.loads(
        files.cat_file("written/killed.zarr/zarr.json")
    )["attributes"].get("committed"):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert files.exists("written/killed.zarr.lock.json")
    again = extraction(url, names, tmp_path / "videos", untrained, "--json")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "watching for 30 s" in err
    assert json.loads(out)["skipped"] >= 1
    here = extraction(str(tmp_path / "here.zarr"), {}, tmp_path / "videos", untrained)
    assert here.wait() == 0
    options = {"endpoint_url": names["AWS_ENDPOINT_URL"], "key": "k", "secret": "s"}
    there, local = feie.open_store(url, options), feie.open_store(tmp_path / "here.zarr")
    assert there.ids == local.ids
    assert there.fingerprint == local.fingerprint
    for video in local.ids:
        np.testing.assert_array_equal(there[video].affect, local[video].affect)
    assert not files.exists("written/killed.zarr.lock.json")


def test_a_server_that_goes_away_is_one_line_and_loses_nothing(
    tmp_path, settings, record, monkeypatch
):
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "k"),
                        ("SECRET_ACCESS_KEY", "s"), ("MAX_ATTEMPTS", "1")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    fsspec.filesystem("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    files.retries = 1
    files.mkdir("away")
    with StoreWriter("s3://away/s.zarr", settings) as writer:
        writer.append(record("a", 10))
        writer.commit()
        assert feie.open_store("s3://away/s.zarr").ids == ["a"]
        server.stop()
        writer.append(record("b", 10))
        with pytest.raises(StoreError, match=r"cannot write s3://away/s.zarr: .*the same command"):
            writer.commit()
    fsspec.filesystem("s3").clear_instance_cache()


def test_addresses_that_cannot_be_written_are_refused_in_one_line(tmp_path, untrained, clip):
    clip(tmp_path / "videos" / "a.mp4", 5)
    for url, said in (
        ("https://example.org/s.zarr", "cannot be written to a web server"),
        ("file:///tmp/s.zarr", "neither a path nor an object store"),
        ("ssj://lab/s.zarr", "neither a path nor an object store"),
        ("", "give a folder, or an address"),
    ):
        result = CliRunner().invoke(
            app, ["extract", "--videos", str(tmp_path / "videos"), "--store", url,
                  "--extractor", str(untrained)],
        )  # fmt: skip
        assert result.exit_code == 2, result.output
        assert said in result.stderr.replace("\n", " ")


def test_extract_takes_an_address_and_says_how_to_repeat_it(
    memory, tmp_path, untrained, clip, quickly
):
    url, _ = memory
    clip(tmp_path / "videos" / "a.mp4", 12)
    options = {"videos": tmp_path / "videos", "store": f"{url}/s.zarr", "extractor": str(untrained)}
    planned = feie.extract(**options, dry_run=True, isolate=False)
    assert planned.planned == ["a"]
    assert feie.extract(**options, isolate=False).frames == 12
    again = feie.extract(**options, isolate=False)
    assert (again.extracted, again.skipped, again.store) == (0, 1, f"{url}/s.zarr")
    shown = CliRunner().invoke(app, ["info", f"{url}/s.zarr", "--reproduce"])
    assert shown.exit_code == 0
    assert f"--store {url}/s.again.zarr" in shown.stdout.replace("\n", "")


def test_a_dry_run_without_credentials_is_one_line(tmp_path, clip, monkeypatch):
    clip(tmp_path / "videos" / "a.mp4", 5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    for endpoint, said in (("http://127.0.0.1:9", "credentials"), ("localhost:9000", "endpoint")):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        result = CliRunner().invoke(
            app, ["extract", "--videos", str(tmp_path / "videos"), "--dry-run",
                  "--store", "s3://lab/s.zarr"],
        )  # fmt: skip
        assert result.exit_code == 2, result.output
        assert len(result.stderr.strip().splitlines()) == 1
        assert said in result.stderr
