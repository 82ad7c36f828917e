"""CPU time a video (forward, backward, step) of every way to train the MRNN, in one run.

    python tests/bench/stage_two.py --folder scratch/ [--videos 15806] [--rounds 3] [--json]

The paths take turns, so that a busy machine slows all of them; each row is a multiple of the
named baseline: a torch GRU on length-bucketed batches of 256, padded to the batch's longest
video, with the dense weights sliced to it. One thread, CPU time of the process, best of rounds.
The data are made once by `stage_two_data.py`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from stage_two_data import SyntheticSet, cached_set
from torch import Tensor, nn

from feie.heads.config import MRNNConfig, TrainingConfig
from feie.heads.data.inputs import Standardiser
from feie.heads.data.packing import Packing
from feie.heads.data.ragged import Ragged
from feie.heads.measures.losses import pearson_loss
from feie.heads.models import recurrence
from feie.heads.models.mrnn import MRNN
from feie.heads.training.stacked import Stack
from feie.heads.training.trainer import Examples, Trainer

T = 480
BASELINE = "torch GRU, buckets of 256"
STRIDE = 5
Step = Callable[[NDArray[np.int64]], object]


class Naive(nn.Module):
    """The paper's network as one writes it down first: pad, GRU, mask, flatten, dense."""

    def __init__(self, inputs: int, width: int = 128, dense: int = 32, targets: int = 7) -> None:
        super().__init__()
        self.rnn = nn.GRU(inputs, width, batch_first=True)
        self.dense = nn.Linear(T * width, dense)
        self.output = nn.Linear(dense, targets)

    def forward(self, x: Tensor, lengths: Tensor, packed: bool = False) -> Tensor:
        """Score padded videos, shape (batch, steps, inputs); steps may be fewer than t."""
        steps = x.shape[1]
        if packed:
            rows = nn.utils.rnn.pack_padded_sequence(
                x, lengths, batch_first=True, enforce_sorted=False
            )
            h, _ = nn.utils.rnn.pad_packed_sequence(
                self.rnn(rows)[0], batch_first=True, total_length=steps
            )
        else:
            h, _ = self.rnn(x)
            h = h * (torch.arange(steps) < lengths[:, None]).unsqueeze(2)
        weight = self.dense.weight[:, : steps * h.shape[2]]
        z = nn.functional.linear(h.flatten(1), weight, self.dense.bias)
        return self.output(torch.relu(z))


@dataclass
class Way:
    """One way to train: `step` takes the videos of a batch."""

    name: str
    batch: int
    bucketed: bool
    step: Step
    runs: int = 1  # trained at once: the time of one is the time divided by this


class NaiveStep:
    """A training step of `Naive` with torch's Adam."""

    def __init__(self, data: Examples, steps: int | None, packed: bool = False) -> None:
        torch.manual_seed(0)
        self.data, self.steps, self.packed = data, steps, packed
        self.model = Naive(data.frames.values.shape[1])
        self.adam = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def __call__(self, videos: NDArray[np.int64]) -> float:
        """Forward, backward, step; gives the loss."""
        lengths = self.data.frames.lengths[videos]
        x = torch.zeros(len(videos), self.steps or int(lengths.max()), 26)
        for row, video in zip(x, videos, strict=True):
            frames = self.data.frames[video]
            row[: len(frames)] = torch.from_numpy(frames)
        y = torch.from_numpy(self.data.labels[videos]).float()
        self.adam.zero_grad(set_to_none=True)
        loss = pearson_loss(self.model(x, torch.from_numpy(lengths), self.packed), y)
        loss.backward()
        self.adam.step()
        return loss.item()


class OwnStep:
    """A training step of feie's trainer."""

    def __init__(self, data: Examples, val: Examples, **config: object) -> None:
        model = MRNN(MRNNConfig(inputs=26, targets=7, t=T))
        self.trainer = Trainer(model, data, val, TrainingConfig.model_validate(config))

    def __call__(self, videos: NDArray[np.int64]) -> float:
        """Forward, backward, step; gives the loss."""
        return self.trainer.step(videos)


class StackedStep:
    """A step of seven runs of feie's, stacked, on the same batch each."""

    def __init__(self, data: Examples, val: Examples, **config: object) -> None:
        given = TrainingConfig.model_validate(config)
        shape = MRNNConfig(inputs=26, targets=7, t=T)
        trainers = [Trainer(MRNN(shape, seed), data, val, given) for seed in range(7)]
        self.stack = Stack(trainers, torch.device("cpu"))

    def __call__(self, videos: NDArray[np.int64]) -> Tensor:
        """Forward, backward, step; gives the losses."""
        return self.stack.step([videos] * 7)


def check_equal(data: Examples, videos: NDArray[np.int64]) -> dict[str, float]:
    """Largest difference of loss and gradients between feie's path and the naive one."""
    torch.manual_seed(0)
    naive, own = Naive(26), MRNN(MRNNConfig(inputs=26, targets=7, t=T))
    part = own.recurrent[0]
    pairs = [
        (naive.rnn.weight_ih_l0, part["w_input"]), (naive.rnn.weight_hh_l0, part["w_hidden"]),
        (naive.rnn.bias_ih_l0, part["b_input"]), (naive.rnn.bias_hh_l0, part["b_hidden"]),
        (naive.dense.bias, own.dense_bias), (naive.output.weight, own.output_weight),
    ]  # fmt: skip
    with torch.no_grad():
        for theirs, ours in pairs:
            theirs.copy_(ours)
        naive.dense.weight.copy_(own.dense_weight.flatten(0, 1).t())
        naive.output.bias.zero_()
    lengths = data.frames.lengths[videos]
    x = torch.zeros(len(videos), T, 26)
    for row, video in zip(x, videos, strict=True):
        row[: len(data.frames[video])] = torch.from_numpy(data.frames[video])
    y = torch.from_numpy(data.labels[videos]).float()
    theirs_loss = pearson_loss(naive(x, torch.from_numpy(lengths)), y)
    theirs_loss.backward()
    packing = Packing.of(lengths)
    rows = packing.gather(data.frames.offsets[:-1][videos])
    ours_loss = pearson_loss(own(torch.from_numpy(data.frames.values)[rows], packing), y)
    ours_loss.backward()
    assert naive.dense.weight.grad is not None
    theirs_dense = naive.dense.weight.grad.t().reshape(own.dense_weight.shape)
    gradients = [(a.grad, b.grad) for a, b in pairs] + [(theirs_dense, own.dense_weight.grad)]
    return {
        "loss": abs(theirs_loss.item() - ours_loss.item()),
        "gradients": max((a - b).abs().max().item() for a, b in gradients),
    }


def deal(lengths: NDArray[np.int64], path: Way, count: int, seed: int) -> list[NDArray[np.int64]]:
    """Give batches of about `count` videos in all; bucketed ones of similar lengths."""
    rng = np.random.default_rng(seed)
    batches = max(1, count // path.batch)
    if not path.bucketed:
        return np.array_split(rng.permutation(len(lengths))[: batches * path.batch], batches)
    order = np.argsort(lengths, kind="stable")
    # Evenly over the lengths, so that few batches stand for an epoch.
    middle = (np.arange(batches) + rng.random()) / batches * (len(lengths) - path.batch)
    return [order[int(m) : int(m) + path.batch] for m in middle]


def paths_of(data: Examples, val: Examples) -> list[Way]:
    """Every way to train, the baseline among them."""
    found = [
        Way("paper's naive: batch 4 padded to 480", 4, False, NaiveStep(data, T)),
        Way("torch GRU, 32 padded to 480", 32, False, NaiveStep(data, T)),
        Way("torch GRU, 256 padded to 480", 256, False, NaiveStep(data, T)),
        Way("pack_padded_sequence at 32", 32, False, NaiveStep(data, T, packed=True)),
        Way("torch GRU, buckets of 4", 4, True, NaiveStep(data, None)),
        Way(BASELINE, 256, True, NaiveStep(data, None)),
    ]
    for backend in recurrence.available():
        sizes = (("paper preset, batch 4", 4), ("default preset, batch 64", 64), ("batch 256", 256))
        for name, batch in sizes:
            step = under(backend, OwnStep(data, val, batch=batch))
            found.append(Way(f"feie [{backend}], {name}", batch, False, step))
    best = recurrence.available()[-1]
    step = under(best, OwnStep(every(data, STRIDE), every(val, STRIDE), batch=64))
    found.append(Way(f"feie [{best}], batch 64, every {STRIDE}th frame", 64, False, step))
    for batch in (4, 64):
        step = under("plain", StackedStep(data, val, batch=batch))
        found.append(Way(f"feie [plain], 7 runs stacked, batch {batch}", batch, False, step, 7))
    return found


def under(backend: recurrence.Backend, step: Step) -> Step:
    """Take the steps with one implementation of the recurrence."""

    def chosen(videos: NDArray[np.int64]) -> object:
        with recurrence.using(backend):
            return step(videos)

    return chosen


def every(data: Examples, stride: int) -> Examples:
    """Keep the first of every so many frames."""
    lengths = data.frames.lengths
    kept = -(-lengths // stride)
    first = np.repeat(data.frames.offsets[:-1], kept)
    place = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    return Examples(data.frames.take(first + stride * place, kept), data.labels)


def learn(data: Examples, epochs: int) -> None:
    """Show that there is something to learn: validation Pearson of the default preset."""
    count = len(data.labels)
    cut = count * 9 // 10
    parts = [
        Examples(data.frames.select(np.arange(a, b)), data.labels[a:b])
        for a, b in ((0, cut), (cut, count))
    ]
    model = MRNN(MRNNConfig(inputs=26, targets=7, t=T))
    for epoch in Trainer(model, *parts, TrainingConfig(epochs=epochs)).epochs():
        print(f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, val {epoch.val_score:.3f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps the synthetic set")
    parser.add_argument("--videos", type=int, default=15_806)
    parser.add_argument("--count", type=int, default=256, help="videos a path and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="paths whose name holds this, and the baseline")
    parser.add_argument("--learn", type=int, help="only train so many epochs, to see Pearson rise")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = examples_of(cached_set(given.folder, given.videos))
    if given.learn:
        learn(data, given.learn)
        return
    val = Examples(data.frames.select(np.arange(8)), data.labels[:8])
    equal = check_equal(data, np.arange(16))
    paths = [p for p in paths_of(data, val) if given.only in p.name or p.name == BASELINE]
    best = {p.name: float("inf") for p in paths}
    for round_ in range(given.rounds + 1):  # the first warms up
        for path in paths:
            count = given.count if round_ else min(given.count, path.batch)
            # Batches of 256 need several to meet all lengths.
            batches = deal(data.frames.lengths, path, max(count, 4 * path.batch * path.bucketed),
                           round_)  # fmt: skip
            clock = time.process_time()
            for videos in batches:
                path.step(videos)
            frames = sum(int(data.frames.lengths[v].sum()) for v in batches)
            spent = (time.process_time() - clock) / frames / path.runs
            if round_:
                best[path.name] = min(best[path.name], spent)
    mean = float(data.frames.lengths.mean())
    rows = {
        name: {"ms_a_video": round(1e3 * s * mean, 3), "ratio": round(s / best[BASELINE], 2)}
        for name, s in best.items()
    }
    if given.json:
        print(json.dumps({"paths": rows, "difference_from_naive": equal}, indent=2))
        return
    print(f"{'path':48s} {'ms a video':>10s} {'ratio':>6s}")
    for name, row in rows.items():
        print(f"{name:48s} {row['ms_a_video']:10.2f} {row['ratio']:6.2f}")
    print(f"feie against naive on one batch: {equal}")
    own = [row["ms_a_video"] for name, row in rows.items() if "batch 64" in name]
    if own:
        print(
            f"seven subsets of 15,806 videos, 50 epochs, two processes: "
            f"{min(own[:2]) * 15_806 * 50 * 7 / 2 / 60e3:.0f} min by the default preset"
        )


def examples_of(made: SyntheticSet) -> Examples:
    """Standardise the set as training does."""
    frames = Ragged(made.values, made.offsets)
    return Examples(Standardiser.fit(frames).apply(frames), made.labels)


if __name__ == "__main__":
    main()
