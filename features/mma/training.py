"""Training state of an MMA: network, optimiser, average of the weights, and their checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from feie.features.errors import DataError
from feie.features.mma.augment import resample
from feie.features.mma.config import LossConfig, MmaConfig
from feie.features.mma.losses import action_unit_loss, ccc_loss, expression_loss, matching_loss
from feie.features.mma.network import MMANetwork, affect_from_raw, channels_last, split_raw
from feie.features.mma.relations import relation_matrix
from feie.features.mma.sampling import Batch

TASKS = ("ccc", "cce", "bce", "dm")


def task_losses(raw: Tensor, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """Compute the four losses of a batch, unweighted.

    The expression probabilities in L_DM are constants (ours): a gradient through them would
    reward the network for calling every face neutral, which entails no action unit.

    Parameters
    ----------
    raw : Tensor (b, 26)
        Raw outputs.
    batch : Batch
        Labels.
    config : LossConfig
        Forms of the losses.
    """
    va, expression, units = split_raw(raw.float())
    known = ~torch.isnan(batch.units)
    return {
        "ccc": ccc_loss(va.tanh(), batch.valence_arousal),
        "cce": expression_loss(expression, batch.expression, config.smoothing),
        "bce": action_unit_loss(units, batch.units, config.positive),
        "dm": matching_loss(
            expression.detach().softmax(dim=1),
            units,
            torch.from_numpy(relation_matrix()),
            config.matching,
            counted=None if config.match_annotated else ~known,
        ),
    }


class Trainer:
    """Everything that changes while training, one step at a time.

    Parameters
    ----------
    config : MmaConfig
        The stage.
    initial : MMANetwork, optional
        Start from its weights instead of at random.
    """

    def __init__(self, config: MmaConfig, initial: MMANetwork | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.step = 0
        self.network = channels_last(MMANetwork(config.network))
        if initial is not None:
            if initial.config != config.network:
                raise DataError("the stages of a configuration need one and the same network")
            self.network.load_state_dict(initial.state_dict())
        self.average = channels_last(MMANetwork(config.network))
        self.average.load_state_dict(self.network.state_dict())
        self.average.eval().requires_grad_(False)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.optimiser.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.optimiser.lr,
            fused=True,
        )

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine."""
        options = self.config.optimiser
        position = (self.step + 1) / self.config.scheduled_steps
        if position < options.warmup:
            return options.lr * position / options.warmup
        rest = (position - options.warmup) / (1 - options.warmup)
        return options.lr * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))

    def advance(self, batch: Batch) -> dict[str, float]:
        """Take one optimiser step and return the losses, by task and as ``loss``."""
        config = self.config
        torch.manual_seed((config.seed << 32) + self.step)
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.network.train()
        faces = batch.faces.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            _, raw = self.network(faces)
        losses = task_losses(raw, batch, config.losses)
        total = torch.stack([getattr(config.losses, task) * losses[task] for task in TASKS]).sum()
        if not bool(torch.isfinite(total)):
            raise DataError(
                f"the loss is {float(total)} at step {self.step}: lower optimiser.lr "
                f"({config.optimiser.lr:g}) or check the labels of the sources"
            )
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        self.step += 1
        self._follow()
        figures = {"loss": total} | losses
        return {name: float(value.detach()) for name, value in figures.items()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average; early on it forgets faster, so that it leaves the random start."""
        decay = min(self.config.optimiser.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.average.state_dict(), self.network.state_dict()
        floating = [key for key in ours if ours[key].is_floating_point()]
        torch._foreach_lerp_(
            [ours[key] for key in floating], [theirs[key] for key in floating], 1 - decay
        )
        for key in ours.keys() - set(floating):
            ours[key].copy_(theirs[key])

    def predict(self, faces: NDArray[np.uint8], size: int, batch: int = 128) -> NDArray[np.float32]:
        """Affect vectors (n, 26) of faces (n, 112, 112, c) at an image size, by the average."""
        parts = []
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"),
        ):
            for start in range(0, len(faces), batch):
                part = torch.from_numpy(faces[start : start + batch])
                part = part.expand(-1, -1, -1, 3)
                x = resample(part, size).contiguous(memory_format=torch.channels_last)
                parts.append(affect_from_raw(self.average(x)[1].float()).numpy())
        return np.concatenate(parts)

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically: a kill leaves this one or the one before."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        metadata = {"step": str(self.step), "config": config_digest(self.config)}
        temporary = path.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        _sync(temporary)
        os.replace(temporary, path)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint as if nothing had happened.

        Raises
        ------
        DataError
            The checkpoint is damaged or belongs to another configuration.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"checkpoint {path} cannot be read: {error}") from error
        if metadata.get("config") != config_digest(self.config):
            raise DataError(
                f"checkpoint {path} belongs to another configuration; "
                "choose another output folder or start it afresh"
            )
        self.network.load_state_dict(_below("network", tensors.items()))
        self.average.load_state_dict(_below("average", tensors.items()))
        states: dict[int, dict[str, Tensor]] = {}
        places = [p for group in self._optimiser.param_groups for p in group["params"]]
        for key, value in _below("optimiser", tensors.items()).items():
            index, _, name = key.partition(".")
            if value.ndim:
                # The fused step walks raw memory: moments must lie as their weights do.
                value = torch.empty_like(places[int(index)], requires_grad=False).copy_(value)
            states.setdefault(int(index), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": states, "param_groups": groups})
        self.step = int(metadata["step"])


def config_digest(config: MmaConfig) -> str:
    """Hash of everything in a configuration that changes numbers."""
    content = config.model_dump(mode="json", exclude={"log_every", "validate_every", "validation"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _below(prefix: str, items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    start = prefix + "."
    return {key.removeprefix(start): value for key, value in items if key.startswith(start)}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
