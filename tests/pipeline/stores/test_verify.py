"""`feie verify`: every flipped byte, every cut index, every changed source is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feie.features.errors import UsageError
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.features.video.sources import discover, fingerprint
from feie.pipeline.stores import info, verify
from feie.pipeline.stores.info import InfoOptions
from feie.pipeline.stores.verify import VerifyOptions


def write(path, settings, records):
    with StoreWriter(path, settings) as writer:
        for record in records:
            writer.append(record)
    return path


def check(store, **options):
    return verify.run(VerifyOptions(store=str(store), **options))


@pytest.fixture
def store(tmp_path, settings, record):
    records = [record("a", 40, seed=1), record("b/c", 25), record("d", 0, message="empty: 0 bytes")]
    return write(tmp_path / "s.zarr", settings, records)


def chunks_of(store):
    return sorted(p for p in store.rglob("*") if p.is_file() and p.name != "zarr.json")


def test_a_flipped_byte_in_any_chunk_is_found(store):
    assert check(store).sound
    rng = np.random.default_rng(0)
    chunks = chunks_of(store)
    assert len(chunks) == 19  # 6 arrays of frames, 13 of videos
    for path in chunks:
        good = path.read_bytes()
        for at in (0, len(good) - 1, *rng.integers(0, len(good), 2)):
            bad = bytearray(good)
            bad[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(bad))
            assert not check(store).sound, (path.relative_to(store), at)
        path.write_bytes(good)
    assert check(store).sound


def test_a_cut_or_missing_chunk_is_found(store):
    for path in chunks_of(store):
        good = path.read_bytes()
        path.write_bytes(good[: len(good) // 2])
        assert not check(store).sound, path.relative_to(store)
        if path.parent.parent.name in ("offset", "length", "id", "status"):
            path.unlink()
            assert not check(store).sound, path.relative_to(store)
        path.write_bytes(good)
    index = store / "zarr.json"
    text = index.read_text()
    index.write_text(text[: len(text) // 2])
    found = check(store)
    assert not found.sound
    assert found.violations[0][0] == "S1"
    index.write_text(text.replace('"committed": 3', '"committed": 4'))
    assert not check(store).sound


def test_changed_sources_are_named_and_absent_ones_counted(tmp_path, settings, record):
    folder = tmp_path / "v"
    (folder / "deep").mkdir(parents=True)
    records = []
    for i, name in enumerate(("a.mp4", "deep/b.mkv", "c.mp4", "d.mp4")):
        (folder / name).write_bytes(bytes([i]) * 5000)
    for source in discover(folder).sources:
        made = record(source.video_id, 10)
        records.append(replace(made, source=source.relative, fingerprint=fingerprint(source)))
    store = write(tmp_path / "s.zarr", settings, records)
    assert check(store).sources_same == 0  # not asked for
    same = check(store, videos=folder)
    assert (same.sound, same.sources_same) == (True, 4)
    data = bytearray((folder / "deep" / "b.mkv").read_bytes())
    data[4321] ^= 1
    (folder / "deep" / "b.mkv").write_bytes(bytes(data))
    (folder / "c.mp4").unlink()
    found = check(store, videos=folder)
    assert not found.sound
    assert found.sources_changed == ["deep/b.mkv"]
    assert found.sources_absent == ["c.mp4"]
    assert found.sources_same == 2
    assert found.violations == []
    with pytest.raises(UsageError, match="does not exist"):
        check(store, videos=tmp_path / "nowhere")


def test_info_counts_lengths_in_classes(tmp_path, settings, record):
    lengths = [1, 2, 3, 4, 7, 100, 120]
    records = [record(f"v{i}", n) for i, n in enumerate(lengths)]
    result = info.run(InfoOptions(store=str(write(tmp_path / "s.zarr", settings, records))))
    filled = [row for row in result.histogram if row[2]]
    assert filled == [(1, 1, 1), (2, 3, 2), (4, 7, 2), (64, 127, 2)]
    assert [row[0] for row in result.histogram] == [1, 2, 4, 8, 16, 32, 64]
    assert result.reproduce == []  # these records were made by no command
    assert open_store(tmp_path / "s.zarr").ids == sorted(f"v{i}" for i in range(7))
