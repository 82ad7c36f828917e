"""Training a head: batches, epochs, early stopping, and a state that can be put down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feie.features.errors import HeadError, UsageError
from feie.heads.config import HEADLINE, MEASURE_NAMES, TrainingConfig, Unit
from feie.heads.data.packing import Packing
from feie.heads.data.ragged import Ragged
from feie.heads.measures.losses import LOSSES
from feie.heads.measures.metrics import MEASURES, mean_defined
from feie.heads.models.base import HeadModel
from feie.heads.training.routing import RoutedAdam
from feie.heads.training.threads import one_thread

SCORING_BATCH, SCORED_FRAMES = 128, 1 << 14


@dataclass(frozen=True)
class Examples:
    """Standardised frames of videos, and labels.

    Attributes
    ----------
    frames : Ragged
    labels : ndarray of float64, shape (units, targets)
        A row a video, or a row a frame, NaN where it has none (or is not to be learnt from).
    unit : {"video", "frame"}
    seen : ndarray of bool, shape (units,), or None
        See `feie.heads.runs.trained.units_seen`; of videos their lengths tell it.
    """

    frames: Ragged
    labels: NDArray[np.float64]
    unit: Unit = "video"
    seen: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which units have a label."""
        known: NDArray[np.bool_] = np.all(np.isfinite(self.labels), axis=1)
        return known

    def dealt(self) -> Examples:
        """Give what batches are made of: videos with a usable frame, or frames with a label.

        A frame becomes a video of one row.
        """
        if self.unit == "frame":
            rows = np.flatnonzero(self.labelled)
            single = Ragged(self.frames.values[rows], np.arange(len(rows) + 1))
            return Examples(single, self.labels[rows], "frame")
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
    val_score : float
        Mean over targets of Pearson's rho (of frames: the CCC), over the whole validation split;
        NaN where undefined.
    """

    epoch: int
    train_loss: float
    val_score: float


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
            waited = 0 if epoch.val_score > best else waited + 1
            if epoch.val_score > best:
                best = epoch.val_score
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
def predict(model: HeadModel, frames: Ragged) -> NDArray[np.float64]:
    """Raw outputs of a model, shape (units, targets); NaN for videos without frames."""
    if model.config.unit == "frame":
        return _predict_frames(model, frames)
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


def _predict_frames(model: HeadModel, frames: Ragged) -> NDArray[np.float64]:
    device, count = next(model.parameters()).device, len(frames.values)
    out = np.empty((count, model.config.targets))
    model.eval()
    for start in range(0, count, SCORED_FRAMES):
        rows = torch.from_numpy(frames.values[start : start + SCORED_FRAMES])
        packing = Packing.of(np.ones(len(rows), np.int64))
        out[start : start + len(rows)] = model(rows.to(device), packing).cpu().double().numpy()
    model.train()
    return model.smooth(out, frames.offsets)


class Trainer:
    """Trains a model epoch by epoch and keeps the weights of the best one.

    Parameters
    ----------
    model : HeadModel
        Changed in place, on `device` while it is trained.
    train, val : Examples
        Videos without frames are left out of both; frames are dealt as videos of one row.
    config : TrainingConfig
    device : torch.device, optional
        Where the model and the training frames lie; the CPU by default.

    Attributes
    ----------
    labels : ndarray of float64, shape (units, targets)
        What the loss compares with, of the training videos or frames.
    measure : {"pearson", "ccc"}
        What an epoch is chosen by.

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
        model: HeadModel,
        train: Examples,
        val: Examples,
        config: TrainingConfig,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.config = model, config
        self.device = device or torch.device("cpu")
        unit = model.config.unit
        self.measure = HEADLINE[unit]
        # Frames are scored after the filter, so the validation videos stay whole.
        self.train, self.val = train.dealt(), val if unit == "frame" else val.dealt()
        for name, part in (("training", self.train), ("validation", self.val)):
            if not len(part):
                what = "video has a frame with a face" if unit == "video" else "frame with a face"
                raise HeadError(
                    f"no {name} {what}{'' if unit == 'video' else ' has a label of all targets'}"
                )
        self._scored = self.val.labelled
        if self.val.seen is not None:
            self._scored &= self.val.seen
        if config.loss != "mse" and min(config.batch, len(self.train)) < 2:
            raise UsageError(
                f"{config.loss} needs at least 2 {unit}s a batch (batch {config.batch}, "
                f"{len(self.train)} training {unit}s with faces)"
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
    def best_score(self) -> float:
        """Validation figure of the best epoch; NaN while there is none."""
        return self.history[self.best_epoch - 1].val_score if self.best_epoch else float("nan")

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
        prediction : ndarray of float64, shape (units, targets), optional
            Raw outputs for the validation split, where they are known already.

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
            val_score=self._score(prediction),
        )
        best = self.best_score
        self.history.append(record)
        if record.val_score > (best if best == best else -math.inf):
            self.best_epoch = number
            self._best = self._weights()
        return record

    def _score(self, prediction: NDArray[np.float64]) -> float:
        """Mean figure over the validation units that have a label and a face."""
        measure, labels = MEASURES[self.measure], self.val.labels
        if self._scored.all():
            return mean_defined(measure(prediction, labels))
        if not self._scored.any():
            return float("nan")
        return mean_defined(measure(prediction[self._scored], labels[self._scored]))

    @torch.no_grad()
    def use_best(self) -> None:
        """Give the model the weights of its best epoch.

        Raises
        ------
        HeadError
            No epoch was best, because its figure was undefined in each.
        """
        if not self.best_epoch:
            raise HeadError(
                f"validation {MEASURE_NAMES[self.measure]} was undefined in all "
                f"{len(self.history)} epochs (labels or predictions of the validation videos are "
                f"constant), so there is no head to keep; try another seed or learning rate "
                f"(--seed, --lr), or more videos"
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
        history = [[e.epoch, e.train_loss, e.val_score] for e in self.history]
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
