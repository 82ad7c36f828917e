"""Stacked runs against the same runs trained one by one, in float64."""

import numpy as np
import pytest
import torch

from feie.features.errors import HeadError
from feie.heads.config import MRNNConfig, TrainingConfig
from feie.heads.data.ragged import Ragged
from feie.heads.models.mrnn import MRNN
from feie.heads.training.stacked import Stack, pays, stack_key, train_stacked
from feie.heads.training.trainer import Examples, Trainer

CPU = torch.device("cpu")


def make_examples(count, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, count)
    strength = rng.random((count, 2))
    x = rng.normal(0, 0.5, (lengths.sum(), 5))
    x[:, :2] += np.repeat(strength, lengths, axis=0)
    return Examples(Ragged(x, np.concatenate([[0], np.cumsum(lengths)])), strength)


def columns(examples, count):
    return Examples(Ragged(examples.frames.values[:, :count], examples.frames.offsets),
                    examples.labels)  # fmt: skip


def make_trainers(runs=((5, 0), (3, 0), (5, 1)), cell="gru", layers=1, mask=True, **config):
    """One a pair (input columns, seed), in float64."""
    train, val = make_examples(21, 0), make_examples(9, 1)
    given = {"lr": 1e-2, "batch": 4, "epochs": 4, "patience": 2, **config}
    trainers = []
    for inputs, seed in runs:
        shape = {"inputs": inputs, "targets": 2, "t": 14, "width": 6, "dense": 4}
        model = MRNN(MRNNConfig(**shape, cell=cell, layers=layers, mask=mask), seed).double()
        parts = columns(train, inputs), columns(val, inputs)
        trainers.append(Trainer(model, *parts, TrainingConfig(seed=seed, **given)))
    return trainers


CASES = [
    {},
    {"clip": 0.05, "schedule": "plateau"},
    {"cell": "lstm", "layers": 2, "loss": "mse", "weights": (1.0, 3.0)},
    {"mask": False, "routing": False, "loss": "ccc"},
    {"routing": False},
]


@pytest.mark.parametrize("given", CASES, ids=str)
def test_stacked_runs_equal_separate_ones(given):
    separate, stacked = make_trainers(**given), make_trainers(**given)
    for trainer in separate:
        list(trainer.epochs())
    told = [(run, epoch.epoch) for run, epoch in train_stacked(stacked, CPU)]
    assert len({tuple(t.history) for t in stacked}) == 3
    for run, (one, other) in enumerate(zip(separate, stacked, strict=True)):
        assert [e for r, e in told if r == run] == [e.epoch for e in one.history]
        assert other.best_epoch == one.best_epoch
        for a, b in zip(one.history, other.history, strict=True):
            assert (a.train_loss, a.val_score) == pytest.approx(
                (b.train_loss, b.val_score), abs=1e-6
            )
        tensors, again = one.state()[0], other.state()[0]
        assert tensors.keys() == again.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=1e-6, msg=name)


def test_a_run_that_stops_early_leaves_the_others_alone():
    stacked = make_trainers(epochs=12, patience=1)
    list(train_stacked(stacked, CPU))
    assert len({len(t.history) for t in stacked}) > 1
    for trainer, alone in zip(stacked, make_trainers(epochs=12, patience=1), strict=True):
        list(alone.epochs())
        assert len(trainer.history) == len(alone.history)
        assert trainer.best_score == pytest.approx(alone.best_score, abs=1e-6)


def test_runs_at_different_epochs_are_taken_up_together():
    whole, part, resumed = (make_trainers(patience=4) for _ in range(3))
    list(train_stacked(whole, CPU))
    for trainer, epochs in zip(part, (0, 1, 3), strict=True):
        for _ in range(epochs):
            trainer.run_epoch()
    for one, other in zip(part[1:], resumed[1:], strict=True):
        other.restore(*one.state())
    list(train_stacked(resumed, CPU))
    for one, other in zip(whole, resumed, strict=True):
        assert len(one.history) == len(other.history) == 4
        for name, tensor in one.state()[0].items():
            torch.testing.assert_close(other.state()[0][name], tensor, atol=1e-6, rtol=1e-6)


def test_one_that_diverges_does_not_stop_the_others():
    stacked = make_trainers()
    with torch.no_grad():
        stacked[1].model.dense_bias.fill_(float("nan"))
    ended = list(train_stacked(stacked, CPU))
    assert [run for run, what in ended if isinstance(what, HeadError)] == [1]
    assert len(stacked[0].history) == 4
    assert not stacked[1].history


def test_blocks_that_a_run_does_not_reach_stay_as_they_are():
    stacked = make_trainers(((5, 0), (5, 1)))
    stack = Stack(stacked, CPU)
    lengths = stacked[0].train.frames.lengths
    short, long = np.flatnonzero(lengths <= 5)[:3], np.flatnonzero(lengths > 8)[:3]
    reach = int(lengths[short].max())
    before = [t.model.dense_weight.detach().clone() for t in stacked]
    stack.step([short, long])
    assert torch.equal(stacked[0].model.dense_weight[reach:], before[0][reach:])
    assert not torch.equal(stacked[1].model.dense_weight[reach:], before[1][reach:])
    steps = stacked[0].optimiser.state[stacked[0].model.dense_weight]["step"]
    assert steps.tolist() == [1.0] * reach + [0.0] * (14 - reach)


def test_what_can_be_stacked_and_when_it_pays():
    one, other = make_trainers(((5, 0), (3, 1)))
    (wide,) = make_trainers(((5, 0),), layers=2)
    (quick,) = make_trainers(((5, 0),), lr=0.1)
    assert stack_key(one) == stack_key(other)
    assert len({stack_key(t) for t in (one, wide, quick)}) == 3
    assert pays(torch.device("cuda"), 256)
    assert not pays(CPU, 64)
