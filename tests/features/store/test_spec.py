"""Every MUST of features/SPEC.md: a sound store keeps it, and breaking it is noticed by number."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from feie.features.errors import StoreVersionError
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter


@pytest.fixture(scope="module")
def sound(tmp_path_factory, settings, record):
    """A store with two videos, a failure and a superseded row, and values in their ranges."""
    path = tmp_path_factory.mktemp("spec") / "s.zarr"
    made = [record("a", 9), record("d/b", 4), record("x", 0, message="empty: no bytes")]
    with StoreWriter(path, settings) as writer:
        for item in (made[1], *made):
            writer.append(item)
    return path


@pytest.fixture
def store(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def attributes(path, **changes):
    text = json.loads((path / "zarr.json").read_text())
    for name, value in changes.items():
        if value is None:
            del text["attributes"][name]
        else:
            text["attributes"][name] = value
    (path / "zarr.json").write_text(json.dumps(text))


def put(path, array, at, value):
    zarr.open_group(path, mode="r+")[array][at] = value


def drop(path, array):
    shutil.rmtree(path / array)


def retype(path, array, **options):
    root = zarr.open_group(path, mode="r+")
    old = root[array]
    given = {
        "shape": old.shape,
        "dtype": old.dtype,
        "dimension_names": old.metadata.dimension_names,
        "compressors": old.compressors,
    }
    root.create_array(array, overwrite=True, **{**given, **options})


def provenance(path, **changes):
    made = json.loads((path / "zarr.json").read_text())["attributes"]["provenance"]
    attributes(path, provenance={**made, **changes})


def flip(path, chunk):
    file = next(p for p in sorted((path / chunk).rglob("*")) if p.is_file())
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(bytes(data))


BREAKS = {
    "S1 no committed": lambda p: attributes(p, committed=None),
    "S1 no provenance": lambda p: attributes(p, provenance=None),
    "S2 version": lambda p: attributes(p, spec_version="two"),
    "S2 newer": lambda p: attributes(p, spec_version="2.0"),
    "S3 repeated column": lambda p: attributes(p, columns=["valence"] * 26),
    "S3 group beyond": lambda p: attributes(p, groups={"va": [0, 99]}),
    "S4 not a number": lambda p: attributes(p, committed="all"),
    "S5 no weights": lambda p: provenance(p, extractor={"name": "x"}),
    "S5 unnamed weights": lambda p: provenance(p, extractor={"name": "x", "sha256": None}),
    "S5 no detector": lambda p: provenance(p, detector={"name": "x"}),
    "S5 no options": lambda p: provenance(p, options=None),
    "S5 sessions": lambda p: provenance(p, sessions=[]),
    "S6 missing": lambda p: drop(p, "landmarks"),
    "S6 type": lambda p: retype(p, "time", dtype="float32"),
    "S6 dimensions": lambda p: retype(p, "time", dimension_names=("t",)),
    "S6 short": lambda p: zarr.open_group(p, mode="r+")["time"].resize((3,)),
    "S7 NaN where valid": lambda p: put(p, "affect", (5, 0), np.nan),
    "S7 number where not valid": lambda p: put(p, "affect", (8, slice(None)), 0.1),
    "S8 valence": lambda p: put(p, "affect", (5, 0), 1.5),
    "S8 sum": lambda p: put(p, "affect", (5, slice(2, 9)), 0.0),
    "S8 action unit": lambda p: put(p, "affect", (5, 20), -0.1),
    "S9 backwards": lambda p: put(p, "time", 6, 0.0),
    "S10 missing": lambda p: drop(p, "video/fps"),
    "S10 short": lambda p: zarr.open_group(p, mode="r+")["video/fps"].resize((2,)),
    "S11 offset": lambda p: put(p, "video/offset", 1, 5),
    "S12 status": lambda p: put(p, "video/status", 1, "done"),
    "S12 silent failure": lambda p: put(p, "video/message", 3, ""),
    "S13 escape": lambda p: put(p, "video/id", 1, "../a"),
    "S13 control": lambda p: put(p, "video/id", 1, "a\nb"),
    "S14 share": lambda p: put(p, "video/faces", 1, 0.5),
    "S15 no checksum": lambda p: retype(p, "face_score", compressors=None),
    "S16 a codec that announces nothing": lambda p: retype(
        p, "face_score", compressors=[ZstdCodec(), Crc32cCodec()]
    ),
    "S16 large chunks": lambda p: retype(p, "time", chunks=(1 << 26,)),
    "S15 flipped bit": lambda p: flip(p, "affect/c"),
}


def test_a_sound_store_has_no_violation(store):
    assert check_store(store) == []


@pytest.mark.parametrize("name", BREAKS)
def test_each_must_is_checked(store, name):
    BREAKS[name](store)
    assert name.split()[0] in {found.rule for found in check_store(store)}


def test_every_must_has_a_test(project):
    text = (project / "features" / "SPEC.md").read_text()
    assert set(re.findall(r"\*\*(S\d+)\*\*", text)) == {name.split()[0] for name in BREAKS}


def test_a_flipped_bit_in_an_embedding_is_noticed(tmp_path, settings, record):
    wide = replace(settings, embedding_dim=4, options={**settings.options, "embedding": True})
    item = record("a", 9)
    item.embedding = np.random.default_rng(0).random((9, 4)).astype(np.float16)
    path = tmp_path / "s.zarr"
    with StoreWriter(path, wide) as writer:
        writer.append(item)
    assert check_store(path) == []
    flip(path, "embedding/c")
    assert {v.rule for v in check_store(path)} == {"S15"}
    drop(path, "embedding")
    assert {v.rule for v in check_store(path)} == {"S6"}


def test_a_reader_refuses_a_major_version_it_does_not_know(store):
    attributes(store, spec_version="2.0")
    with pytest.raises(StoreVersionError):
        open_store(store)
    attributes(store, spec_version="1.7")
    assert open_store(store).ids == ["a", "d/b"]


def test_plain_zarr_reads_it_as_the_specification_shows(store, project, monkeypatch, capsys):
    code = (project / "features" / "SPEC.md").read_text().split("```python")[1].split("```")[0]
    monkeypatch.chdir(store.parent)
    exec(code.replace("features.zarr", store.name), {})
    assert "d/b" in capsys.readouterr().out


def test_xarray_reads_it(store):
    xarray = pytest.importorskip("xarray")
    frames = xarray.open_zarr(store, consolidated=False)
    videos = xarray.open_zarr(store, group="video", consolidated=False)
    assert frames["affect"].dims == ("frame", "column")
    assert frames["affect"].attrs["columns"][0] == "valence"
    start, stop = videos["offset"].values[1:3]
    np.testing.assert_array_equal(
        frames["affect"].isel(frame=slice(start, stop)).values, open_store(store)["a"].affect
    )
    assert [str(v) for v in videos["id"].values] == ["d/b", "a", "d/b", "x"]


def test_imported_numbers_need_name_no_weights_but_a_format(store):
    provenance(
        store,
        extractor={"name": "openface", "sha256": None},
        options={"import_format": "openface"},
    )
    assert check_store(store) == []
