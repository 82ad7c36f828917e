"""Heads of others: how they are found, checked and loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from feie.features.errors import HeadError, UsageError
from feie.features.plugins import Plugin, find_plugin, names_file
from feie.heads.config import PluginConfig, absolute
from feie.heads.data.packing import Packing
from feie.heads.models.base import HeadModel

GROUP: Literal["feie.heads"] = "feie.heads"
_named: dict[str, Plugin] = {}


def use_heads(specs: Sequence[str]) -> None:
    """Run the code of heads that the user names, so that runs on the disk may use it.

    A run tells which code it needs, but never causes a file to be run by that.

    Parameters
    ----------
    specs : sequence of str
        Of each that is ``FILE.py:NAME`` the file is run; others need no naming.

    Raises
    ------
    UsageError
        There is no such file or name, or it does not run.
    """
    for spec in filter(names_file, specs):
        _find(absolute(spec))


def check_named(spec: str) -> None:
    """Refuse code that was named by a file on the disk only.

    Raises
    ------
    HeadError
        It is ``FILE.py:NAME``, and `use_heads` has not been told of it.
    """
    if names_file(spec) and all(plugin.spec != spec for plugin in _named.values()):
        raise HeadError(f"it was begun with the code of {spec}: to run it again, add --head {spec}")


def new_plugin_head(spec: str, inputs: int, targets: int, seed: int) -> HeadModel:
    """Make an untrained head of others.

    Parameters
    ----------
    spec : str
        The name of an entry point, or ``FILE.py:NAME``, whose code is run.
    inputs, targets : int
    seed : int
        Of what torch draws at random meanwhile.

    Raises
    ------
    UsageError
        There is no such plugin, or it makes no head.
    """
    plugin = _find(spec)
    if plugin is None:
        raise UsageError(f"no installed package offers a head {spec!r}")
    return _make(plugin, plugin.sha256, inputs, targets, seed)


def load_plugin_head(config: PluginConfig, seed: int = 0) -> HeadModel:
    """Make the head that a checkpoint was trained as, weights yet to be filled in.

    Raises
    ------
    HeadError
        Its code is neither installed nor in a file that the user named.
    """
    plugin = _named.get(config.name) or _find(config.name, installed=True)
    if plugin is None:
        cure = f"name its file, whose code is run, as --head FOLDER/{config.name}"
        if not names_file(config.name):
            cure = f"install the package that offers {config.name!r} as {GROUP}"
        raise HeadError(
            f"its head is {config.name} (code sha256 {config.sha256[:16]}…), which is not here: "
            f"{cure}"
        )
    return _make(plugin, config.sha256, config.inputs, config.targets, seed)


def code_changed(config: PluginConfig) -> bool:
    """Whether the code of a head that was loaded is not the code that it was trained with."""
    plugin = _named.get(config.name)
    return plugin is not None and plugin.sha256 != config.sha256


def _find(spec: str, installed: bool = False) -> Plugin | None:
    """Find a plugin and remember it by its name; `installed` runs no file."""
    if installed and names_file(spec):
        return None
    plugin = find_plugin(spec, GROUP)
    if plugin is not None:
        _named[plugin.name] = plugin
    return plugin


def _make(plugin: Plugin, sha256: str, inputs: int, targets: int, seed: int) -> HeadModel:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = plugin.make(inputs=inputs, targets=targets)
    if not isinstance(model, HeadModel):
        raise UsageError(
            f"{plugin.spec} makes no head: it should inherit feie.heads.head.HeadModel "
            "(docs/extending.md shows one)"
        )
    own = type(model)
    if own.score is HeadModel.score and own.forward is HeadModel.forward:
        raise UsageError(
            f"{plugin.spec} needs `score(self, frames, mask)`, which returns a tensor (videos, "
            "targets) (docs/extending.md shows one)"
        )
    if next(model.buffers(), None) is not None:
        name = next(name for name, _ in model.named_buffers())
        raise UsageError(f"{plugin.spec} keeps {name} in a buffer: all must be in parameters")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"{plugin.spec} has no parameter, so there is nothing to train")
    model.config = PluginConfig(name=plugin.name, sha256=sha256, inputs=inputs, targets=targets)
    _try(plugin, model)
    return model


@torch.no_grad()
def _try(plugin: Plugin, model: HeadModel) -> None:
    """Score three short videos, together and the last of them alone.

    Raises
    ------
    UsageError
        The head fails, gives something of another shape, or mixes videos.
    """
    lengths = [4, 1, 2]
    rows = torch.linspace(-1, 1, sum(lengths) * model.config.inputs).view(sum(lengths), -1)
    packing = Packing.of(lengths)
    model.eval()
    try:
        first = torch.tensor([0, 4, 5]).numpy()
        together = model(rows[packing.gather(first)], packing)
        alone = model(rows[5:], Packing.of([2]))
    except UsageError:
        raise
    except Exception as error:  # whatever it is, it is the plugin's
        raise UsageError(f"{plugin.spec} fails: {type(error).__name__}: {error}") from error
    finally:
        model.train()
    if not isinstance(together, Tensor) or together.shape != (3, model.config.targets):
        shape = tuple(getattr(together, "shape", ()))
        raise UsageError(
            f"{plugin.spec} scores 3 videos as {shape}; it should be {(3, model.config.targets)}"
        )
    if not torch.allclose(together[2:], alone, rtol=1e-3, atol=1e-3):
        raise UsageError(
            f"{plugin.spec} scores a video differently in other company: mind the mask"
        )
