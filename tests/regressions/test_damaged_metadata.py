"""Issue 19, S7: whatever a file says of itself, one sentence answers, and nothing is unpacked.

Metadata of each kind is damaged at random (wrong types, cut text, other encodings, deep nesting)
with a fixed seed, and read by all that read it; then the bombs that were found by trying.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time

import numpy as np
import pytest
import zarr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from feie.features.errors import FeieError, LabelError, StoreError
from feie.features.files import json_object, read_json
from feie.features.store.check import check_store
from feie.features.store.layout import VIDEO_ARRAYS
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.data.tables import read_table
from feie.heads.runs.files import read_json as read_run_json
from feie.pipeline.dump import job as dump
from feie.pipeline.imports.job import ImportFeaturesOptions
from feie.pipeline.imports.job import run as import_features
from feie.pipeline.stores import info, merge, verify

DEEP = b"[" * 200_000
OTHERS = (None, True, -1, 0, 1.5, 10**30, "", "x", "\udcff", [], {}, [[]], [None], {"a": {}}, "NaN")
CHANGES = int(os.environ.get("FEIE_FUZZ", "4"))
"""Damages a file; the tests of a release try more."""


@pytest.fixture
def store(example_folder, tmp_path):
    return shutil.copytree(example_folder / "features.zarr", tmp_path / "s.zarr")


def places(content, path=()):
    """The paths of all values of a JSON document."""
    yield path
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content[:3]) if isinstance(content, list) else items
    for key, value in items:
        yield from places(value, (*path, key))


def damaged(text: bytes, rng) -> bytes:
    """One damage of many kinds, chosen by a generator of random numbers."""
    kind = int(rng.integers(8))
    if kind == 0:
        return text[: int(rng.integers(len(text)))]
    if kind == 1:
        at = int(rng.integers(len(text)))
        return text[:at] + bytes([int(rng.integers(256))]) + text[at + 1 :]
    if kind == 2:
        return text.decode().encode("utf-16")
    if kind == 3:
        return b'{"a":' + DEEP
    content = json.loads(text)
    way = [*places(content)]
    path = way[int(rng.integers(1, len(way)))]
    at = content
    for key in path[:-1]:
        at = at[key]
    if kind == 4:
        del at[path[-1]]
    elif kind == 5 and isinstance(at[path[-1]], int):
        at[path[-1]] = int(at[path[-1]]) + int(rng.integers(-5, 5)) * 10 ** int(rng.integers(12))
    else:
        at[path[-1]] = OTHERS[int(rng.integers(len(OTHERS)))]
    return json.dumps(content).encode()


def one_sentence(work, *given):
    """Do something that may only fail in one sentence; what else it raises ends the test."""
    said = ""
    try:
        work(*given)
    except FeieError as error:
        said = str(error)
    assert "\n" not in said


def use_store(store, out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    one_sentence(verify.run, verify.VerifyOptions(store=str(store)))
    asked = dump.DumpOptions(store=str(store), format="npz", out=out / "n", geometry=True)
    one_sentence(dump.run, asked)
    try:
        opened = open_store(store)
    except FeieError:  # and so says everybody else who opens it
        return
    one_sentence(opened.read)
    one_sentence(lambda: opened["face-001"].to_pandas(faces=True))
    one_sentence(info.run, info.InfoOptions(store=str(store)))
    one_sentence(merge.run, merge.MergeOptions(stores=(str(store),), out=out / "m.zarr"))


METADATA = ["zarr.json", "video/zarr.json", "affect/zarr.json", "bbox/zarr.json",
            "video/id/zarr.json", "video/offset/zarr.json"]  # fmt: skip


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_stores(store, tmp_path, settings, record, name):
    sound = (store / name).read_bytes()
    rng = np.random.default_rng([19, *name.encode()])
    for _ in range(CHANGES):
        (store / name).write_bytes(damaged(sound, rng))
        use_store(store, tmp_path / "out")

        def write():
            with StoreWriter(shutil.copytree(store, tmp_path / "out" / "w.zarr"), settings) as w:
                w.append(record("new", 5))

        one_sentence(write)


@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_provenance_of_dumps(store, tmp_path, form):
    out = tmp_path / ("d.h5" if form == "hdf5" else "d")
    options = dump.DumpOptions(store=str(store), format=form, out=out)
    dump.run(options)
    path = tmp_path / "d.h5.provenance.json" if form == "hdf5" else out / "provenance.json"
    sound = path.read_bytes()
    rng = np.random.default_rng([7, *form.encode()])
    for number in range(3 * CHANGES):
        path.write_bytes(damaged(sound, rng))
        source = ImportFeaturesOptions(
            source=out, store=tmp_path / f"i{number}.zarr", format="auto"
        )
        one_sentence(import_features, source)
        one_sentence(dump.run, options)
        if not path.exists():  # the dump was begun anew
            break
        shutil.rmtree(out / ".dumping", ignore_errors=True)
    if form != "npz":
        return
    path.write_bytes(sound)
    content = json.loads(sound)
    entry = next(iter(content["files"].values()))
    entry["bytes"] = "many"
    path.write_text(json.dumps(content))
    with pytest.raises(FeieError):
        dump.run(options)


def test_json_of_runs_and_of_anybody(tmp_path):
    path = tmp_path / "head.json"
    for text in (
        b'{"a":' + DEEP,
        DEEP,
        b"",
        b"[]",
        b"null",
        b'{"a": 1',
        b"\xff",
    ):
        path.write_bytes(text)
        with pytest.raises(FeieError, match=r"head\.json cannot be read"):
            read_run_json(path)
        with pytest.raises(ValueError, match=r"."):
            json_object(text)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe or a device"):
        read_json(tmp_path / "pipe")


def test_a_session_that_counts_to_ten_billion(store):
    """It was counted, one by one: 22 s and 7.75 GB."""
    content = json.loads((store / "zarr.json").read_text())
    content["attributes"]["provenance"]["sessions"][-1]["last"] = 10**10
    (store / "zarr.json").write_text(json.dumps(content))
    began = time.monotonic()
    assert {v.rule for v in check_store(store)} == {"S5"}
    assert time.monotonic() - began < 5


def test_an_index_that_counts_to_ten_billion(store):
    for spec in VIDEO_ARRAYS:
        path = store / "video" / spec.name / "zarr.json"
        content = json.loads(path.read_text())
        content["shape"] = [10**10 + 1]
        path.write_text(json.dumps(content))
    content = json.loads((store / "zarr.json").read_text())
    content["attributes"]["committed"] = 10**10
    (store / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="there is none at row 7"):
        open_store(store)
    assert {"S5", "S10"} <= {v.rule for v in check_store(store)}


def test_a_chunk_that_unpacks_to_gigabytes(store):
    """48 KB that unpack to 1.7 GB were unpacked."""
    packed = Blosc("lz4", shuffle=Blosc.NOSHUFFLE).encode(np.zeros(300 << 20, np.uint8))
    assert len(packed) < 2 << 20
    chunk = store / "affect" / "c" / "0" / "0"
    chunk.write_bytes(bytes(packed) + bytes(4))
    with pytest.raises(StoreError, match="says that it unpacks to 300 MB"):
        open_store(store).read()
    assert any("unpacks to 300 MB" in v.message for v in check_store(store))


@pytest.mark.parametrize("codecs", ["large chunks", "packed twice"])
def test_arrays_made_to_unpack_to_gigabytes(store, codecs):
    root = zarr.open_group(store, mode="r+")
    old = root["affect"]
    many = codecs == "packed twice"
    root.create_array(
        "affect",
        overwrite=True,
        shape=(1 << 24, 26),
        chunks=old.chunks if many else (1 << 24, 26),
        dtype=old.dtype,
        dimension_names=("frame", "column"),
        compressors=[BloscCodec(), *([BloscCodec()] if many else []), Crc32cCodec()],
        serializer=BytesCodec(),
    )
    with pytest.raises(StoreError, match=r"MB are allowed|coded in a way that feie does not read"):
        open_store(store).read()
    assert "S16" in {v.rule for v in check_store(store)}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
@pytest.mark.parametrize("name", ["affect/c/0/0", "video/id/c/0", "zarr.json", "time/zarr.json"])
def test_a_pipe_in_place_of_a_file_of_a_store_does_not_hang(store, name):
    (store / name).unlink()
    os.mkfifo(store / name)
    with pytest.raises(FeieError, match=r"pipe or a device|no feie store|no array"):
        open_store(store)["face-001"].to_pandas()
    try:
        assert check_store(store) != []
    except FeieError:
        assert name == "zarr.json"


def test_a_label_file_with_a_million_columns_ends_quickly(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(",".join(map(str, range(10**6))) + "\n" + ",".join(["1"] * 10**6) + "\n")
    began = time.monotonic()
    with pytest.raises(LabelError, match="has 1000000 columns; a table of labels has 10000"):
        read_table(path)
    assert time.monotonic() - began < 20
