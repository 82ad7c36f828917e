"""Report: of seven videos with hostile ids six fail, and the result and the store name one."""

from __future__ import annotations

import pandas as pd
import pytest

from feie.features.store.check import check_store, is_plain_id
from feie.features.store.reader import open_store
from feie.pipeline.imports.job import ImportFeaturesOptions, run

HOSTILE = {
    "../up": "%2E%2E/up",
    "/abs": "%/abs",
    "a//b": "a/%/b",
    "..": "%2E%2E",
    "con\ttrol": "con%09trol",
    "end/": "end/%",
    "./.": "%2E",
    "del\x7f%": "del%7F%25",
    "": "%",
}


def test_every_video_that_cannot_be_is_named(tmp_path):
    rows = [(video, i / 25, 0.5) for video in ("good", *HOSTILE) for i in range(5)]
    table = pd.DataFrame(rows, columns=["video", "time", "a"])
    table.to_csv(tmp_path / "v.csv", index=False)
    options = ImportFeaturesOptions(source=tmp_path / "v.csv", store=tmp_path / "s.zarr")
    result = run(options)
    store = open_store(tmp_path / "s.zarr")
    assert (result.videos, result.imported, result.failed) == (10, 1, 9)
    assert set(result.failures) == set(store.failures) == set(HOSTILE.values())
    for said, kept in HOSTILE.items():
        assert repr(said.removeprefix("./")) in store.failures[kept]
        assert is_plain_id(kept)
    assert store.ids == ["good"]
    assert not check_store(tmp_path / "s.zarr")
    before = (tmp_path / "s.zarr" / "zarr.json").read_bytes()
    assert set(run(options).failures) == set(HOSTILE.values())
    assert (tmp_path / "s.zarr" / "zarr.json").read_bytes() == before


def test_array_files_too(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        for name in ("good", "..\t", "a\\b", "x\x01"):
            file[name] = [[1.0], [2.0]]
    options = ImportFeaturesOptions(source=tmp_path / "v.h5", store=tmp_path / "s.zarr", fps=25)
    result = run(options)
    assert set(result.failures) == {"..%09", "a%5Cb", "x%01"}
    assert set(open_store(tmp_path / "s.zarr").failures) == set(result.failures)
