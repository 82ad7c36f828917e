"""The store: what it keeps, commits, refuses, and survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from feie.features.errors import (
    FeieError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreVersionError,
    UsageError,
)
from feie.features.schema import AFFECT, Schema
from feie.features.store import rows
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter


def write(path, settings, records, **options):
    with StoreWriter(path, settings, **options) as writer:
        for record in records:
            writer.append(record)


def test_roundtrip(tmp_path, settings, record):
    records = [record("b", 7), record("a/x", 12), record("c", 0, message="empty: no bytes")]
    write(tmp_path / "s.zarr", settings, records)
    store = open_store(tmp_path / "s.zarr")
    assert store.ids == ["a/x", "b"]
    assert store.failures == {"c": "empty: no bytes"}
    for kept in records[:2]:
        view = store[kept.id]
        assert len(view) == len(kept.time)
        for name in ("affect", "time", "valid", "face_score", "bbox", "landmarks"):
            np.testing.assert_array_equal(getattr(view, name), getattr(kept, name))
    assert store.videos.loc["b", "faces"] == pytest.approx(6 / 7)
    assert store.schema == AFFECT
    with pytest.raises(UsageError, match="failed: empty"):
        store["c"]
    with pytest.raises(UsageError, match="no video 'nope'"):
        store["nope"]


def test_uncommitted_rows_are_not_seen_and_are_cut_off(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, settings) as writer:
        writer.append(record("a", 5))
        writer.commit()
        writer.append(record("b", 5))
        assert open_store(path).ids == ["a"]
    assert open_store(path).ids == ["a", "b"]
    # What a kill between the arrays and the mark leaves: longer arrays, the old mark.
    attributes = json.loads((path / "zarr.json").read_text())
    attributes["attributes"]["committed"] = 1
    (path / "zarr.json").write_text(json.dumps(attributes))
    assert open_store(path).ids == ["a"]
    write(path, settings, [record("c", 3)])
    store = open_store(path)
    assert store.ids == ["a", "c"]
    assert store.array("affect").shape[0] == 8
    np.testing.assert_array_equal(store["c"].affect, record("c", 3).affect)


def test_a_changed_source_replaces_the_old_row(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5), record("b", 4)])
    write(path, settings, [record("a", 6, seed=1)])
    store = open_store(path)
    assert store.ids == ["a", "b"]
    np.testing.assert_array_equal(store["a"].affect, record("a", 6, seed=1).affect)
    assert list(store.rows["status"]) == ["superseded", "ok", "ok"]
    # A kill after the commit but before the mark: the newest committed row of an id still counts.
    store_status = StoreWriter(path, settings)
    with store_status as writer:
        writer._array("video/status")[0] = np.array("ok")
    assert len(open_store(path)["a"]) == 6
    write(path, settings, [])
    assert list(open_store(path).rows["status"]) == ["superseded", "ok", "ok"]


def test_sessions_say_which_versions_made_which_videos(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5), record("b", 5)])
    write(path, replace(settings, session={"versions": {"feie": "newer"}}), [record("c", 5)])
    sessions = open_store(path).provenance["sessions"]
    assert [(s["first"], s["last"], s["versions"]["feie"]) for s in sessions] == [
        (0, 2, "test"),
        (2, 3, "newer"),
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"extractor": {"name": "mma-test", "sha256": "f" * 64}}, "extractor sha256"),
        ({"options": {"faces": "auto", "fps": 10.0}}, "options fps"),
    ],
)
def test_other_weights_or_options_are_refused_by_name(tmp_path, settings, record, change, named):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    with pytest.raises(StoreMismatchError, match=named):
        write(path, replace(settings, **change), [])
    assert open_store(path).ids == ["a"]


def test_other_columns_are_refused(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    other = replace(settings, schema=Schema(("valence",), {"va": (0, 1)}))
    with pytest.raises(StoreMismatchError, match="valence"):
        write(path, other, [])


def test_the_first_detector_used_is_the_store_s(tmp_path, settings, record, detector_named):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    assert open_store(path).provenance["detector"] is None
    with StoreWriter(path, settings) as writer:
        writer.use_detector(detector_named)
        writer.append(record("b", 5))
    assert open_store(path).provenance["detector"] == detector_named
    write(path, settings, [record("c", 5)])
    assert open_store(path).provenance["detector"] == detector_named
    other = {**detector_named, "name": "yunet:x"}
    with (
        StoreWriter(path, settings) as writer,
        pytest.raises(StoreMismatchError, match="detector name"),
    ):
        writer.use_detector(other)


def test_a_second_writer_is_told_who_writes(tmp_path, settings):
    path = tmp_path / "s.zarr"
    with (
        StoreWriter(path, settings),
        pytest.raises(StoreLockedError, match=str(os.getpid())),
        StoreWriter(path, settings),
    ):
        pass
    write(path, settings, [])


def test_foreign_folders_are_left_alone(tmp_path, settings):
    import zarr

    foreign = tmp_path / "mine.zarr"
    zarr.create_group(foreign).create_array("data", shape=(3,), dtype="f4")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("x")
    for path in (foreign, tmp_path / "folder"):
        before = sorted(p.name for p in path.rglob("*"))
        with pytest.raises(StoreError):
            write(path, settings, [])
        assert sorted(p.name for p in path.rglob("*")) == before
    with pytest.raises(StoreError, match="no feie store"):
        open_store(foreign)
    with pytest.raises(StoreNotFoundError):
        open_store(tmp_path / "folder")
    with pytest.raises(StoreNotFoundError, match="feie extract"):
        open_store(tmp_path / "absent.zarr")


def test_another_version_is_refused(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"spec_version": "1.', '"spec_version": "9.'))
    with pytest.raises(StoreVersionError, match="specification 9"):
        open_store(path)
    with pytest.raises(StoreVersionError):
        write(path, settings, [])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, to be filled or made read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and CAP_SYS_ADMIN")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_read_only_disk_is_one_clear_error(small_disk, settings, record):
    write(small_disk / "s.zarr", settings, [record("a", 5)])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match=r"cannot write .*[Rr]ead-only"):
        write(small_disk / "s.zarr", settings, [record("b", 5)])
    with pytest.raises(StoreError, match=r"cannot write .*[Rr]ead-only"):
        write(small_disk / "t.zarr", settings, [record("b", 5)])
    assert open_store(small_disk / "s.zarr").ids == ["a"]


def test_a_truly_full_disk(small_disk, settings, record):
    path = small_disk / "s.zarr"
    write(path, settings, [record("a", 50)])
    filler = small_disk / "filler"
    filler.write_bytes(os.urandom(shutil.disk_usage(small_disk).free))
    with pytest.raises(StoreError, match="disk is full"):
        write(path, settings, [record("b", 5000)])
    assert open_store(path).ids == ["a"]
    filler.unlink()
    write(path, settings, [record("b", 50)])
    assert open_store(path).ids == ["a", "b"]
    np.testing.assert_array_equal(open_store(path)["a"].affect, record("a", 50).affect)


def test_a_disk_full_in_mid_commit_loses_nothing_committed(tmp_path, settings, record, monkeypatch):
    """The write that fails is real up to the fsync, which says what a full disk says."""
    import errno

    from feie.features.store.backends import durable

    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    calls = 0
    real = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        write(path, settings, [record("b", 5)])
    monkeypatch.setattr(durable.os, "fsync", real)
    assert open_store(path).ids == ["a"]
    np.testing.assert_array_equal(open_store(path)["a"].affect, record("a", 5).affect)
    write(path, settings, [record("b", 5)])
    assert open_store(path).ids == ["a", "b"]
    np.testing.assert_array_equal(open_store(path)["b"].affect, record("b", 5).affect)


def crash_at(instant: int, path, settings, records) -> bool:
    """Write in a child that dies at its n-th durable write; tell whether it died."""
    code = os.fork()
    if code == 0:
        from feie.features.store.backends import durable

        left = instant

        def write_or_die(descriptor: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)

        durable.os.fsync = write_or_die
        try:
            write(path, settings, records, commit_videos=2)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 9


@pytest.mark.slow
def test_a_crash_at_every_single_write_loses_nothing_committed(tmp_path, settings, record):
    """Creation, commits, marks: the child dies at write 0, 1, 2, … until it lives to the end."""
    records = [record("a", 5), record("b", 4), record("c", 6), record("a", 3, seed=1)]
    write(tmp_path / "whole.zarr", settings, records)
    whole = open_store(tmp_path / "whole.zarr")
    instant, seen = 0, set()
    while True:
        path = tmp_path / "s.zarr"
        died = crash_at(instant, path, settings, records)
        committed = 0
        if (path / "zarr.json").exists() and "spec_version" in (path / "zarr.json").read_text():
            committed = open_store(path).committed
            assert check_store(path) == []
        seen.add(committed)
        write(path, settings, records[committed:])
        store = open_store(path)
        assert check_store(path) == []
        assert list(store.rows["status"]) == ["superseded", "ok", "ok", "ok"]
        for video_id in whole.ids:
            np.testing.assert_array_equal(store[video_id].affect, whole[video_id].affect)
        shutil.rmtree(path)
        if not died:
            break
        instant += 5  # every fifth: some fifty children
    assert seen == {0, 2, 4}


def test_an_interrupt_in_mid_commit_waits_for_its_end(tmp_path, settings, record, monkeypatch):
    from feie.features.store.backends.durable import DurableStore

    real = DurableStore.flush

    def interrupted(self) -> None:
        signal.raise_signal(signal.SIGINT)
        real(self)

    writer = StoreWriter(tmp_path / "s.zarr", settings)
    with writer:
        writer.append(record("a", 5))
        monkeypatch.setattr(DurableStore, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    assert check_store(tmp_path / "s.zarr") == []
    assert open_store(tmp_path / "s.zarr").ids == ["a"]


def test_other_errors_do_not_cost_what_is_buffered(tmp_path, settings, record):
    def mismatch() -> None:
        with StoreWriter(tmp_path / "s.zarr", settings) as writer:
            writer.append(record("a", 5))
            raise StoreMismatchError("another detector")

    with pytest.raises(StoreMismatchError):
        mismatch()
    assert open_store(tmp_path / "s.zarr").ids == ["a"]


def test_an_empty_store_takes_other_options(tmp_path, settings, record):
    write(tmp_path / "s.zarr", settings, [])
    other = replace(settings, options={"faces": "auto", "fps": 5.0})
    write(tmp_path / "s.zarr", other, [record("a", 5)])
    assert open_store(tmp_path / "s.zarr").provenance["options"]["fps"] == 5.0


@pytest.mark.parametrize("chunk", ["video/offset/c", "video/length/c", "video/status/c"])
def test_a_lost_index_chunk_is_refused_and_nothing_is_cut(tmp_path, settings, record, chunk):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5), record("b", 4)])
    shutil.rmtree(path / chunk)
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="damaged"):
        open_store(path)
    with pytest.raises(StoreError, match="damaged"):
        write(path, settings, [])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert check_store(path) != []


DAMAGES = {
    "zarr.json": ["", "{", "[]", "{}"],
    "video/zarr.json": [None, ""],
    "video/id/zarr.json": [None, "", "{"],
    "video/fps/c/0": ["", "xxxx"],
    "video/status/c/0": ["", "xxxx"],
    "affect/zarr.json": ["", "{}"],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_error_and_never_a_traceback(tmp_path, settings, record, name):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    sound = (path / name).read_bytes()
    for text in DAMAGES[name]:
        if text is None:
            (path / name).unlink()
        else:
            (path / name).write_text(text)
        assert check_store(path) != []
        for use in (lambda: open_store(path)["a"].affect, lambda: write(path, settings, [])):
            with suppress(StoreError):
                use()
        (path / name).write_bytes(sound)
    assert check_store(path) == []


@pytest.mark.parametrize(
    "change",
    [
        {"committed": "all"}, {"committed": -1}, {"committed": 1.5}, {"committed": True},
        {"groups": []}, {"groups": None}, {"groups": {"va": [0]}}, {"columns": None},
        {"provenance": {}}, {"provenance": None}, {"provenance": []},
        {"provenance": {"extractor": "x", "options": {}, "detector": None, "sessions": []}},
    ],
)  # fmt: skip
def test_damaged_attributes_are_one_error(tmp_path, settings, record, change):
    path = tmp_path / "s.zarr"
    write(path, settings, [record("a", 5)])
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"].update(change)
    (path / "zarr.json").write_text(json.dumps(text))
    for use in (lambda: open_store(path), lambda: write(path, settings, [])):
        with pytest.raises(FeieError):
            use()
    assert check_store(path) != []


def test_a_place_that_cannot_be_read_says_what_is_missing():
    with pytest.raises(StoreError):
        open_store("nosuchscheme://bucket/s.zarr")


LENGTHS = {"a": 1, "b": 30, "c/d": 7, "e": 12, "z": 3}


@pytest.fixture(scope="module")
def ragged_store(tmp_path_factory, settings, record):
    path = tmp_path_factory.mktemp("ragged") / "s.zarr"
    records = [record(video_id, n) for video_id, n in LENGTHS.items()]
    write(path, settings, [records[3], *records, replace(records[3], message="")])
    patch = pytest.MonkeyPatch()
    patch.setattr(rows, "_BLOCK_ROWS", 5)  # so that videos straddle blocks
    yield open_store(path)
    patch.undo()


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.sampled_from(sorted(LENGTHS)), unique=True),
    columns=st.one_of(st.none(), st.lists(st.integers(0, 25), min_size=1, unique=True)),
)
def test_ragged_reading_equals_reading_one_by_one(ragged_store, ids, columns):
    rows = ragged_store.read(ids, columns)
    assert rows.ids == ids
    assert list(np.diff(rows.offsets)) == [LENGTHS[v] for v in ids]
    for i, video_id in enumerate(ids):
        part = slice(rows.offsets[i], rows.offsets[i + 1])
        affect = ragged_store[video_id].affect
        np.testing.assert_array_equal(
            rows.values[part], affect if columns is None else affect[:, columns]
        )
        np.testing.assert_array_equal(rows.valid[part], ragged_store[video_id].valid)
