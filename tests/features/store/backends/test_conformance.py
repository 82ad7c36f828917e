"""What every backend of a store promises; each runs the same tests: a folder, memory, S3."""

from __future__ import annotations

import logging
import uuid

import fsspec
import numpy as np
import pytest
import zarr

from feie.features.errors import StoreError, StoreLockedError
from feie.features.store.backends.base import disk_errors
from feie.features.store.backends.lease import Lease
from feie.features.store.backends.location import open_root
from feie.features.store.backends.opening import backend_of
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter


@pytest.fixture(scope="module")
def s3():
    """A bucket of a local server that speaks S3."""
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    fsspec.filesystem("s3", endpoint_url=url, key="k", secret="s").mkdir("conforming")
    yield {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    server.stop()


class Conformance:
    """The tests; a subclass says where its stores lie."""

    @pytest.fixture
    def path(self, tmp_path) -> str:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch):
        monkeypatch.setattr("feie.features.store.backends.bucket.Lease", _quick_lease)

    def test_what_is_written_is_read(self, path, settings, record):
        made = [record("a", 40), record("b/c", 7), record("d", 0, message="empty: no bytes")]
        for item in made:  # a session each: layout, then appends
            with StoreWriter(path, settings) as writer:
                writer.append(item)
        store = open_store(path)
        assert store.ids == ["a", "b/c"]
        assert store.failures == {"d": "empty: no bytes"}
        for item in made[:2]:
            np.testing.assert_array_equal(store[item.id].affect, item.affect)
            np.testing.assert_array_equal(store[item.id].time, item.time)
        rows = store.read(["b/c", "a"])
        np.testing.assert_array_equal(rows.values, np.concatenate([made[1].affect, made[0].affect]))
        assert check_store(path) == []

    def test_a_replaced_video_is_the_last_one(self, path, settings, record):
        with StoreWriter(path, settings) as writer:
            writer.append(record("a", 40))
            writer.commit()
            writer.append(record("a", 9, seed=1))
        store = open_store(path)
        assert len(store["a"]) == 9
        assert list(store.rows["status"]) == ["superseded", "ok"]
        assert check_store(path) == []

    def test_one_writes(self, path):
        one, other = backend_of(path), backend_of(path)
        one.claim()
        try:
            with pytest.raises(StoreLockedError, match="another process writes this store"):
                other.claim()
            one.confirm()
        finally:
            one.release()
        one.release()  # harmless
        other.claim()
        other.release()

    def test_keys_are_whole_and_go(self, path):
        backend = backend_of(path)
        backend.claim()
        try:
            assert backend.root() is None
            root = zarr.create_group(backend.disk, attributes={"n": 1})
            backend.appeared()
            root.create_array("x", shape=(4,), chunks=(2,), dtype="f4")[:] = 1
            backend.flush()
            assert backend.root() is not None
            root["x"].resize((2,))
            root["x"].resize((4,))
            assert list(root["x"][:]) == [1, 1, 0, 0]
            backend.clear()
            backend.tidy()
            assert "x" not in zarr.open_group(backend.disk, mode="r")
        finally:
            backend.release()
        assert dict(open_root(path).attrs) == {"n": 1}

    def test_something_else_is_refused(self, path, settings, record):
        backend = backend_of(path)
        backend.refuse_foreign()
        self.put_something(path)
        with pytest.raises(StoreError, match="exists and is no store"):
            backend.refuse_foreign()
        with pytest.raises(StoreError, match="exists and is no store"), StoreWriter(path, settings):
            pass

    def test_a_disk_that_fails_is_one_sentence(self, path):
        backend = backend_of(path)
        full = "the disk is full; free some space; the same command goes on"
        with pytest.raises(StoreError, match=full), disk_errors(backend):
            raise OSError(28, "No space left on device")

    def put_something(self, path: str) -> None:
        files, place = fsspec.core.url_to_fs(path)
        files.pipe_file(f"{place}/notes.txt", b"mine")


def _quick_lease(files, path, **options):
    return Lease(files, path, beat=0.05, patience=0.4, **options)


class TestFolder(Conformance):
    @pytest.fixture
    def path(self, tmp_path):
        return str(tmp_path / "s.zarr")

    def put_something(self, path: str) -> None:
        files, place = fsspec.core.url_to_fs(path)
        files.mkdir(place)
        super().put_something(path)


class TestMemory(Conformance):
    @pytest.fixture
    def path(self):
        return f"memory://{uuid.uuid4().hex}/s.zarr"


class TestS3(Conformance):
    @pytest.fixture
    def path(self, s3, monkeypatch):
        for name, value in s3.items():
            monkeypatch.setenv(name, value)
        return f"s3://conforming/{uuid.uuid4().hex}/s.zarr"

    def put_something(self, path: str) -> None:
        files, place = fsspec.core.url_to_fs(path, skip_instance_cache=True)
        files.pipe_file(f"{place}/notes.txt", b"mine")
