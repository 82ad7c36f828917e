"""Issue 19, S5 and S6: files from others choose nothing that is read, and damage is not imported.

S5: an address in a run's ``head.json`` was contacted by ``evaluate --run``; an HDF5 data set with
external storage, or a virtual one, handed out the bytes of any file that its reader may read.
S6: two flipped bits in a dump were imported as other numbers, with exit code 0.
"""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest

from feie.features.errors import DataError, UsageError
from feie.features.formats.own.reader import UNCHECKED, provenance_of
from feie.features.formats.reading.imported import ReadOptions
from feie.features.formats.registry import find_format
from feie.features.hdf5 import has_member, member
from feie.features.mma.data.packs import read_pack, read_units
from feie.features.store.reader import open_store
from feie.heads.runs.stores import refuse_noted_address
from feie.pipeline.dump import job as dump
from feie.pipeline.imports.job import ImportFeaturesOptions
from feie.pipeline.imports.job import run as import_features

FILES = {"hdf5": ".h5", "hdf5-groups": ".h5", "parquet": ".parquet", "safetensors": ".safetensors"}
FOLDERS = {"npz": ".npz", "muse": ".csv", "openface": ".csv"}
OTHER = r"another file, which is not read"


@pytest.fixture
def secret(tmp_path):
    """A file that the user may read, and whoever made the HDF5 file may not."""
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    values.tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = values
    return values


def external(file, name, folder):
    file.create_dataset(
        name, (10, 4), np.float32, external=[(str(folder / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file, name, folder):
    layout = h5py.VirtualLayout((10, 4), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (10, 4))
    file.create_virtual_dataset(name, layout)


def linked(file, name, folder):
    file[name] = h5py.ExternalLink(str(folder / "secret.h5"), "x")


def by_two_links(file, name, folder):
    file["way"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
    file[name] = h5py.SoftLink("/way/x")


WAYS = {"external": external, "virtual": virtual, "linked": linked, "two links": by_two_links}


@pytest.mark.parametrize("way", WAYS)
def test_hdf5_gives_only_its_own_bytes(tmp_path, secret, way):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        WAYS[way](file, "x", tmp_path)
        file["own"] = secret
        file["alias"] = h5py.SoftLink("/own")
        file["loop"] = h5py.SoftLink("/loop")
    with h5py.File(tmp_path / "a.h5") as file:
        with pytest.raises(ValueError, match=OTHER):
            member(file, "x")
        np.testing.assert_array_equal(member(file, "alias"), secret)
        assert not has_member(file, "loop")
        assert not has_member(file, "own/x")


@pytest.mark.parametrize("way", ["external", "virtual"])
def test_import_refuses_the_bytes_of_other_files(tmp_path, secret, way):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        WAYS[way](file, "clip", tmp_path)
        file["good"] = secret
    done = import_features(
        ImportFeaturesOptions(source=tmp_path / "a.h5", store=tmp_path / "s.zarr", fps=25)
    )
    assert "another file" in done.failures["clip"]
    assert open_store(tmp_path / "s.zarr").ids == ["good"]


@pytest.mark.parametrize("way", ["external", "virtual", "linked"])
@pytest.mark.parametrize("form", ["hdf5", "hdf5-groups"])
def test_dumps_refuse_the_bytes_of_other_files(example_folder, tmp_path, secret, form, way):
    out = tmp_path / "d.h5"
    dump.run(dump.DumpOptions(store=str(example_folder / "features.zarr"), format=form, out=out))
    provenance_of(out).unlink()
    name = "time" if form == "hdf5" else "videos/face-001/time"
    with h5py.File(out, "r+") as file:
        del file[name]
        WAYS[way](file, name, tmp_path)
    with pytest.raises(UsageError, match="another file"):
        import_features(ImportFeaturesOptions(source=out, store=tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("way", ["external", "virtual", "linked"])
def test_packs_refuse_the_bytes_of_other_files(tmp_path, secret, way):
    pack = tmp_path / "pack.h5"
    with h5py.File(pack, "w") as file:
        file["images"] = np.zeros((10, 112, 112), np.uint8)
        file["name"] = [b"a"] * 10
        WAYS[way](file, "au", tmp_path)
    for read in (read_pack, read_units):
        with pytest.raises(DataError, match=OTHER):
            read(pack)


@pytest.mark.parametrize(
    "address", ["ftp://192.0.2.1/s.zarr", "reference::file:///etc/hostname", "s3://bucket/s.zarr"]
)
def test_an_address_in_a_run_is_contacted_only_when_the_user_names_it(tmp_path, address):
    with pytest.raises(UsageError, match="add --store"):
        refuse_noted_address(tmp_path, address)
    refuse_noted_address(tmp_path, "/data/s.zarr")


def dumped(example_folder, out, form):
    dump.run(dump.DumpOptions(store=str(example_folder / "features.zarr"), format=form, out=out))


def flip_two_bits(path):
    data = bytearray(path.read_bytes())
    for at in (len(data) // 2, len(data) // 2 + 9):
        data[at] ^= 0x10
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("form", FILES)
def test_two_flipped_bits_in_a_file_are_refused(example_folder, tmp_path, form):
    out = tmp_path / f"d{FILES[form]}"
    dumped(example_folder, out, form)
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / f"renamed{FILES[form]}"
    shutil.copyfile(out, moved)
    shutil.copyfile(provenance_of(out), provenance_of(moved))
    for path in (out, moved):
        assert find_format(f"feie-{form}").open(path, ReadOptions()).files
        flip_two_bits(path)
        with pytest.raises(UsageError, match="is not as feie dump wrote it: its SHA-256"):
            find_format(f"feie-{form}").open(path, ReadOptions())


@pytest.mark.parametrize("form", FOLDERS)
def test_two_flipped_bits_in_a_folder_are_a_named_failure(example_folder, tmp_path, form):
    dumped(example_folder, tmp_path / "d", form)
    flip_two_bits(tmp_path / "d" / f"face-003{FOLDERS[form]}")
    done = import_features(ImportFeaturesOptions(source=tmp_path / "d", store=tmp_path / "s.zarr"))
    assert list(done.failures) == ["face-003"]
    assert "is not as feie dump wrote it" in done.failures["face-003"]
    assert (done.imported, done.notes) == (5, {})


def test_where_nothing_can_be_compared_it_is_said(example_folder, tmp_path):
    out = tmp_path / "d.h5"
    dumped(example_folder, out, "hdf5")
    provenance_of(out).unlink()
    done = import_features(ImportFeaturesOptions(source=out, store=tmp_path / "s.zarr"))
    assert done.notes == {UNCHECKED: 6}
    dumped(example_folder, tmp_path / "n", "npz")
    said = json.loads((tmp_path / "n" / "provenance.json").read_text())
    del said["files"]["face-001.npz"]
    (tmp_path / "n" / "provenance.json").write_text(json.dumps(said))
    done = import_features(ImportFeaturesOptions(source=tmp_path / "n", store=tmp_path / "n.zarr"))
    assert done.notes == {UNCHECKED: 1}
