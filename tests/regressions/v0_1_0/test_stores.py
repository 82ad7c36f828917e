"""Stores, dumps and weights that feie 0.1.0 made: opened, verified, continued, dumped, imported.

They were made by 0.1.0 (commit f0eb666): ``store.zarr`` and ``embedding.zarr`` from eleven clips of
`data.example` and a file cut short; ``gaps.zarr`` and ``all-faces.zarr`` from two clips, 30 frames
each, with two faces beside each other that are gone in frames 12 to 17; ``voice.zarr`` by `feie
import` from ``voice/``; ``dumps/`` by `feie dump` from ``gaps.zarr``; ``mma-run/`` by `feie
train-mma`. ``expected/`` is what 0.1.0 said of them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from feie.features.errors import StoreMismatchError
from feie.features.extractors.load import load_extractor
from feie.features.store.reader import open_store
from feie.pipeline.dump import job as dump
from feie.pipeline.dump.options import DumpOptions
from feie.pipeline.engine.options import ExtractOptions
from feie.pipeline.extract import job as extract
from feie.pipeline.imports import job as imports
from feie.pipeline.imports.options import ImportFeaturesOptions
from feie.pipeline.stores import info, merge, verify
from feie.pipeline.stores.options import InfoOptions, MergeOptions, VerifyOptions

HERE = Path(__file__).parent
STORES = ("store", "embedding", "gaps", "all-faces", "voice")
DUMPS = {
    "hdf5": "store.h5", "hdf5-groups": "groups.h5", "parquet": "store.parquet", "npz": "npz",
    "safetensors": "store.safetensors", "muse": "muse", "openface": "openface",
}  # fmt: skip
GEOMETRY = ("face_score", "bbox", "landmarks")


def here(name):
    return str(HERE / f"{name}.zarr")


def copied(name, folder):
    return Path(shutil.copytree(here(name), folder / f"{name}.zarr"))


def assert_same_video(ours, theirs, arrays=("affect", "time", "valid", *GEOMETRY)):
    for array in arrays:
        np.testing.assert_array_equal(getattr(ours, array), getattr(theirs, array), array)


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_sound(name):
    result = verify.run(VerifyOptions(store=here(name)))
    assert (result.sound, result.violations) == (True, [])


@pytest.mark.parametrize(("name", "said"), [("store", "info"), ("all-faces", "info-all-faces")])
def test_a_store_says_what_it_said(name, said, monkeypatch):
    monkeypatch.chdir(HERE)
    before = json.loads((HERE / "expected" / f"{said}.json").read_text())
    now = json.loads(info.run(InfoOptions(store=f"{name}.zarr")).model_dump_json())
    assert {key: now[key] for key in before} == before


def test_numbers_gaps_tracks_and_embeddings_are_there():
    gaps, tracks = open_store(here("gaps")), open_store(here("all-faces"))
    assert np.flatnonzero(~gaps["a"].valid).tolist() == [12, 13, 14, 15, 16, 17]
    assert np.isnan(gaps["a"].affect[12:18]).all()
    assert not np.isnan(gaps["a"].affect[:12]).any()
    assert list(tracks) == ["a#1", "a#2", "b#1", "b#2"]
    store, embedding = open_store(here("store")), open_store(here("embedding"))
    assert dict(store.videos["status"].value_counts()) == {"ok": 11, "failed": 1}
    assert_same_video(embedding["face-005"], store["face-005"])
    assert embedding["face-005"].embedding.shape == (len(store["face-005"]), 128)
    assert np.isfinite(embedding["face-005"].embedding).all()


def test_other_weights_do_not_go_on_with_it(project, tmp_path):
    path, before = copied("store", tmp_path), open_store(here("store"))
    (tmp_path / "clips").mkdir()
    for video in [*before, "face-036"]:
        shutil.copy(project / "data.example" / "videos" / f"{video}.mp4", tmp_path / "clips")
    # The bundled weights are others today: numbers of both never stand in one store.
    with pytest.raises(StoreMismatchError, match="was made with extractor sha256 = 'ef9c2b13"):
        extract.run(ExtractOptions(videos=tmp_path / "clips", store=path))
    after = open_store(path)
    assert set(after) == set(before)
    for video in before:
        assert_same_video(after[video], before[video])
    assert verify.run(VerifyOptions(store=str(path))).sound


def test_an_import_goes_on_with_it_and_gives_the_same_numbers(tmp_path):
    path, before = copied("voice", tmp_path), open_store(here("voice"))
    voice = shutil.copytree(HERE / "voice", tmp_path / "voice")
    for store, done in ((path, (0, 11)), (tmp_path / "new.zarr", (11, 0))):
        result = imports.run(ImportFeaturesOptions(source=voice, store=store, format="muse"))
        assert (result.imported, result.skipped) == done
        after = open_store(store)
        assert (list(after), after.schema) == (list(before), before.schema)
        for video in before:
            assert_same_video(after[video], before[video], ("affect", "time", "valid"))


def test_a_copy_without_what_was_replaced_holds_the_same(tmp_path):
    merge.run(MergeOptions(stores=[here("gaps")], out=tmp_path / "out.zarr"))
    before, after = open_store(here("gaps")), open_store(tmp_path / "out.zarr")
    for video in before:
        assert_same_video(after[video], before[video])


def restored(source, name, folder):
    """Import a dump."""
    store = folder / f"{name}-{len(list(folder.iterdir()))}.zarr"
    result = imports.run(ImportFeaturesOptions(source=source, store=store))
    assert result.format.removeprefix("feie-") == name
    assert (result.imported, result.failures) == (2, {})
    return open_store(store)


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_is_imported_and_made_again(name, tmp_path):
    geometry = name not in ("muse", "openface")
    old = restored(HERE / "dumps" / DUMPS[name], name, tmp_path)
    out = tmp_path / "dump" / DUMPS[name]
    out.parent.mkdir()
    dump.run(DumpOptions(store=here("gaps"), format=name, out=out, geometry=geometry))
    new, first = restored(out, name, tmp_path), open_store(here("gaps"))
    assert old.schema == new.schema == first.schema
    for video in first:
        assert_same_video(new[video], old[video])
        assert_same_video(old[video], first[video], ("affect", "valid", *GEOMETRY[: 3 * geometry]))
        np.testing.assert_allclose(old[video].time, first[video].time, rtol=0, atol=6e-4)


@pytest.mark.parametrize(
    ("name", "spec"),
    [("mma-tiny", str(HERE / "mma-run" / "tiny.safetensors"))],
)
def test_weights_give_the_numbers_that_they_gave(name, spec):
    expected = np.load(HERE / "expected" / "extractors.npz")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        extractor = load_extractor(spec, "cpu")
        said = extractor(expected["faces"])
    finally:
        torch.set_num_threads(threads)
    assert extractor.sha256 == str(expected[f"{name}/sha256"])
    assert list(extractor.schema.columns) == expected[f"{name}/columns"].tolist()
    for array in ("affect", "embedding"):  # another processor sums in another order
        then = expected[f"{name}/{array}"].astype(np.float32)
        np.testing.assert_allclose(getattr(said, array), then, rtol=2e-3, atol=2e-5)
