"""The torch data set and its loader: what train-head reads, in batches that repeat."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import feie
from feie.features.errors import LabelError, StoreError, UsageError
from feie.features.store.writer import StoreWriter
from feie.heads.data.dataset import VideoItem
from feie.heads.data.loader import Batches, collate


@pytest.fixture
def paths(example_folder):
    return example_folder / "features.zarr", example_folder / "labels.csv"


def same(one: VideoItem, other: VideoItem) -> bool:
    labels = one.labels is other.labels is None or torch.equal(one.labels, other.labels)
    return one.id == other.id and torch.equal(one.frames, other.frames) and labels


def test_without_labels_it_is_every_video_as_stored(paths):
    store = feie.open_store(paths[0])
    data = feie.VideoDataset(store)
    assert data.ids == tuple(store.ids)
    assert data.columns == store.columns
    for item in (data[i] for i in range(len(data))):
        video = store[item.id]
        np.testing.assert_array_equal(item.frames, video.affect[video.valid])
        assert item.labels is None
    assert same(data[-1], data[5])
    with pytest.raises(IndexError, match="video 6 of 6"):
        data[6]


def test_it_is_what_train_head_trains_on(paths):
    from feie.pipeline.train.data import read_training_data
    from feie.pipeline.train.options import TrainHeadOptions

    how = {"t": 20, "missing": "hold", "space": "logit", "subset": ("va", "au")}
    data_of_training = read_training_data(
        TrainHeadOptions(store=str(paths[0]), labels=paths[1], frame_stride=2, **how)
    )
    train = feie.VideoDataset(*paths, split="train", standardise=True, stride=2, **how)
    val = feie.VideoDataset(*paths, split="val", standardise=train.standardiser, stride=2, **how)
    for data, examples in ((train, data_of_training.train), (val, data_of_training.val)):
        assert len(data) == len(examples.frames)
        for i, item in enumerate(data[i] for i in range(len(data))):
            np.testing.assert_array_equal(item.frames, examples.frames[i])
        np.testing.assert_allclose(data.labels, examples.labels, rtol=1e-6)


@pytest.mark.parametrize("missing", ["drop", "hold", "zero"])
@pytest.mark.parametrize("standardised", [False, True])
def test_read_when_asked_for_is_the_same_as_from_memory(paths, missing, standardised):
    given = {"missing": missing, "stride": 3, "t": 12, "targets": ["Fear"]}
    memory = feie.VideoDataset(*paths, **given, standardise=standardised)
    standardiser = memory.standardiser or False
    lazy = feie.VideoDataset(*paths, **given, standardise=standardiser, in_memory=False)
    for i in range(len(memory)):
        assert same(memory[i], lazy[i])
        assert torch.isfinite(lazy[i].frames).all()
    assert memory.targets == ("Fear",)
    np.testing.assert_array_equal(memory.lengths, [len(memory[i].frames) for i in range(6)])
    np.testing.assert_array_equal(lazy.lengths, [48, 40, 55, 60, 30, 50])


def test_embeddings_and_videos_without_a_face(tmp_path, settings, record, detector_named):
    path = tmp_path / "s.zarr"
    made = []
    with StoreWriter(path, replace(settings, embedding_dim=3)) as writer:
        writer.use_detector(detector_named)
        for name, shown in (("a", 6), ("b", 0), ("c", 9)):
            kept = record(name, 9)
            valid = np.arange(9) < shown
            embedding = np.where(valid[:, None], np.arange(27).reshape(9, 3), np.nan)
            affect = np.where(valid[:, None], np.full((9, 26), 0.5), np.nan).astype(np.float32)
            affect[valid, 2:9] = 1 / 7
            embedding = embedding.astype(np.float16)
            made.append(replace(kept, valid=valid, affect=affect, embedding=embedding))
            writer.append(made[-1])
    for in_memory in (True, False):
        data = feie.VideoDataset(path, embedding=True, in_memory=in_memory)
        assert (data.ids, data.left_out) == (("a", "c"), {"b": "no frame shows a face"})
        np.testing.assert_array_equal(data[0].frames, made[0].embedding[:6])
        assert data[0].frames.dtype == torch.float32
    assert len(data.columns) == 3
    with pytest.raises(StoreError, match="no video with a face"):
        feie.VideoDataset(feie.open_store(path).select("b"))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"split": "train"}, UsageError, "give labels, too"),
        ({"labels": 1, "split": "test"}, LabelError, "no video in split 'test'"),
        ({"labels": 1, "targets": ["Joy"]}, LabelError, "no column Joy to learn"),
        ({"subset": ["aus"]}, UsageError, "unknown group aus; this store has va, expr, au"),
        ({"embedding": True}, UsageError, "keeps no embeddings"),
        ({"embedding": True, "subset": ["va"]}, UsageError, "neither a subset"),
        ({"standardise": True, "in_memory": False}, UsageError, "standardise=True measures"),
    ],
)
def test_errors(paths, given, error, said):
    if "labels" in given:
        given = {**given, "labels": paths[1]}
    with pytest.raises(error, match=said):
        feie.VideoDataset(paths[0], **given)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_padding_loses_and_adds_nothing(lengths):
    items = [
        VideoItem(str(i), torch.arange(2.0 * n).reshape(n, 2) + 100 * i, torch.tensor([float(i)]))
        for i, n in enumerate(lengths)
    ]
    batch = collate(items)
    order = [int(name) for name in batch.ids]
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    assert batch.frames.shape == (len(batch), max(lengths), 2)
    assert batch.labels[:, 0].tolist() == order
    assert (batch.frames[~batch.mask] == 0).all()
    for row, i in enumerate(order):
        assert batch.mask[row].sum() == batch.lengths[row] == lengths[i]
        part = batch.rows[batch.offsets[row] : batch.offsets[row + 1]]
        assert torch.equal(part, items[i].frames)
        assert torch.equal(batch.frames[row, : lengths[i]], items[i].frames)
    moved = batch.to("meta")
    assert {moved.frames.device.type, moved.labels.device.type} == {"meta"}


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_video_stands_in_one_batch(lengths, size, shuffle, by_length, drop_last):
    lengths = np.array(lengths)

    def batches():
        return Batches(
            lengths, size, shuffle=shuffle, seed=3, by_length=by_length, drop_last=drop_last
        )

    ours, again = batches(), batches()
    first, second = list(ours), list(ours)
    assert len(first) == len(ours)
    seen = [video for batch in first for video in batch]
    assert len(set(seen)) == len(seen)
    left_out = len(lengths) - len(seen)
    assert left_out == (len(lengths) % size if drop_last else 0)
    assert [list(again), list(again)] == [first, second]
    again.set_epoch(1)
    assert list(again) == second
    if by_length:  # no video lies between those of another batch
        spans = sorted((lengths[b].min(), lengths[b].max()) for b in first)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    if not shuffle:
        assert first == second


def test_seeds_and_epochs_differ(paths):
    data = feie.VideoDataset(paths[0])

    def order(seed):
        return [name for batch in feie.loader(data, 2, seed=seed) for name in batch.ids]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1
    batches = feie.loader(data, 2)
    assert len({tuple(b.ids for b in batches) for _ in range(5)}) > 1
    with pytest.raises(UsageError, match="batch_size=0"):
        feie.loader(data, 0)


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_worker_processes_give_the_same_batches(paths, method, workers):
    data = feie.VideoDataset(*paths, in_memory=method == "spawn")
    data[0]  # so that this process has opened the store and cached a chunk
    expected = list(feie.loader(data, 2, seed=5))
    found = list(feie.loader(data, 2, seed=5, workers=workers, multiprocessing_context=method))
    assert [b.ids for b in found] == [b.ids for b in expected]
    for ours, theirs in zip(expected, found, strict=True):
        assert torch.equal(ours.frames, theirs.frames)
        assert torch.equal(ours.labels, theirs.labels)
