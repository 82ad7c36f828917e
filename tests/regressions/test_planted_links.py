"""Issue 19, S4: no link below an output or a store is followed, and one sentence names it.

Each situation was found by trying it: a link that somebody else had put where feie works made it
overwrite or delete files outside the output, as the user who ran it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from feie.features import files
from feie.features.errors import LinkError, StoreError
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.dump import job as dump
from feie.pipeline.stores import merge

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="few may make links there")

NAMED = r"is a link to .*, and no link is followed below an output or a store"
PRECIOUS = b"a file of the user's, outside of every output\n"


def planted(link: Path, target: Path) -> Path:
    """A link of another user's, where the test may make one."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    if os.getuid() == 0:
        os.lchown(link, 65534, 65534)
    return link


@pytest.fixture
def precious(tmp_path):
    """A file, and a folder with a file, that nobody may touch."""
    (tmp_path / "home" / "folder").mkdir(parents=True)
    for name in ("file", "folder/x.npz", "folder/lock"):
        (tmp_path / "home" / name).write_bytes(PRECIOUS)
    yield tmp_path / "home"
    there = {str(p.relative_to(tmp_path / "home")) for p in (tmp_path / "home").rglob("*")}
    assert there == {"file", "folder", "folder/x.npz", "folder/lock"}
    for name in ("file", "folder/x.npz", "folder/lock"):
        assert (tmp_path / "home" / name).read_bytes() == PRECIOUS


@pytest.fixture
def store(example_folder, tmp_path):
    return shutil.copytree(example_folder / "features.zarr", tmp_path / "s.zarr")


def dumped(store, out, form="npz", **options):
    return dump.run(dump.DumpOptions(store=str(store), format=form, out=out, **options))


@pytest.mark.parametrize("suffix", [".lock.json", ".lock"])
def test_the_lock_of_a_store(tmp_path, settings, record, precious, suffix):
    planted(tmp_path / f"new.zarr{suffix}", precious / "file")
    with pytest.raises(LinkError, match=NAMED), StoreWriter(tmp_path / "new.zarr", settings) as w:
        w.append(record("a", 5))


def test_the_lock_of_a_merge(store, tmp_path, precious):
    planted(tmp_path / "m.zarr.lock.json", precious / "file")
    with pytest.raises(LinkError, match=NAMED):
        merge.run(merge.MergeOptions(stores=(str(store),), out=tmp_path / "m.zarr"))
    assert not (tmp_path / "m.zarr").exists()


@pytest.mark.parametrize("part", ["affect/c", "affect", "video", "video/id/c/0", "zarr.json"])
def test_arrays_of_a_store(store, settings, record, tmp_path, part):
    moved = tmp_path / "elsewhere"
    (store / part).rename(moved)
    before = {p: p.read_bytes() for p in [moved, *moved.rglob("*")] if p.is_file()}
    planted(store / part, moved)
    assert any("is a link" in v.message for v in check_store(store))
    with pytest.raises((LinkError, StoreError), match=NAMED):
        open_store(store).read()
    with (
        pytest.raises((LinkError, StoreError), match=NAMED),
        StoreWriter(store, settings) as writer,
    ):
        writer.append(record("new", 5000))
    assert {p: p.read_bytes() for p in [moved, *moved.rglob("*")] if p.is_file()} == before


def test_the_store_itself_may_be_a_link_of_the_users(store, settings, record, tmp_path):
    planted(tmp_path / "link.zarr", store)
    with StoreWriter(tmp_path / "link.zarr", settings) as writer:
        writer.append(record("new", 5))
    assert check_store(tmp_path / "link.zarr") == []
    assert "new" in open_store(store)


def test_the_file_that_a_dump_of_a_folder_began_with(store, tmp_path, precious):
    """``OUT/.dumping/partial`` was opened for writing by that very name."""
    planted(tmp_path / "out" / ".dumping" / "partial", precious / "file")
    dumped(store, tmp_path / "out")


@pytest.mark.parametrize("name", ["lock", "journal.jsonl"])
def test_files_in_the_working_folder(store, tmp_path, precious, name):
    planted(tmp_path / "out" / ".dumping" / name, precious / "file")
    with pytest.raises(LinkError, match=NAMED):
        dumped(store, tmp_path / "out")


def test_the_file_that_a_dump_of_one_file_began_with(store, tmp_path, precious):
    planted(tmp_path / ".o.h5.dumping" / "partial.h5", precious / "file")
    dumped(store, tmp_path / "o.h5", "hdf5")
    assert not (tmp_path / "o.h5").is_symlink()


@pytest.mark.parametrize("name", ["o.h5", "o.h5.README.md", "o.h5.provenance.json"])
def test_the_files_of_a_dump_of_one_file(store, tmp_path, precious, name):
    planted(tmp_path / name, precious / "file")
    with pytest.raises(LinkError, match=NAMED):
        dumped(store, tmp_path / "o.h5", "hdf5")


@pytest.mark.parametrize("form", ["hdf5", "npz"])
def test_working_folders_of_dumps(store, tmp_path, precious, form):
    out = tmp_path / ("o.h5" if form == "hdf5" else "out")
    link = tmp_path / ".o.h5.dumping" if form == "hdf5" else out / ".dumping"
    planted(link, precious / "folder")
    with pytest.raises(LinkError, match=NAMED):
        dumped(store, out, form)


def test_the_working_folder_of_a_merge(store, tmp_path, precious):
    """Its name was known beforehand; now it cannot be foretold, and one that could be is left."""
    planted(tmp_path / ".m.zarr.merging", precious / "folder")
    merge.run(merge.MergeOptions(stores=(str(store),), out=tmp_path / "m.zarr"))
    assert check_store(tmp_path / "m.zarr") == []
    planted(tmp_path / ".n.zarr.abcdefgh.merging", precious / "folder")
    with pytest.raises(LinkError, match=NAMED):
        merge.run(merge.MergeOptions(stores=(str(store),), out=tmp_path / "n.zarr"))


def test_a_file_below_a_linked_folder_is_not_deleted(store, tmp_path, precious):
    """``sub/x.npz`` in the provenance and ``OUT/sub`` a link: the target's file was deleted."""
    out = tmp_path / "out"
    dumped(store, out)
    said = json.loads((out / "provenance.json").read_text())
    said["files"]["sub/x.npz"] = {"video": "gone", "rows": "0", "sha256": "0" * 64, "bytes": 1}
    (out / "provenance.json").write_text(json.dumps(said))
    planted(out / "sub", precious / "folder")
    with pytest.raises(LinkError, match=NAMED):
        dumped(store, out)


def test_a_video_is_not_written_below_a_linked_folder(tmp_path, settings, record, precious):
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.append(record("sub/x", 5))
    planted(tmp_path / "out" / "sub", precious / "folder")
    (tmp_path / "out" / ".dumping").mkdir()
    with pytest.raises(LinkError, match=NAMED):
        dumped(tmp_path / "s.zarr", tmp_path / "out")


def test_a_file_is_begun_under_a_name_that_is_never_the_same(tmp_path, precious):
    names = {files.new_name(tmp_path / "a").name for _ in range(100)}
    assert len(names) == 100
    assert all(files.is_partial(name) for name in names)
    planted(tmp_path / "taken", precious / "nowhere")
    with pytest.raises(FileExistsError):
        files.new_file(tmp_path / "taken")
    planted(tmp_path / "report.html", precious / "file")
    files.write_whole(tmp_path / "report.html", b"new")
    assert (tmp_path / "report.html").read_bytes() == b"new"
    assert not (tmp_path / "report.html").is_symlink()
