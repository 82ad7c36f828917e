"""Deeper networks from shallower ones, without changing what they compute."""

from __future__ import annotations

from torch import nn

from feie.features.errors import DataError
from feie.features.mma.network import MMANetwork, NetworkConfig, ResidualBlock


def grown(initial: MMANetwork, config: NetworkConfig) -> MMANetwork:
    """Give a network of a configuration that computes what another one does.

    Stages may have more blocks than they had: those that come at the end of a stage start as the
    identity, since the last scale of their residual branch is zero and what they are given is
    never negative.

    Parameters
    ----------
    initial : MMANetwork
        Trained weights.
    config : NetworkConfig
        As the initial network's, or deeper. New kernels are drawn from torch's generator.

    Raises
    ------
    DataError
        The configuration differs in more than added blocks.
    """
    before = initial.config
    deeper = all(new >= old for new, old in zip(config.depths, before.depths, strict=False))
    if before.model_copy(update={"depths": config.depths}) != config or not deeper:
        raise DataError(
            "the stages of a configuration need one and the same network; only the depths may grow"
        )
    network = MMANetwork(config)
    added = _added_layers(before, config)
    kept = (layer for place, layer in enumerate(network.trunk) if place not in added)
    for old, new in zip(initial.trunk, kept, strict=True):
        new.load_state_dict(old.state_dict())
    for name in ("embed", "output"):
        getattr(network, name).load_state_dict(getattr(initial, name).state_dict())
    for place in added:
        block = network.trunk[place]
        assert isinstance(block, ResidualBlock)
        last = block.branch[-1]
        assert isinstance(last, nn.Sequential)
        norm = last[1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.zeros_(norm.weight)
    return network


def _added_layers(before: NetworkConfig, after: NetworkConfig) -> set[int]:
    """Places in the trunk of the deeper network that the shallower one does not have."""
    place = 2 * len(after.stem)
    added: set[int] = set()
    for old, new in zip(before.depths, after.depths, strict=True):
        added.update(range(place + old, place + new))
        place += new
    return added
