"""Training state of an MMA: network, optimiser, average of the weights, and their checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from feie.features.devices import Precision, autocast
from feie.features.errors import DataError
from feie.features.mma.augment import resample
from feie.features.mma.config import MmaConfig
from feie.features.mma.growth import grown
from feie.features.mma.network import MMANetwork, affect_from_raw, channels_last
from feie.features.mma.training.checkpoint import (
    below,
    network_digest,
    read_checkpoint,
    write_checkpoint,
)
from feie.features.mma.training.objective import Objective
from feie.features.mma.training.sampling import Batch

_CPU = torch.device("cpu")


class Trainer:
    """Everything that changes while training, one step at a time.

    A run that is resumed on a CPU takes the very steps of an undisturbed one. On a GPU, where some
    kernels add up in no fixed order, it takes steps as like them as those of two undisturbed runs.

    Parameters
    ----------
    config : MmaConfig
        The stage.
    initial : MMANetwork, optional
        Start from its weights instead of at random.
    device : torch.device
        Where the network, its average and the optimiser's state live.
    """

    def __init__(
        self,
        config: MmaConfig,
        initial: MMANetwork | None = None,
        device: torch.device = _CPU,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.step = 0
        self.objective = Objective(config.losses, config.network.outputs).to(device)
        # Drawn on the CPU wherever it runs: a seed means the same weights everywhere.
        self.network = channels_last(MMANetwork(config.network)).to(device)
        self._initial = ""
        if initial is not None:
            self.network.load_state_dict(grown(initial, config.network).state_dict())
            self._initial = network_digest(initial)
        self.average = channels_last(MMANetwork(config.network)).to(device)
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
        # Gradients in fp16 vanish unless the loss is scaled; without fp16 this does nothing.
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")

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
        batch = Batch(*(part.to(self.device, non_blocking=True) for part in batch))
        with autocast(config.precision, self.device):
            _, raw = self.network(batch.faces.contiguous(memory_format=torch.channels_last))
        losses = self.objective(raw, batch)
        # The one place where a step waits for the device.
        values = torch.stack(list(losses.values())).tolist()
        figures = dict(zip(losses, values, strict=True))
        if not math.isfinite(figures["loss"]):
            raise DataError(
                f"the loss is {figures['loss']} at step {self.step}: lower optimiser.lr "
                f"({config.optimiser.lr:g}) or check the labels of the sources"
            )
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(losses["loss"]).backward()
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.step += 1
        self._follow()
        return figures

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
        """Affect vectors (n, columns) of faces (n, 112, 112, c) at a size, by the average."""
        with torch.inference_mode(), autocast(self.config.precision, self.device):
            return np.concatenate(
                [
                    _affect(self.average, faces[start : start + batch], size, self.device)
                    for start in range(0, len(faces), batch)
                ]
            )

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically: a kill leaves this one or the one before."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        metadata = {
            "step": str(self.step),
            "config": config_digest(self.config),
            "initial": self._initial,
            "scaler": json.dumps(self._scaler.state_dict()),
        }
        write_checkpoint(path, tensors, metadata)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint as if nothing had happened.

        Raises
        ------
        DataError
            The checkpoint is damaged, belongs to another configuration, or was trained on from
            other weights than those that this trainer started from.
        """
        tensors, metadata = read_checkpoint(path)
        if metadata.get("config") != config_digest(self.config):
            raise DataError(
                f"checkpoint {path} belongs to another configuration; "
                "choose another output folder or start it afresh"
            )
        if metadata.get("initial", "") != self._initial:
            raise DataError(
                f"checkpoint {path} was trained on from other weights than the stage before it "
                f"has now: remove {path.parent} to train this stage again, or choose another "
                "output folder"
            )
        self.network.load_state_dict(below("network", tensors))
        self.average.load_state_dict(below("average", tensors))
        states: dict[int, dict[str, Tensor]] = {}
        places = [p for group in self._optimiser.param_groups for p in group["params"]]
        for key, value in below("optimiser", tensors).items():
            index, _, name = key.partition(".")
            if value.ndim:
                # The fused step walks raw memory: moments must lie as their weights do.
                value = torch.empty_like(places[int(index)], requires_grad=False).copy_(value)
            states.setdefault(int(index), {})[name] = value
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": states, "param_groups": groups})
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(json.loads(metadata["scaler"]))
        self.step = int(metadata["step"])


def config_digest(config: MmaConfig) -> str:
    """Hash of everything in a configuration that changes numbers."""
    content = config.model_dump(mode="json", exclude={"log_every", "validate_every", "validation"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _affect(
    network: MMANetwork, faces: NDArray[np.uint8], size: int, device: torch.device
) -> NDArray[np.float32]:
    part = torch.from_numpy(faces).to(device).expand(-1, -1, -1, 3)
    x = resample(part, size).contiguous(memory_format=torch.channels_last)
    return affect_from_raw(network(x)[1].float(), network.config.outputs).cpu().numpy()


def opinion(
    network: MMANetwork,
    faces: NDArray[np.uint8],
    size: int,
    precision: Precision,
    batch: int = 128,
) -> NDArray[np.float32]:
    """Say what a network sees in faces: mean expressions of each face and its mirror image.

    Parameters
    ----------
    network : MMANetwork
        In evaluation mode.
    faces : ndarray (n, 112, 112, c) uint8
        Aligned faces.
    size : int
        Side that the network takes.
    precision : {"fp32", "bf16", "fp16"}
        Of the forward pass.
    batch : int
        Faces at a time.

    Returns
    -------
    ndarray (n, k) float32
        Probabilities of its expressions.
    """
    device = next(network.parameters()).device
    columns = slice(*network.config.outputs.groups["expr"])
    parts = []
    with torch.inference_mode(), autocast(precision, device):
        for start in range(0, len(faces), batch):
            part = faces[start : start + batch]
            mirrored = np.ascontiguousarray(part[:, :, ::-1])
            seen = [_affect(network, each, size, device)[:, columns] for each in (part, mirrored)]
            parts.append((seen[0] + seen[1]) / 2)
    return np.concatenate(parts)
