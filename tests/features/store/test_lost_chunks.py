"""A chunk that was deleted reads as nothing: reading must tell it from frames without a face."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from feie.features.errors import StoreError
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter


@pytest.fixture
def store(tmp_path, settings, record, detector_named):
    """Two chunks of ``affect``: enough frames that losing one is not losing all."""
    path = tmp_path / "s.zarr"
    with StoreWriter(path, settings) as writer:
        writer.use_detector(detector_named)
        for name in ("a", "b", "c"):
            writer.append(record(name, 9_000))
        faceless = record("blank", 50)
        nothing = np.full_like(faceless.affect, np.nan)
        writer.append(replace(faceless, affect=nothing, valid=np.zeros(50, np.bool_)))
    return path


@pytest.mark.parametrize("chunk", ["affect/c/0", "affect/c/1", "valid/c/0", "video/faces/c/0"])
def test_a_deleted_chunk_is_refused_with_what_to_do(store, chunk):
    assert len(open_store(store).read().valid) == 27_050
    path = store / chunk
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match=r"faces of [1-4] videos, e\.g\. .* run `feie verify"):
        open_store(store).read(columns=[25])


def test_only_videos_that_are_read_are_judged(store):
    shutil.rmtree(store / "affect/c/1")
    assert len(open_store(store).read(["a"]).valid) == 9_000


def test_a_chunk_of_frames_without_a_face_is_no_damage(tmp_path, settings, record):
    """Zarr stores no chunk for it."""
    path = tmp_path / "s.zarr"
    one = record("blank", 100)
    blank = replace(one, affect=np.full_like(one.affect, np.nan), valid=np.zeros(100, np.bool_))
    with StoreWriter(path, settings) as writer:
        writer.append(blank)
    assert not [p for p in (path / "affect" / "c").rglob("*") if p.is_file()]
    assert not open_store(path).read().valid.any()
