"""Training an MRNN: batches, epochs, early stopping, and a state that can be put down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from feie.features.errors import HeadError, UsageError
from feie.heads.data.packing import Packing
from feie.heads.data.ragged import Ragged
from feie.heads.measures.losses import LOSSES, LossName
from feie.heads.measures.metrics import mean_defined, pearson
from feie.heads.models.mrnn import MRNN
from feie.heads.models.plugin import HeadModel
from feie.heads.models.stat import Stat
from feie.heads.training.routing import RoutedAdam
from feie.heads.training.threads import one_thread

PresetName = Literal["default", "paper", "stat"]
Schedule = Literal["constant", "cosine", "plateau"]
Model = MRNN | Stat | HeadModel
SCORING_BATCH = 128


class TrainingConfig(BaseModel):
    """How a head is trained; part of its checkpoint.

    Attributes
    ----------
    loss : {"pearson", "ccc", "mse"}
    weights : tuple of float
        Of the targets in the loss; equal where empty.
    lr : float
        Adam's learning rate.
    schedule : {"constant", "cosine", "plateau"}
        What becomes of it, see `learning_rate`.
    batch : int
        Videos a step. Pearson's rho over few videos is mostly noise (standard deviation 0.58 at
        4, 0.125 at 64 for unrelated columns).
    epochs : int
        At most.
    patience : int
        Epochs without a better validation Pearson before training stops.
    clip : float or None
        Largest norm of the gradient.
    routing : bool
        Without it plain Adam updates all t blocks of the dense layer at every step, also those
        that no video of the batch reached.
    seed : int
        Of the initial weights and of the order of videos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    loss: LossName = "pearson"
    weights: tuple[float, ...] = ()
    lr: float = Field(default=1e-3, gt=0)
    schedule: Schedule = "constant"
    batch: int = Field(default=64, ge=1)
    epochs: int = Field(default=100, ge=1)
    patience: int = Field(default=20, ge=1)
    clip: float | None = Field(default=None, gt=0)
    routing: bool = True
    seed: int = Field(default=0, ge=0)


PRESETS: dict[PresetName, dict[str, float | int]] = {
    "default": {"lr": 1e-3, "batch": 64, "epochs": 100, "patience": 20},
    "paper": {"lr": 1e-4, "batch": 4, "epochs": 100, "patience": 20},
    "stat": {"lr": 1e-3, "batch": 512, "epochs": 100, "patience": 100},
}
"""``paper`` has the learning rate and batch of [K] 4; its number of epochs is ours. ``stat`` is
what [S] trains its heads on statistics with."""


@dataclass(frozen=True)
class Examples:
    """Standardised frames of videos, and their labels, shape (videos, targets)."""

    frames: Ragged
    labels: NDArray[np.float64]

    def with_faces(self) -> Examples:
        """Leave out videos without a usable frame."""
        kept = self.frames.lengths > 0
        if kept.all():
            return self
        # They have no rows, so the others' stay where they are.
        offsets = np.concatenate([[0], self.frames.offsets[1:][kept]])
        return Examples(Ragged(self.frames.values, offsets), self.labels[kept])


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        Mean over the epoch's batches.
    val_pearson : float
        Mean over targets, over the whole validation split; NaN where undefined.
    """

    epoch: int
    train_loss: float
    val_pearson: float


def learning_rate(config: TrainingConfig, history: Sequence[Epoch]) -> float:
    """Learning rate of the epoch after these.

    ``cosine`` falls from `lr` to 0 over all epochs; ``plateau`` halves it whenever a quarter of
    the patience (at least one epoch) went by without a better validation Pearson, and starts to
    count anew. It depends on the past epochs alone, so a resumed run goes on as it would have.
    """
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * len(history) / config.epochs))
    rate, best, waited = config.lr, -math.inf, 0
    if config.schedule == "plateau":
        for epoch in history:
            waited = 0 if epoch.val_pearson > best else waited + 1
            if epoch.val_pearson > best:
                best = epoch.val_pearson
            if waited >= max(1, config.patience // 4):
                rate, waited = rate / 2, 0
    return rate


def deal_batches(
    count: int, batch: int, seed: int, epoch: int, least: int = 1
) -> list[NDArray[np.int64]]:
    """Deal videos into batches at random, all of nearly the same size.

    The order depends on seed and epoch alone, so that a resumed run goes on as it would have. The
    remainder is spread: no batch is smaller than half of `batch` unless there is only one, or
    smaller than `least`, for which some hold one more than `batch` if need be.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return np.array_split(order, max(1, min(math.ceil(count / batch), count // least)))


def _pack(frames: Ragged, videos: NDArray[np.int64]) -> tuple[Tensor, Packing]:
    packing = Packing.of(frames.lengths[videos])
    rows = packing.gather(frames.offsets[:-1][videos])
    return torch.from_numpy(frames.values)[rows], packing


@torch.no_grad()
@one_thread()
def predict(model: Model, frames: Ragged) -> NDArray[np.float64]:
    """Raw outputs of a model, shape (videos, targets); NaN for videos without frames."""
    out = np.full((len(frames), model.config.targets), np.nan)
    lengths, device = frames.lengths, next(model.parameters()).device
    order = np.argsort(-lengths, kind="stable")
    order = order[: int((lengths > 0).sum())]
    model.eval()
    for start in range(0, len(order), SCORING_BATCH):
        videos = order[start : start + SCORING_BATCH]
        rows, packing = _pack(frames, videos)
        out[videos] = model(rows.to(device), packing).cpu().double().numpy()
    model.train()
    return out


class Trainer:
    """Trains a model epoch by epoch and keeps the weights of the best one.

    Parameters
    ----------
    model : MRNN, Stat or HeadModel
        Changed in place, on `device` while it is trained.
    train, val : Examples
        Videos without frames are left out of both.
    config : TrainingConfig
    device : torch.device, optional
        Where the model and the training frames lie; the CPU by default.

    Attributes
    ----------
    labels : ndarray of float64, shape (videos, targets)
        What the loss compares with, of the training videos.

    Raises
    ------
    HeadError
        No training or validation video has a usable frame.
    UsageError
        A batch too small for its loss.

    Notes
    -----
    Under Pearson's rho the labels are standardised by the training videos', which changes nothing
    but the weight of the loss's epsilon: labels of any scale train alike. `Calibration` sets
    scale and shift afterwards. See `feie.heads.models.mrnn.MRNN.start` for
    what happens to weights that cannot learn.
    """

    def __init__(
        self,
        model: Model,
        train: Examples,
        val: Examples,
        config: TrainingConfig,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.config = model, config
        self.device = device or torch.device("cpu")
        self.train, self.val = train.with_faces(), val.with_faces()
        for name, part in (("training", self.train), ("validation", self.val)):
            if not len(part.frames):
                raise HeadError(f"no {name} video has a frame with a face")
        if config.loss != "mse" and min(config.batch, len(self.train.frames)) < 2:
            raise UsageError(
                f"{config.loss} needs at least 2 videos a batch (batch {config.batch}, "
                f"{len(self.train.frames)} training videos with faces)"
            )
        self._least = 1 if config.loss == "mse" else 2
        self.labels = self.train.labels
        if config.loss == "pearson":
            mean, sd = self.labels.mean(0), self.labels.std(0)
            self.labels = (self.labels - mean) / np.where(np.ptp(self.labels, 0) > 0, sd, 1.0)
        if config.weights and len(config.weights) != self.labels.shape[1]:
            raise UsageError(
                f"{len(config.weights)} weights for {self.labels.shape[1]} targets (--weights)"
            )
        if config.weights and (min(config.weights) < 0 or not any(config.weights)):
            raise UsageError("no weight of a target may be negative, nor all of them 0 (--weights)")
        # A shift of an MRNN's output changes no correlation.
        level = None if config.loss == "pearson" else torch.from_numpy(self.train.labels.mean(0))
        model.start(int(self.train.frames.lengths.max()), level)
        model.to(self.device)
        self._weight = torch.tensor(config.weights, device=self.device) if config.weights else None
        self._values: Tensor | None = None
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        routed = model.routed
        plain = [p for p in self._parameters.values() if all(p is not r for r in routed)]
        self.optimiser = RoutedAdam(plain, routed, lr=config.lr)
        self.history: list[Epoch] = []
        self.best_epoch = 0
        self._best = self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in self.model.named_parameters()}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or patience ran out."""
        done = len(self.history)
        return done >= self.config.epochs or done - self.best_epoch >= self.config.patience

    @property
    def best_pearson(self) -> float:
        """Validation Pearson of the best epoch; NaN while there is none."""
        return self.history[self.best_epoch - 1].val_pearson if self.best_epoch else float("nan")

    def epochs(self) -> Iterator[Epoch]:
        """Train until finished; give each epoch as it ends."""
        while not self.finished:
            yield self.run_epoch()

    def step(self, videos: NDArray[np.int64]) -> float:
        """Take one step of the optimiser on a batch of training videos; gives its loss."""
        if self._values is None:
            self._values = torch.from_numpy(self.train.frames.values).to(self.device)
        ragged = self.train.frames
        packing = Packing.of(ragged.lengths[videos])
        rows = packing.gather(ragged.offsets[:-1][videos])
        frames = self._values[rows.to(self.device)]
        labels = torch.from_numpy(self.labels[videos]).to(frames)
        self.optimiser.zero_grad(set_to_none=True)
        score = self.model(frames, packing)
        loss = LOSSES[self.config.loss](score, labels, self._weight)
        if (penalty := self.model.penalty()) is not None:
            loss = loss + penalty
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.config.clip)
        whole = max((len(p) for p in self.model.routed), default=1)
        self.optimiser.step(self.model.reach(packing) if self.config.routing else whole)
        return loss.item()

    def run_epoch(self) -> Epoch:
        """Go through the training videos once, then score the validation split.

        Raises
        ------
        HeadError
            The weights are no longer finite.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            # A head of others may draw at random, as dropout does; a resumed run draws the same.
            seeds = np.random.SeedSequence([self.config.seed, len(self.history)])
            torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
            losses = [self.step(videos) for videos in self.next_batches()]
        return self.close_epoch(losses)

    def next_batches(self) -> list[NDArray[np.int64]]:
        """Deal the training videos for the epoch to come, and set its learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, self.history)
        config, number = self.config, len(self.history) + 1
        return deal_batches(len(self.train.frames), config.batch, config.seed, number, self._least)

    def close_epoch(
        self, losses: Sequence[float], prediction: NDArray[np.float64] | None = None
    ) -> Epoch:
        """Score the validation split after an epoch with these losses; keep the best weights.

        Parameters
        ----------
        losses : sequence of float
        prediction : ndarray of float64, shape (videos, targets), optional
            Raw outputs for the validation videos, where they are known already.

        Raises
        ------
        HeadError
            The weights are no longer finite.
        """
        number = len(self.history) + 1
        if prediction is None:
            prediction = predict(self.model, self.val.frames)
        if not (np.isfinite(prediction).all() and np.isfinite(losses).all()):
            raise HeadError(
                f"training diverged in epoch {number}; use a learning rate below "
                f"{self.config.lr:g} (--lr)"
            )
        record = Epoch(
            epoch=number,
            train_loss=float(np.mean(losses)),
            val_pearson=mean_defined(pearson(prediction, self.val.labels)),
        )
        best = self.best_pearson
        self.history.append(record)
        if record.val_pearson > (best if best == best else -math.inf):
            self.best_epoch = number
            self._best = self._weights()
        return record

    @torch.no_grad()
    def use_best(self) -> None:
        """Give the model the weights of its best epoch.

        Raises
        ------
        HeadError
            No epoch was best, because validation Pearson was undefined in each.
        """
        if not self.best_epoch:
            raise HeadError(
                f"validation Pearson was undefined in all {len(self.history)} epochs (labels or "
                f"predictions of the validation videos are constant), so there is no head to "
                f"keep; try another seed or learning rate (--seed, --lr), or more videos"
            )
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self._best[name])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next epoch depends on: tensors, and JSON."""
        tensors = {f"model.{n}": t for n, t in self._weights().items()}
        tensors |= {f"best.{n}": t for n, t in self._best.items()}
        for name, parameter in self._parameters.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        history = [[e.epoch, e.train_loss, e.val_pearson] for e in self.history]
        return tensors, {"history": history, "best_epoch": self.best_epoch}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
        """Go back to a `state`.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is not the state of such a training.
        """
        for name, parameter in self.model.named_parameters():
            parameter.copy_(_of_shape(tensors[f"model.{name}"], parameter.shape))
            best = _of_shape(tensors[f"best.{name}"], parameter.shape)
            self._best[name] = best.to(parameter.device, copy=True)
        for name, parameter in self._parameters.items():
            # As in RoutedAdam: a plain parameter is a single block, and counts stay on the CPU.
            routed = any(parameter is r for r in self.model.routed)
            shape = parameter.shape if routed else (1, *parameter.shape)
            self.optimiser.state[parameter] = {
                key: _of_shape(tensors[f"adam.{name}.{key}"], like)
                .to("cpu" if key == "step" else parameter.device)
                .clone()
                for key, like in (("step", shape[:1]), ("exp_avg", shape), ("exp_avg_sq", shape))
            }
        self.history = [Epoch(int(e), float(loss), float(rho)) for e, loss, rho in notes["history"]]
        self.best_epoch = int(notes["best_epoch"])
        if not 0 <= self.best_epoch <= len(self.history):
            raise ValueError(f"best epoch {self.best_epoch} of {len(self.history)}")


def _of_shape(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    if tensor.shape != tuple(shape):
        raise ValueError(f"shape {tuple(tensor.shape)} in place of {tuple(shape)}")
    return tensor
