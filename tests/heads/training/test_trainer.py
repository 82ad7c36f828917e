"""Training on plain arrays: it learns what is there, nothing else, and the same again."""

import numpy as np
import pytest
import torch

from feie.features.errors import HeadError, UsageError
from feie.heads.config import MRNNConfig, TrainingConfig
from feie.heads.data.ragged import Ragged
from feie.heads.measures.metrics import pearson
from feie.heads.models.mrnn import MRNN
from feie.heads.runs.trained import Calibration
from feie.heads.training.trainer import Examples, Trainer, deal_batches, predict


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_examples(count, seed=0, longest=24, shuffled=False):
    """Two intensities show as bumps in four noisy columns, at random times."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, -0.5, 2.0]])
    strength = rng.random((count, 2))
    videos = []
    for row in strength:
        time = np.arange(rng.integers(6, longest + 1))[:, None]
        bump = row * np.exp(-0.5 * ((time - rng.uniform(0, len(time), 2)) / 3) ** 2)
        videos.append(bump @ mixing + rng.normal(0, 0.2, (len(time), 4)))
    if shuffled:
        strength = strength[np.random.default_rng(7).permutation(count)]
    offsets = np.cumsum([0] + [len(v) for v in videos])
    return Examples(Ragged(np.concatenate(videos).astype(np.float32), offsets), strength)


def split(examples, start, stop):
    videos = np.arange(start, stop)
    return Examples(examples.frames.select(videos), examples.labels[videos])


def make_trainer(examples, count=120, t=30, cell="gru", layers=1, mask=True, **config):
    given = {"lr": 3e-3, "batch": 32, "epochs": 12, **config}
    shape = {"inputs": 4, "targets": 2, "t": t, "width": 16, "dense": 8}
    model = MRNN(MRNNConfig(**shape, cell=cell, layers=layers, mask=mask), seed=1)
    parts = split(examples, 0, count), split(examples, count, count + 40)
    return Trainer(model, *parts, TrainingConfig(**given))


def test_learns_structure_and_nothing_from_shuffled_labels():
    found = {}
    for shuffled in (False, True):
        examples = make_examples(360, shuffled=shuffled)
        trainer = make_trainer(examples, epochs=15)
        list(trainer.epochs())
        trainer.use_best()
        test = split(examples, 160, 360)
        found[shuffled] = pearson(predict(trainer.model, test.frames), test.labels).mean()
    assert found[False] > 0.5
    assert abs(found[True]) < 0.2


@pytest.mark.parametrize("loss", ["mse", "ccc"])
def test_other_losses_learn_scale_and_shift_too(loss):
    examples = make_examples(200)
    trainer = make_trainer(examples, loss=loss)
    list(trainer.epochs())
    trainer.use_best()
    test = split(examples, 160, 200)
    prediction = predict(trainer.model, test.frames)
    assert pearson(prediction, test.labels).mean() > 0.4
    assert np.abs(prediction - test.labels).mean() < 0.26


def test_batches_hold_every_video_once_and_never_one_alone():
    for count, batch in ((65, 64), (10, 4), (7, 64), (9, 8)):
        parts = deal_batches(count, batch, seed=0, epoch=1)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert 2 <= min(map(len, parts)) <= max(map(len, parts)) <= batch
    for count in (3, 5, 7):
        parts = deal_batches(count, 2, seed=0, epoch=1, least=2)
        assert sorted(np.concatenate(parts).tolist()) == list(range(count))
        assert sorted(map(len, parts)) == [2] * (count // 2 - 1) + [3]
    assert list(map(len, deal_batches(3, 1, 0, 1))) == [1, 1, 1]
    first = np.concatenate(deal_batches(50, 8, 0, 1))
    assert not np.array_equal(first, np.concatenate(deal_batches(50, 8, 0, 2)))
    assert not np.array_equal(first, np.concatenate(deal_batches(50, 8, 1, 1)))


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_same_seed_same_weights_other_seed_others():
    examples = make_examples(200)
    found = []
    for seed in (0, 0, 1):
        trainer = make_trainer(examples, epochs=2, seed=seed)
        list(trainer.epochs())
        found.append(weights(trainer))
    assert all(map(torch.equal, found[0], found[1]))
    assert not all(map(torch.equal, found[0], found[2]))


@pytest.mark.parametrize("given", [{}, {"cell": "lstm", "layers": 2, "clip": 0.05}], ids=str)
def test_put_down_and_taken_up_it_ends_the_same(given):
    examples = make_examples(200)
    whole = make_trainer(examples, epochs=5, **given)
    list(whole.epochs())
    part = make_trainer(examples, epochs=5, **given)
    for _ in range(2):
        part.run_epoch()
    state = part.state()
    other = make_trainer(examples, epochs=5, **given)
    other.restore(*state)
    list(other.epochs())
    assert other.history == whole.history
    assert other.best_epoch == whole.best_epoch
    assert all(map(torch.equal, weights(other), weights(whole)))


def test_a_larger_t_trains_the_same_head():
    examples = make_examples(200)
    histories = []
    for t in (24, 60):
        trainer = make_trainer(examples, t=t, epochs=3)
        list(trainer.epochs())
        histories.append(trainer.history)
    assert histories[0] == histories[1]


def test_stops_early_and_keeps_the_best():
    examples = make_examples(200, shuffled=True)
    trainer = make_trainer(examples, epochs=60, patience=3)
    list(trainer.epochs())
    curve = [epoch.val_score for epoch in trainer.history]
    assert len(curve) < 60
    assert len(curve) - trainer.best_epoch == 3
    assert trainer.best_score == max(curve)
    trainer.use_best()
    again = pearson(predict(trainer.model, trainer.val.frames), trainer.val.labels).mean()
    assert again == pytest.approx(trainer.best_score, abs=1e-12)


def test_blocks_past_the_longest_training_video_are_zero():
    examples = make_examples(200)
    trainer = make_trainer(examples, t=40, epochs=1)
    list(trainer.epochs())
    longest = int(trainer.train.frames.lengths.max())
    assert torch.count_nonzero(trainer.model.dense_weight[longest:]) == 0
    assert torch.count_nonzero(trainer.model.dense_weight[longest - 1]) > 0


def test_videos_without_frames_are_left_out_and_predicted_as_unknown():
    examples = make_examples(200)
    lengths = examples.frames.lengths
    lengths[[3, 150]] = 0
    parts = [examples.frames[i][: lengths[i]] for i in range(200)]
    gaps = Examples(
        Ragged(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)])), examples.labels
    )
    trainer = make_trainer(gaps, epochs=1)
    assert (len(trainer.train.frames), len(trainer.val.frames)) == (119, 39)
    list(trainer.epochs())
    unknown = np.isnan(predict(trainer.model, gaps.frames)).all(axis=1)
    assert np.flatnonzero(unknown).tolist() == [3, 150]


def test_order_never_matters_at_evaluation():
    examples = make_examples(200)
    trainer = make_trainer(examples, epochs=1)
    list(trainer.epochs())
    order = np.random.default_rng(0).permutation(200)
    straight = predict(trainer.model, examples.frames)
    np.testing.assert_allclose(
        predict(trainer.model, examples.frames.select(order)), straight[order], atol=1e-5
    )


def test_divergence_is_one_clear_error():
    trainer = make_trainer(make_examples(200), lr=1e30, epochs=3)
    with pytest.raises(HeadError, match="diverged in epoch 1; use a learning rate below"):
        list(trainer.epochs())


def test_nothing_to_train_on_or_to_correlate():
    examples = make_examples(200)
    empty = Examples(Ragged(np.zeros((0, 4), np.float32), np.zeros(4, np.int64)), np.zeros((3, 2)))
    model = MRNN(MRNNConfig(inputs=4, targets=2, t=30, width=4, dense=4))
    with pytest.raises(HeadError, match="no training video has a frame with a face"):
        Trainer(model, empty, examples, TrainingConfig())
    with pytest.raises(HeadError, match="no validation video has a frame with a face"):
        Trainer(model, examples, empty, TrainingConfig())
    with pytest.raises(UsageError, match="pearson needs at least 2 videos a batch"):
        Trainer(model, examples, examples, TrainingConfig(batch=1))
    Trainer(model, examples, examples, TrainingConfig(batch=1, loss="mse"))


def test_one_frame_videos_and_a_constant_target_train():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    labels = np.stack([x[:, 0], np.full(60, 0.5)], axis=1).astype(np.float64)
    examples = Examples(Ragged(x, np.arange(61)), labels)
    model = MRNN(MRNNConfig(inputs=4, targets=2, t=1, width=8, dense=8))
    trainer = Trainer(model, examples, examples, TrainingConfig(lr=0.01, epochs=10))
    list(trainer.epochs())
    assert trainer.best_score > 0.8


def test_calibration_is_least_squares_and_keeps_every_correlation():
    rng = np.random.default_rng(0)
    y = rng.random((50, 3))
    raw = 40 * y - 7 + rng.normal(0, 4, y.shape)
    raw[:, 1] *= -1
    found = Calibration.fit(raw, y)
    for i in (0, 2):
        expected = np.polyfit(raw[:, i], y[:, i], 1)
        np.testing.assert_allclose([found.slope[i], found.offset[i]], expected)
    done = found.apply(raw)
    np.testing.assert_allclose(done.mean(0), y.mean(0))
    np.testing.assert_allclose(pearson(done, y), pearson(raw, y), rtol=1e-9)
    constant = Calibration.fit(np.full((50, 3), 2.0), y).apply(np.full((4, 3), 2.0))
    np.testing.assert_allclose(constant, np.tile(y.mean(0), (4, 1)))


def test_labels_of_any_scale_train_alike():
    examples = make_examples(200)
    histories = []
    for scale, shift in ((1.0, 0.0), (1e-4, 0.0), (1e4, 3.0)):
        trainer = make_trainer(Examples(examples.frames, scale * examples.labels + shift), epochs=3)
        list(trainer.epochs())
        histories.append([(e.train_loss, e.val_score) for e in trainer.history])
    np.testing.assert_allclose(histories[1:], [histories[0]] * 2, atol=1e-4)


def test_no_epoch_is_best_where_validation_pearson_is_undefined():
    examples = make_examples(200)
    examples.labels[120:160] = 0.5
    trainer = make_trainer(examples, epochs=2)
    list(trainer.epochs())
    assert trainer.best_epoch == 0
    with pytest.raises(HeadError, match="undefined in all 2 epochs"):
        trainer.use_best()


def test_a_state_of_another_training_is_refused():
    examples = make_examples(200)
    trainer = make_trainer(examples)
    trainer.run_epoch()
    tensors, notes = trainer.state()
    broken = {**tensors, "model.dense_bias": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"shape \(1,\) in place of \(8,\)"):
        trainer.restore(broken, notes)
    with pytest.raises(ValueError, match="best epoch 9 of 1"):
        trainer.restore(tensors, {**notes, "best_epoch": 9})


def test_examples_that_all_show_faces_are_not_copied():
    examples = make_examples(20)
    assert examples.dealt() is examples


@pytest.mark.parametrize("name", ["lr", "clip"])
def test_endless_options_are_refused(name):
    for value in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            TrainingConfig(**{name: value})


@pytest.mark.parametrize(("mask", "routing"), [(True, False), (False, True), (False, False)])
def test_without_routing_or_mask_it_is_plain_adam_over_everything(mask, routing, doubles):
    examples = make_examples(200)
    frames = Ragged(examples.frames.values.astype(np.float64), examples.frames.offsets)
    examples = Examples(frames, examples.labels)
    trainer = make_trainer(examples, epochs=3, batch=8, routing=routing, mask=mask)
    reference = make_trainer(examples, epochs=3, batch=8, mask=mask)
    parameters = [p for p in reference.model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=3e-3)
    plain = type(
        "Plain",
        (),
        {"zero_grad": adam.zero_grad, "step": lambda _, reach: adam.step(), "param_groups": []},
    )
    reference.optimiser = plain()
    for _ in range(3):
        trainer.run_epoch()
        reference.run_epoch()
    for one, other in zip(weights(trainer), weights(reference), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)
    routed = make_trainer(examples, epochs=3, batch=8)
    list(routed.epochs())
    assert not all(map(torch.equal, weights(routed), weights(trainer)))
