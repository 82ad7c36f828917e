"""From stored rows to training frames in the memory of the rows themselves."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feie.features.store.reader import RaggedRows
from feie.heads.config import InputConfig
from feie.heads.data import ragged as ragged_module
from feie.heads.data.inputs import Standardiser, prepare
from feie.heads.data.ragged import Ragged, fill_missing, shorten
from feie.heads.training.trainer import Examples

COLUMNS = tuple("abcdefghij")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(ragged_module, "_BLOCK", 5)


def make(lengths, valid_of, seed=0):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.random.default_rng(seed).normal(size=(offsets[-1], 2)).astype(np.float32)
    valid = np.array([valid_of(i) for i in range(offsets[-1])], np.bool_)
    values[~valid] = np.nan
    return Ragged(values, offsets), valid


@pytest.mark.parametrize("missing", ["drop", "hold", "zero"])
@pytest.mark.parametrize("long", ["uniform", "head"])
@given(
    lengths=st.lists(st.integers(0, 14), min_size=1, max_size=6),
    gaps=st.sets(st.integers(0, 83)),
    t=st.integers(1, 9),
)
def test_in_its_own_memory_it_becomes_the_same(missing, long, lengths, gaps, t):
    frames, valid = make(lengths, lambda i: i not in gaps)
    expected = shorten(fill_missing(frames, valid, missing), t, long)
    again, valid = make(lengths, lambda i: i not in gaps)
    found = shorten(fill_missing(again, valid, missing, reuse=True), t, long, reuse=True)
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.offsets, expected.offsets)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_neighbours_are_a_view_and_equal_a_copy(lengths, data):
    frames, _ = make(lengths, lambda i: True)
    first = data.draw(st.integers(0, len(lengths) - 1))
    last = data.draw(st.integers(first, len(lengths) - 1))
    part = frames.select(np.arange(first, last + 1))
    assert part.values.base is not None
    assert len(part) == last + 1 - first
    for i in range(len(part)):
        np.testing.assert_array_equal(part[i], frames[first + i])


def test_leaving_out_videos_without_frames_copies_nothing():
    frames, _ = make([2, 0, 3, 0], lambda i: True)
    kept = Examples(frames, np.arange(8.0).reshape(4, 2)).dealt()
    assert kept.frames.values is frames.values
    assert kept.frames.lengths.tolist() == [2, 3]
    assert kept.labels[:, 0].tolist() == [0, 4]


@pytest.mark.parametrize("gaps", [False, True])
def test_preparing_needs_less_than_half_the_features_again(gaps, monkeypatch):
    monkeypatch.setattr(ragged_module, "_BLOCK", 1 << 12)
    monkeypatch.setattr("feie.heads.data.inputs._BLOCK", 1 << 12)
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 300, 600)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.random((offsets[-1], len(COLUMNS) * 3), np.float32)
    valid = np.ones(len(values), np.bool_)
    if gaps:
        valid[::7] = False
    rows = RaggedRows(values, valid, offsets, [str(i) for i in range(600)])
    columns = tuple(f"{a}{i}" for a in COLUMNS for i in range(3))
    config = InputConfig(columns=columns, groups={}, t=200)
    tracemalloc.start()
    prepared = prepare(rows, config)
    training = np.arange(400)
    standardiser = Standardiser.fit(prepared.frames, training)
    frames = standardiser.apply(prepared.frames, reuse=True)
    parts = frames.select(training), frames.select(np.arange(400, 600))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * values.nbytes
    assert sum(len(p.values) for p in parts) == len(frames.values)
    assert np.abs(parts[0].values.mean(0)).max() < 1e-4
