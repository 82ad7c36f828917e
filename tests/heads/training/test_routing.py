"""Routing: unreached blocks do not move at all, and each block is an Adam of its own."""

import numpy as np
import pytest
import torch

from feie.heads.config import MRNNConfig
from feie.heads.data.packing import Packing
from feie.heads.measures.losses import pearson_loss
from feie.heads.models.mrnn import MRNN
from feie.heads.training.routing import RoutedAdam

REACHES = [3, 6, 2, 2, 6, 5, 1, 3]


def test_equals_separate_adams_over_the_blocks():
    """480 optimisers, each seeing only the batches that reach its block."""
    torch.manual_seed(0)
    start = torch.randn(480, 4, 3, dtype=torch.float64)
    routed = torch.nn.Parameter(start.clone())
    optimiser = RoutedAdam([], [routed], lr=0.01)
    blocks = [torch.nn.Parameter(block.clone()) for block in start]
    adams = [torch.optim.Adam([block], lr=0.01) for block in blocks]
    rng = np.random.default_rng(1)
    for _ in range(25):
        reach = int(rng.integers(1, 481))
        routed.grad = torch.randn_like(routed)
        routed.grad[reach:] = 0
        optimiser.step(reach)
        for k in range(reach):
            blocks[k].grad = routed.grad[k].clone()
            adams[k].step()
    torch.testing.assert_close(
        routed.detach(), torch.stack(list(blocks)).detach(), atol=1e-13, rtol=0
    )


def train_batch(model, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    packing = Packing.of(lengths)
    frames = torch.randn(packing.rows, 3, generator=generator)
    target = torch.rand(len(lengths), 2, generator=generator)
    model.zero_grad()
    pearson_loss(model(frames, packing), target).backward()
    return packing.steps


def small_model():
    return MRNN(MRNNConfig(inputs=3, targets=2, t=8, width=6, dense=4), seed=0)


def split_parameters(model):
    plain = [p for n, p in model.named_parameters() if n != "dense_weight"]
    return plain, [model.dense_weight]


def test_unreached_blocks_keep_value_moments_and_count_bit_for_bit():
    model = small_model()
    optimiser = RoutedAdam(*split_parameters(model), lr=0.01)
    optimiser.step(train_batch(model, [8, 5, 4], 0))
    state = optimiser.state[model.dense_weight]
    for seed, lengths in enumerate([[3, 2, 2], [5, 1, 1], [2, 1, 1]], start=1):
        before = model.dense_weight.detach().clone()
        old = {name: value.clone() for name, value in state.items()}
        reach = train_batch(model, lengths, seed)
        assert torch.count_nonzero(model.dense_weight.grad[reach:]) == 0
        optimiser.step(reach)
        assert torch.equal(model.dense_weight[reach:], before[reach:])
        assert not torch.equal(model.dense_weight[:reach], before[:reach])
        for name, value in state.items():
            assert torch.equal(value[reach:], old[name][reach:])
    assert state["step"].tolist() == [4, 4, 3, 2, 2, 1, 1, 1]


def test_plain_adam_moves_blocks_that_no_video_reached():
    """Why routing is needed: a zero gradient does not stop momentum."""
    model = small_model()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    train_batch(model, [8, 5, 4], 0)
    optimiser.step()
    before = model.dense_weight.detach().clone()
    reach = train_batch(model, [3, 2, 2], 1)
    assert torch.count_nonzero(model.dense_weight.grad[reach:]) == 0
    optimiser.step()
    moved = (model.dense_weight - before).detach()[reach:].abs().max().item()
    assert moved == pytest.approx(0.67 * 0.01, rel=0.02)


def test_plain_parameters_get_ordinary_adam():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64)) for _ in range(2))
    optimisers = RoutedAdam([ours], [], lr=0.02), torch.optim.Adam([theirs], lr=0.02)
    for reach in REACHES:
        ours.grad = torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        optimisers[0].step(reach)
        optimisers[1].step()
    torch.testing.assert_close(ours, theirs, atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [1e-10, 1e-8, 1e-6])
def test_gradients_near_epsilon_are_those_of_adam(size):
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimisers = RoutedAdam([], [ours], lr=0.02), torch.optim.Adam([theirs], lr=0.02)
    for _ in range(10):
        ours.grad = size * torch.randn_like(ours)
        theirs.grad = ours.grad.clone()
        optimisers[0].step(5)
        optimisers[1].step()
    assert (ours - start).abs().max() > 1e-5
    torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=0)


def test_state_survives_being_saved_and_loaded():
    results = []
    for interrupted in (False, True):
        model = small_model()
        optimiser = RoutedAdam(*split_parameters(model), lr=0.01)
        for seed, reach in enumerate(REACHES):
            optimiser.step(train_batch(model, [reach, 1, 1], seed))
            if interrupted and seed == 4:
                saved = optimiser.state_dict()
                optimiser = RoutedAdam(*split_parameters(model), lr=0.01)
                optimiser.load_state_dict(saved)
        results.append(model.dense_weight.detach().clone())
    assert torch.equal(*results)
