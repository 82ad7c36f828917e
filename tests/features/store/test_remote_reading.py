"""Stores at addresses: S3, plain HTTP, any fsspec file system; few requests, clear errors."""

from __future__ import annotations

import functools
import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

import feie
from feie.cli import app
from feie.features.errors import StoreError, StoreNotFoundError
from feie.features.store.writer import StoreWriter


class Web:
    """A plain web server of a folder that keeps what it was asked; it lists no folder."""

    def __init__(self, folder):
        asked = self.asked = []
        self.broken = self.forbidden = ""
        web = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                asked.append(self.path.split("s.zarr/")[-1])
                if web.broken and web.broken in self.path:
                    self.send_error(500, "out of order")
                elif web.forbidden and web.forbidden in self.path:
                    self.send_error(403, "not for you")
                else:
                    super().do_GET()

            def list_directory(self, path):
                self.send_error(404, "no listing")

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, settings, record, detector_named):
    """A store of three chunks of affect, and labels."""
    folder = tmp_path_factory.mktemp("remote")
    with StoreWriter(folder / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(8):
            writer.append(record(f"face-{i}", 5_000))
    splits = ["train"] * 5 + ["val"] * 3
    lines = [f"face-{i},{split},{(i * 37 % 10) / 10}" for i, split in enumerate(splits)]
    (folder / "labels.csv").write_text("\n".join(["id,split,Fear", *lines, ""]))
    return folder


@pytest.fixture
def web(folder):
    server = Web(folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def memory(folder):
    """The same store in fsspec's memory."""
    files = fsspec.filesystem("memory")
    files.put(str(folder / "s.zarr"), "/lab/s.zarr", recursive=True)
    yield "memory://lab/s.zarr"
    files.rm("/lab", recursive=True)


@pytest.fixture(scope="module")
def s3(folder):
    """The same store in a bucket of a local server that speaks S3; gives its options, too."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
    files = fsspec.filesystem("s3", **options)
    files.mkdir("lab")
    files.put(str(folder / "s.zarr"), "lab/s.zarr", recursive=True)
    yield "s3://lab/s.zarr", options
    server.stop()


def assert_same(store, folder):
    here = feie.open_store(folder / "s.zarr")
    assert store.ids == here.ids
    assert store.fingerprint == here.fingerprint
    ours, theirs = store.read(["face-6", "face-1"]), here.read(["face-6", "face-1"])
    np.testing.assert_array_equal(ours.values, theirs.values)
    np.testing.assert_array_equal(store["face-3"].landmarks, here["face-3"].landmarks)
    part = store.to_xarray()["affect"].isel(frame=slice(4_990, 5_010))
    np.testing.assert_array_equal(part.values, here.to_xarray()["affect"][4_990:5_010].values)


def test_memory(memory, folder):
    assert_same(feie.open_store(memory), folder)


def test_s3(s3, folder):
    url, options = s3
    assert_same(feie.open_store(url, storage_options=options), folder)


def test_http(web, folder):
    assert_same(feie.open_store(f"{web.url}/s.zarr"), folder)
    assert_same(feie.open_store(f"{web.url}/s.zarr/"), folder)


def test_opening_and_one_video_take_few_requests(web, folder):
    store = feie.open_store(f"{web.url}/s.zarr")
    opened = Counter(web.asked)
    assert sum(opened.values()) == 28  # the root twice, 13 arrays of the index with a chunk each
    assert not any(name.startswith(("affect", "valid", "time")) for name in opened)
    video = store["face-0"]
    assert (video.fps, len(video), len(web.asked)) == (30.0, 5_000, 28)
    _ = video.affect, video.valence, video.au("AU12")
    # Rows 0 to 5,000 lie in the first of three chunks; an array's metadata are read once.
    assert web.asked[28:] == ["affect/zarr.json", "affect/c/0/0"]
    _ = store["face-1"].affect, store["face-0"].aus
    assert len(web.asked) == 30
    _ = store["face-7"].affect
    assert web.asked[30:] == ["affect/c/2/0"]
    assert len(web.asked) < sum(p.is_file() for p in (folder / "s.zarr").rglob("*")) * 0.9
    _ = store.to_xarray()
    assert not any("/c/" in name for name in web.asked[31:])


def test_a_data_set_reads_at_an_address(memory, folder):
    here = feie.VideoDataset(folder / "s.zarr", folder / "labels.csv", split="train")
    far = feie.VideoDataset(memory, folder / "labels.csv", split="train", in_memory=False)
    assert far.ids == here.ids
    np.testing.assert_array_equal(far[4].frames, here[4].frames)


def test_worker_processes_read_at_an_address(web, folder):
    url = f"{web.url}/s.zarr"
    data = feie.VideoDataset(url, folder / "labels.csv", split="val", in_memory=False)
    expected = [b.frames for b in feie.loader(data, 2)]  # connections are open now
    found = [b.frames for b in feie.loader(data, 2, workers=1, multiprocessing_context="fork")]
    assert all((a == b).all() for a, b in zip(expected, found, strict=True))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_commands_read_at_an_address(web, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"{web.url}/s.zarr"
    few = tmp_path / "few.txt"
    few.write_text("face-2\n")
    shown = run("info", url, "--json")
    assert shown.exit_code == 0, shown.output
    assert (json.loads(shown.stdout)["store"], json.loads(shown.stdout)["videos"]) == (url, 8)
    trained = run("train-head", "--store", url, "--labels", folder / "labels.csv", "--epochs", 1,
                  "--width", 4, "--t", 50, "--json")  # fmt: skip
    assert trained.exit_code == 0, trained.output
    refused = run("evaluate")  # an address in a file is not contacted unasked
    assert (refused.exit_code, url in refused.output) == (2, True)
    scored = run("evaluate", "--store", url, "--json")
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["store"] == url
    assert run("predict", "--store", url, "--out", "p.csv").exit_code == 0
    assert run("verify", url).exit_code == 0
    assert run("dump", url, "--format", "npz", "--out", "npz", "--ids", few).exit_code == 0
    kept = feie.open_store(folder / "s.zarr")["face-2"].affect
    np.testing.assert_array_equal(np.load("npz/face-2.npz")["affect"], kept)
    assert run("merge", url, "--out", "here.zarr").exit_code == 0
    np.testing.assert_array_equal(
        feie.open_store("here.zarr")["face-5"].affect,
        feie.open_store(folder / "s.zarr")["face-5"].affect,
    )


def one_line_error(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_addresses_that_cannot_be_read_are_one_clear_line(web, s3, monkeypatch):
    url, options = s3
    missing = one_line_error("info", f"{web.url}/other.zarr")
    assert f"{web.url}/other.zarr holds no Zarr group" in missing
    assert "Protocol not known: ssj" in one_line_error("info", "ssj://lab/s.zarr")
    web.forbidden = "zarr.json"
    assert "403" in one_line_error("info", f"{web.url}/s.zarr")
    monkeypatch.setenv("AWS_ENDPOINT_URL", options["endpoint_url"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    assert "credentials" in one_line_error("info", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    fsspec.filesystem("s3").clear_instance_cache()
    assert "s3://none/s.zarr holds no Zarr group" in one_line_error("info", "s3://none/s.zarr")
    assert run("info", url).exit_code == 0  # the environment is enough
    web.close()
    refused = one_line_error("train-head", "--store", f"{web.url}/s.zarr", "--labels", __file__)
    assert "cannot be read" in refused
    assert "check the address" in refused


def test_a_server_that_breaks_down_is_told_from_a_lost_chunk(web, folder, tmp_path):
    store = feie.open_store(f"{web.url}/s.zarr")
    web.broken = "affect/c/1"
    with pytest.raises(StoreError, match=r"affect cannot be read .*500.*: try again"):
        _ = store["face-4"].affect
    web.broken = ""
    assert len(store["face-4"].affect) == 5_000  # it did
    shutil.copytree(folder / "s.zarr", tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "affect" / "c" / "1")
    other = Web(tmp_path)
    with pytest.raises(StoreError, match=r"affect of 'face-4' shows a face in"):
        _ = feie.open_store(f"{other.url}/s.zarr")["face-4"].affect
    other.close()


@pytest.mark.parametrize(
    ("module", "url"), [("aiohttp", "http://127.0.0.1:9"), ("s3fs", "s3://lab")]
)
def test_what_is_not_installed_is_named(module, url):
    code = (
        f"import sys; sys.modules[{module!r}] = None; import feie; feie.open_store('{url}/s.zarr')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    extra = url.partition(":")[0]
    said = f"{url}/s.zarr needs a library that is not installed: pip install 'feie[{extra}]'"
    assert said in done.stderr


def test_nothing_is_asked_of_a_network_without_an_address(folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(feie.open_store(folder / "s.zarr")) == 8
    with pytest.raises(StoreNotFoundError):
        feie.open_store("s3.example.org/lab/s.zarr")
