"""Several trainings that take their steps together: one product over all runs in place of many.

Seeds and subsets of an ablation have the same shape and see the same videos, each in an order of
its own. Stacked, each parameter has the run as first axis, and every run keeps its own batch,
loss, gradient clipping, learning rate, moments and step counts. The stacked tensors are the
runs' own: the model and the optimiser of each trainer hold views into them, so scoring, early
stopping, saving and resuming are those of a single training.

A step costs as many calls for all runs as for one. That pays on a GPU, and on a CPU at batches
so small that the calls cost more than the arithmetic; see `pays`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feie.features.errors import HeadError
from feie.heads.config import MRNNConfig
from feie.heads.data.packing import Packing
from feie.heads.measures.losses import LOSSES
from feie.heads.models.mrnn import masked_dense
from feie.heads.models.recurrence import backend, recur
from feie.heads.training.routing import update
from feie.heads.training.trainer import SCORING_BATCH, Epoch, Examples, Trainer

SMALL_BATCH = 8
"""Largest batch at which stacking pays on a CPU."""


def pays(device: torch.device, batch: int) -> bool:
    """Whether stacked runs train faster than separate ones side by side."""
    return device.type != "cpu" or (backend() == "plain" and batch <= SMALL_BATCH)


def stack_key(trainer: Trainer) -> tuple[object, ...]:
    """Trainers with the same key can be stacked."""
    shape = trainer.model.config.model_copy(update={"inputs": 1})
    config = trainer.config.model_copy(update={"seed": 0})
    lengths = (tuple(part.frames.lengths.tolist()) for part in (trainer.train, trainer.val))
    return shape.model_dump_json(), config.model_dump_json(), *lengths


class Stack:
    """Trainers of one `stack_key`, stacked.

    Parameters
    ----------
    trainers : sequence of Trainer
        Their parameters and moments become views of the stack's; at any epoch each.
    device : torch.device
        Parameters, moments, frames and labels live there.

    Raises
    ------
    ValueError
        They do not train MRNNs.
    """

    def __init__(self, trainers: Sequence[Trainer], device: torch.device) -> None:
        self.trainers, self.device = list(trainers), device
        first = self.trainers[0]
        if not isinstance(first.model.config, MRNNConfig):
            raise ValueError("only MRNNs can be stacked")
        self._model, self._config = first.model.config, first.config
        weights = self._config.weights
        self._weights = torch.tensor(weights, device=device) if weights else None
        self._inputs = max(t.model.config.inputs for t in self.trainers)
        self._values: dict[str, Tensor] = {}
        self._state: dict[str, dict[str, Tensor]] = {}
        for name, _ in first.model.named_parameters():
            self._adopt(name)
        self._train = _on(device, [t.train for t in self.trainers])
        self._val = _on(device, [t.val for t in self.trainers])
        self._labels = torch.stack([torch.from_numpy(t.labels) for t in self.trainers])
        self._labels = self._labels.to(device, self._values["dense_weight"].dtype)

    def _adopt(self, name: str) -> None:
        """Stack one parameter of all runs; first-layer matrices of few inputs get zero columns."""
        parameters = [t.model.get_parameter(name) for t in self.trainers]
        stacked = self._stacked([p.detach() for p in parameters])
        for run, parameter in enumerate(parameters):
            parameter.data = _part(stacked, run, parameter.shape)
        stacked.requires_grad_(parameters[0].requires_grad)
        self._values[name] = stacked
        if not stacked.requires_grad:
            return
        routed = name == "dense_weight"
        shape = parameters[0].shape
        states = [t.optimiser.state[p] for t, p in zip(self.trainers, parameters, strict=True)]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                blocks = parameter if routed else parameter.unsqueeze(0)
                state["step"] = torch.zeros(len(blocks), dtype=torch.float64)
                state["exp_avg"] = torch.zeros_like(blocks, memory_format=torch.contiguous_format)
                state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
        # A plain parameter is a single block: its leading axis of one becomes that of the runs.
        whole = {
            key: self._stacked([s[key] if routed else s[key].squeeze(0) for s in states])
            for key in ("exp_avg", "exp_avg_sq")
        }
        whole["step"] = torch.stack([s["step"] if routed else s["step"].squeeze(0) for s in states])
        for run, (state, parameter) in enumerate(zip(states, parameters, strict=True)):
            shape = parameter.shape
            for key, tensor in whole.items():
                part = tensor[run] if key == "step" else _part(tensor, run, shape)
                state[key] = part if routed else part.unsqueeze(0)
        self._state[name] = whole

    def _stacked(self, parts: Sequence[Tensor]) -> Tensor:
        shape = [max(p.shape[axis] for p in parts) for axis in range(parts[0].dim())]
        out = torch.zeros(len(parts), *shape, dtype=parts[0].dtype, device=self.device)
        for run, part in enumerate(parts):
            _part(out, run, part.shape).copy_(part)
        return out

    def release(self) -> None:
        """Give every trainer its own tensors again, on the CPU."""
        for trainer in self.trainers:
            for parameter in trainer.model.parameters():
                parameter.data = parameter.data.cpu().clone(memory_format=torch.contiguous_format)
                state = trainer.optimiser.state.get(parameter, {})
                for key, tensor in state.items():
                    state[key] = tensor.cpu().clone(memory_format=torch.contiguous_format)

    def run_epoch(self) -> list[Epoch | HeadError]:
        """Train every run by one epoch of its own; see `Trainer.run_epoch` for what may fail."""
        dealt = [t.next_batches() for t in self.trainers]
        losses = [self.step(batches) for batches in zip(*dealt, strict=True)]
        table = torch.stack(losses).cpu().double().numpy()
        ended: list[Epoch | HeadError] = []
        for trainer, column, scores in zip(self.trainers, table.T, self.predict(), strict=True):
            try:
                ended.append(trainer.close_epoch(column.tolist(), scores))
            except HeadError as error:
                ended.append(error)
        return ended

    @torch.no_grad()
    def predict(self) -> NDArray[np.float64]:
        """Raw outputs of all runs for the validation videos, shape (runs, videos, targets)."""
        lengths = self.trainers[0].val.frames.lengths
        order = np.argsort(-lengths, kind="stable")
        out = np.empty((len(self.trainers), len(lengths), self._model.targets))
        for start in range(0, len(order), SCORING_BATCH):
            chosen = order[start : start + SCORING_BATCH]
            videos = np.tile(chosen, (len(self.trainers), 1))
            packed = self._pack(self._val, videos, lengths[videos])
            out[:, chosen] = self._forward(*packed).cpu().double().numpy()
        return out

    def step(self, batches: Sequence[NDArray[np.int64]]) -> Tensor:
        """Take one step of every run on a batch of its own; gives the losses, shape (runs,)."""
        lengths = [t.train.frames.lengths[v] for t, v in zip(self.trainers, batches, strict=True)]
        orders = [np.argsort(-n, kind="stable") for n in lengths]
        counts = np.stack([n[order] for n, order in zip(lengths, orders, strict=True)])
        videos = np.stack([v[order] for v, order in zip(batches, orders, strict=True)])
        frames, used, packing = self._pack(self._train, videos, counts)
        run = torch.arange(len(videos), device=self.device)[:, None]
        labels = self._labels[run, torch.from_numpy(videos).to(self.device)]
        losses = self._losses(self._forward(frames, used, packing), labels)
        trained = {n: v for n, v in self._values.items() if v.requires_grad}
        gradients = torch.autograd.grad(losses.sum(), list(trained.values()))
        with torch.no_grad():
            self._update(dict(zip(trained, gradients, strict=True)), counts)
        return losses.detach()

    def _pack(
        self,
        values: Sequence[tuple[Tensor, NDArray[np.int64]]],
        videos: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> tuple[Tensor, Tensor, Packing]:
        """Lay out all runs' batches alike, each from the longest video to the shortest.

        The i-th longest video of a run gets as many rows as the longest i-th video of any run;
        what is too many is not `used`.

        Returns
        -------
        frames : Tensor, shape (runs, rows, inputs)
        used : Tensor of bool, shape (runs, rows, 1)
        packing : Packing
        """
        joint = counts.max(axis=0) if self._model.mask else np.full(counts.shape[1], self._model.t)
        packing = Packing.of(joint)
        step, place = packing.places
        used = torch.from_numpy(step < counts[:, place])[..., None].to(self.device)
        frames = self._values["dense_weight"].new_zeros(len(videos), packing.rows, self._inputs)
        for run, (rows_of_all, offsets) in enumerate(values):
            first = offsets[:-1][videos[run]]
            rows = first[place] + np.minimum(step, counts[run][place] - 1)
            picked = rows_of_all[torch.from_numpy(rows).to(self.device)]
            frames[run, :, : picked.shape[1]] = picked
        return frames.mul_(used), used, packing

    def _forward(self, frames: Tensor, used: Tensor, packing: Packing) -> Tensor:
        """Score sorted batches, shape (runs, batch, targets)."""
        value, h = self._values, frames
        for layer in range(self._model.layers):
            names = ("w_input", "w_hidden", "b_input", "b_hidden")
            w_x, w_h, b_x, b_h = (value[f"recurrent.{layer}.{name}"] for name in names)
            h = recur(self._model.cell, h, w_x, w_h, b_x, b_h, packing)
        if self._model.mask:
            h = h * used
        z = torch.relu(
            masked_dense(h, value["dense_weight"], packing) + value["dense_bias"][:, None]
        )
        return torch.baddbmm(value["output_bias"][:, None], z, value["output_weight"].mT)

    def _losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        loss = partial(LOSSES[self._config.loss], weights=self._weights)
        return torch.vmap(loss)(scores, labels)

    def _update(self, gradients: dict[str, Tensor], counts: NDArray[np.int64]) -> None:
        if self._config.clip is not None:
            squares = [g.flatten(1).square().sum(1) for g in gradients.values()]
            norm = torch.stack(squares).sum(0).sqrt()
            scale = (self._config.clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients.values():
                gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
        groups = [t.optimiser.param_groups[0] for t in self.trainers]
        rates = torch.tensor([g["lr"] for g in groups], dtype=torch.float64)
        routed = self._config.routing and self._model.mask
        for name, gradient in gradients.items():
            value, state = self._values[name].detach(), self._state[name]
            step, mean, square = (state[key] for key in ("step", "exp_avg", "exp_avg_sq"))
            if name != "dense_weight":
                update(value, gradient, step, mean, square, {**groups[0], "lr": rates})
                continue
            for run, group in enumerate(groups):
                reach = slice(int(counts[run, 0]) if routed else None)
                moments = mean[run, reach], square[run, reach]
                update(
                    value[run, reach], gradient[run, reach], step[run, reach], *moments, group
                )  # fmt: skip


def _part(stacked: Tensor, run: int, shape: torch.Size) -> Tensor:
    """View of one run's part, without the zero columns."""
    part = stacked[run]
    return part.narrow(-1, 0, shape[-1]) if part.shape != shape else part


def _on(
    device: torch.device, examples: Sequence[Examples]
) -> list[tuple[Tensor, NDArray[np.int64]]]:
    """Frames on the device, once for all runs that share them, and their offsets."""
    there: dict[int, Tensor] = {}
    for part in examples:
        key = id(part.frames.values)
        if key not in there:
            there[key] = torch.from_numpy(part.frames.values).to(device)
    return [(there[id(part.frames.values)], part.frames.offsets) for part in examples]


def train_stacked(
    trainers: Sequence[Trainer], device: torch.device
) -> Iterator[tuple[int, Epoch | HeadError]]:
    """Train all to the end; give the number of the run and each epoch of it as it ends.

    A run that is finished, or has failed, leaves the stack and has its own tensors again, on the
    CPU, when its last epoch is given.
    """
    active = [run for run, trainer in enumerate(trainers) if not trainer.finished]
    while active:
        stack, left = Stack([trainers[run] for run in active], device), set[int]()
        while not left:
            epochs = dict(zip(active, stack.run_epoch(), strict=True))
            left = {
                run
                for run, ended in epochs.items()
                if isinstance(ended, HeadError) or trainers[run].finished
            }
            if left:
                stack.release()
            yield from epochs.items()
        active = [run for run in active if run not in left]
