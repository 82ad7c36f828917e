"""The store from Python: names, laziness, tables, errors, other processes; and the doctests."""

from __future__ import annotations

import doctest
import importlib
import pickle
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest

import feie
from feie.features.errors import (
    StoreError,
    StoreVersionError,
    UnknownNameError,
    UsageError,
)
from feie.features.schema import AFFECT, Schema
from feie.features.store.chunks import ChunkCache
from feie.features.store.writer import StoreWriter

DOCUMENTED = [
    "feie.features.text",
    "feie.features.store.reader",
    "feie.features.store.view",
    "feie.heads.data.dataset",
    "feie.heads.data.loader",
]


@pytest.fixture
def store(example_folder, monkeypatch):
    monkeypatch.chdir(example_folder)
    return feie.open_store("features.zarr")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_doctests(name, store):
    module = importlib.import_module(name)
    tests = [t for t in doctest.DocTestFinder().find(module) if t.examples]
    assert tests
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        test.globs["store"] = store
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_a_store_is_a_mapping_of_its_good_videos(store, record):
    assert dict(store.items()).keys() == set(store.ids)
    assert [v.id for v in store.values()] == list(store) == sorted(store)
    assert store.get("nobody") is None
    assert "face-007" not in store
    assert store.get("face-007") is None
    assert store in {store}
    assert store != feie.open_store("features.zarr")


def test_numbers_by_name_are_the_columns(store, record):
    kept, video = record("face-004", 60), store["face-004"]
    columns = {name: kept.affect[:, i] for i, name in enumerate(AFFECT.columns)}
    np.testing.assert_array_equal(video.valence, columns["valence"])
    np.testing.assert_array_equal(video.arousal, columns["arousal"])
    np.testing.assert_array_equal(video.expression("Surprise"), columns["surprise"])
    for asked in ("AU12", "au12", 12, "12"):
        np.testing.assert_array_equal(video.au(asked), columns["AU12"])
    np.testing.assert_array_equal(video.aus, kept.affect[:, 9:])
    np.testing.assert_array_equal(video.expressions, kept.affect[:, 2:9])
    np.testing.assert_array_equal(video.group("va"), kept.affect[:, :2])
    np.testing.assert_array_equal(video.bbox, kept.bbox)
    assert (video.width, video.height, video.fps) == (640, 480, 30.0)
    assert (video.source, video.faces) == ("face-004.mp4", pytest.approx(0.8))
    assert repr(video) == "<video 'face-004': 60 frames, 80% with a face>"


def test_nothing_is_read_until_it_is_asked_for_and_then_once(store, monkeypatch):
    read = []
    real = type(store).read_cached
    monkeypatch.setattr(
        type(store), "read_cached", lambda s, name, rows: read.append(name) or real(s, name, rows)
    )
    video = store["face-001"]
    assert (len(video), video.fps, read) == (48, 30.0, [])
    video.valence[:] = 7  # a copy of one's own …
    assert (video.affect[:, 0] == 7).all()
    assert video.au("AU01").shape == (48,)
    assert read == ["affect"]
    assert np.nanmax(store["face-001"].affect) <= 1  # … that the store knows nothing of


def test_tables(store, record):
    kept = record("face-002", 40)
    table = store["face-002"].to_pandas(faces=True)
    assert list(table.columns[-6:]) == ["valid", "face_score", "x0", "y0", "x1", "y1"]
    np.testing.assert_array_equal(table.index, kept.time)
    np.testing.assert_array_equal(table[list(AFFECT.columns)], kept.affect)
    np.testing.assert_array_equal(table["y1"], kept.bbox[:, 3])
    index = store.to_pandas()
    assert index["length"].to_dict() == {v.id: len(v) for v in store.values()}
    index["length"] = 0
    assert store.to_pandas().loc["face-001", "length"] == 48


def test_selections_read_and_look_like_stores(store):
    few = store.select("face-00[12]", "*-005")
    assert (len(few), few.ids) == (3, ["face-001", "face-002", "face-005"])
    assert few.fingerprint == store.fingerprint
    assert few.read().ids == few.ids
    assert len(few.to_pandas()) == dict(few.to_xarray().sizes)["video"] == 3
    with pytest.raises(UnknownNameError, match="no video 'face-003'"):
        few["face-003"]
    with pytest.raises(UnknownNameError, match=r"no video that fits 'fase-\*'"):
        store.select("face-001", "fase-*")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s["face01"], "no video 'face01'; did you mean 'face-001'"),
        (lambda s: s["face-007"], "video 'face-007' of features.zarr failed: empty: no bytes"),
        (lambda s: s["face-001"].au("AU99"), "no action unit 'AU99'; it has AU01, AU02"),
        (lambda s: s["face-001"].expression("happy"), "no expression 'happy'; it has neutral"),
        (lambda s: s["face-001"].column("valance"), "did you mean 'valence'?"),
        (lambda s: s["face-001"].group("aus"), "no group 'aus'; it has va, expr, au"),
        (lambda s: s["face-001"].embedding, "keeps no embeddings; `feie extract --embedding`"),
        (lambda s: s.read(["x"]), "no video 'x'"),
    ],
)
def test_errors_name_what_there_is(store, ask, said):
    with pytest.raises(UnknownNameError) as caught:
        ask(store)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_other_columns_and_embeddings(tmp_path, settings, record, detector_named):
    schema = Schema.of({"pose": ["pitch"], "au_r": ["AU12_r", "AU15_r"]})
    kept = record("a", 10)
    embedding = np.arange(30, dtype=np.float16).reshape(10, 3)
    kept = replace(kept, affect=kept.affect[:, :3], embedding=embedding)
    settings = replace(settings, schema=schema, embedding_dim=3)
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        writer.append(kept)
    video = feie.open_store(tmp_path / "s.zarr")["a"]
    np.testing.assert_array_equal(video.embedding, embedding)
    np.testing.assert_array_equal(video.column("AU15_r"), kept.affect[:, 2])
    with pytest.raises(UnknownNameError, match=r"no group 'au', but pose, au_r; .*'AU12_r'"):
        video.au("AU12")
    with pytest.raises(UnknownNameError, match="no column 'valence'; it has pitch"):
        _ = video.valence


def test_xarray_is_ragged_and_reads_what_is_used(tmp_path, settings, record):
    path = tmp_path / "s.zarr"
    for turn, wanted in enumerate([("a", "b", "c"), ("b",)]):  # b is replaced: rows in between
        with StoreWriter(path, settings) as writer:
            for name in wanted:
                writer.append(record(name, 5 + turn, seed=turn))
    store = feie.open_store(path)
    data = store.to_xarray()
    assert dict(data.sizes)["frame"] == 5 + 5 + 6
    assert list(data["video"].values) == ["a", "c", "b"]
    assert data["length"].attrs["sample_dimension"] == "frame"
    assert data["affect"].attrs["long_name"].startswith("affect vector")
    starts = [int(s) for s in data["start"]]
    for video, start in zip(data["video"].values, starts, strict=True):
        n = int(data["length"].sel(video=video))
        part = data.isel(frame=slice(start, start + n))
        np.testing.assert_array_equal(part["affect"].values, store[video].affect)
        np.testing.assert_array_equal(part["landmarks"].values, store[video].landmarks)
    backwards = data["affect"].sel(column=["AU26", "valence"]).isel(frame=slice(None, None, -3))
    everything = np.concatenate([store[v].affect for v in data["video"].values])
    np.testing.assert_array_equal(backwards.values, everything[::-3][:, [25, 0]])
    au = data["affect"].isel(frame=1, column=data["group"].values == "au")
    np.testing.assert_array_equal(au.values, store["a"].aus[1])


def test_xarray_writes_the_oldest_netcdf_too(store, tmp_path):
    """Report: `to_xarray().to_netcdf(…)` ends in a KeyError with netCDF 3."""
    import xarray

    data = store.to_xarray()
    data.to_netcdf(tmp_path / "s.nc", engine="scipy", format="NETCDF3_64BIT")
    with xarray.open_dataset(tmp_path / "s.nc", engine="scipy") as read:
        np.testing.assert_array_equal(read["affect"], data["affect"])
        np.testing.assert_array_equal(read["valid"].astype(bool), data["valid"])
        assert read["video"].values.astype(str).tolist() == store.ids
        assert read["column"].values.astype(str).tolist() == list(store.columns)
        assert read["bbox"].attrs["order"] == "x0, y0, x1, y1"


def test_xarray_reads_no_frame_before(store, monkeypatch):
    def fail(*_):
        raise AssertionError("read")

    monkeypatch.setattr(type(store), "read_outer", fail)
    data = store.to_xarray().isel(frame=slice(3, 9))
    assert repr(data)
    with pytest.raises(AssertionError, match="read"):
        _ = data["time"].values


def test_versions_and_options(store, example_folder, tmp_path):
    with pytest.raises(UsageError, match=r"storage options are for addresses; .* is a path"):
        feie.open_store("features.zarr", storage_options={"anon": True})
    import shutil

    shutil.copytree(example_folder / "features.zarr", tmp_path / "s.zarr")
    meta = tmp_path / "s.zarr" / "zarr.json"
    meta.write_text(meta.read_text().replace('"spec_version": "1.', '"spec_version": "2.'))
    with pytest.raises(StoreVersionError, match=r"follows specification 2\.., this feie reads 1"):
        feie.open_store(tmp_path / "s.zarr")


def test_a_lost_chunk_is_told_from_frames_without_a_face(example_folder, tmp_path):
    import shutil

    path = tmp_path / "s.zarr"
    shutil.copytree(example_folder / "features.zarr", path)
    shutil.rmtree(path / "affect" / "c")
    video = feie.open_store(path)["face-001"]
    assert video.valid.sum() == 39
    with pytest.raises(StoreError, match=r"affect of 'face-001' shows a face in 0\.0%"):
        _ = video.affect


def _mean(video) -> float:
    return float(np.nanmean(video.affect))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_stores_and_videos_go_to_other_processes(store, method):
    expected = [_mean(v) for v in store.values()]  # so that the parent has threads and caches
    with get_context(method).Pool(2) as pool:
        assert pool.map(_mean, store.values()) == expected
    again = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert again.fingerprint == store.fingerprint
    np.testing.assert_array_equal(again["face-003"].time, store["face-003"].time)


def test_chunks_are_decoded_once_and_forgotten_in_time():
    class Fake:
        path, chunks, reads = "a", (10,), 0

        def __getitem__(self, rows):
            self.reads += 1
            return np.arange(100)[rows]

    array, cache = Fake(), ChunkCache(most_bytes=2 * 80)
    for start, stop in [(0, 0), (0, 3), (3, 9), (8, 12), (12, 20), (95, 100)]:
        np.testing.assert_array_equal(cache.rows(array, start, stop), np.arange(start, stop))
    assert array.reads == 3  # chunks 0, 1 and 9
    np.testing.assert_array_equal(cache.rows(array, 0, 5), np.arange(5))
    assert array.reads == 4  # 0 was pushed out by 9
    np.testing.assert_array_equal(cache.rows(array, 5, 95), np.arange(5, 95))
    assert array.reads == 5  # in one go
