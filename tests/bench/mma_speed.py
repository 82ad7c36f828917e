"""Faces a second of an MMA extractor alone, in every mode, beside a ResNet-18 at 112x112.

    python tests/bench/mma_speed.py [--weights mma-lite] [--batch 1 32 256] [--rounds 5] [--json]
    python tests/bench/mma_speed.py --device cuda --compile --peak 989

The paths take turns, so that a busy machine slows all of them; the best of some rounds counts.
On a CPU one thread and the time of the process; on a GPU the wall, with the device waited for.
Ours goes all the way from uint8 faces to affect vectors, resampling included; the ResNet-18, with
its batch norms folded and its kernels channels-last as ours are, gets tensors and gives logits.
``--peak`` is the chip's limit in bf16 TFLOP/s, of which the table then gives the share reached.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from feie.features.devices import Precision, autocast, pick_device
from feie.features.extractors.load import Extractor, load_extractor

BASELINE = "ResNet-18 fp32"


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return fuse_conv_bn_eval(convolution.eval(), nn.BatchNorm2d(outputs).eval())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, inputs, h, w) to (b, outputs, h / stride, w / stride)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def resnet18(outputs: int) -> nn.Module:
    """ResNet-18 as everybody has it: a 7x7 entrance, pooling, four stages of two blocks."""
    layers = [_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        layers += [BasicBlock(inputs, width, 2 if stage else 1), BasicBlock(width, width, 1)]
        inputs = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, outputs)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


@dataclass
class Path:
    """One way to compute.

    Attributes
    ----------
    name : str
    prepare : callable
        From the size of a batch to a function that computes one.
    flops : float
        Of one face.
    difference : float or None
        Largest change of a number by this mode, on pictures of noise.
    """

    name: str
    prepare: Callable[[int], Callable[[], object]]
    flops: float
    difference: float | None = None


def main() -> None:
    """Measure, print one table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="mma-lite")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--peak", type=float, help="the chip's limit in bf16 TFLOP/s")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = pick_device(given.device)
    paths = _paths(given.weights, device, given.compile)
    rows = []
    for batch in given.batch:
        rates = _measure(paths, batch, given.rounds, device)
        for path in paths:
            rate = rates[path.name]
            row = {"path": path.name, "batch": batch, "faces_per_s": rate}
            row |= {"ratio": rate / rates[BASELINE], "difference": path.difference}
            if given.peak:
                row["share_of_peak"] = rate * path.flops / (given.peak * 1e12)
            rows.append(row)
    if given.json:
        print(json.dumps({"device": str(device), "baseline": BASELINE, "rows": rows}))
        return
    titles = ("batch", "faces/s", "x ResNet-18", "max diff", "of peak")
    print("{:34}{:>6}{:>10}{:>13}{:>10}{:>9}".format("path", *titles))
    for row in rows:
        share = f"{row['share_of_peak']:.1%}" if "share_of_peak" in row else ""
        gap = "" if row["difference"] is None else f"{row['difference']:.1e}"
        print(
            f"{row['path']:34}{row['batch']:>6}{row['faces_per_s']:>10.0f}{row['ratio']:>13.2f}"
            f"{gap:>10}{share:>9}"
        )


def _paths(weights: str, device: torch.device, compiled: bool) -> list[Path]:
    """Every mode of both networks."""
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 255, (64, 112, 112, 3), dtype=np.uint8)
    exact = load_extractor(weights)(sample).affect
    baseline = resnet18(exact.shape[1]).to(device, memory_format=torch.channels_last)
    flops = _flops(_resnet(baseline, device, "fp32")(1))
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    paths = [Path(f"ResNet-18 {p}", _resnet(baseline, device, p), flops) for p in precisions]
    flops = _flops(_ours(load_extractor(weights, str(device)))(1))
    for precision in precisions:
        for with_compile in (False, True)[: 1 + compiled]:
            extractor = load_extractor(weights, str(device), precision, with_compile)
            name = f"{extractor.name} {precision}" + (" compiled" if with_compile else "")
            difference = float(np.abs(extractor(sample).affect - exact).max())
            paths.append(Path(name, _ours(extractor), flops, difference))
    return paths


def _flops(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def _resnet(
    network: nn.Module, device: torch.device, precision: Precision
) -> Callable[[int], Callable[[], object]]:
    def prepare(batch: int) -> Callable[[], object]:
        x = torch.rand(batch, 3, 112, 112, device=device) * 2 - 1
        x = x.contiguous(memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode(), autocast(precision, device):
                return network(x)

        return run

    return prepare


def _ours(extractor: Extractor) -> Callable[[int], Callable[[], object]]:
    def prepare(batch: int) -> Callable[[], object]:
        rng = np.random.default_rng(batch)
        faces = rng.integers(0, 255, (batch, 112, 112, 3), dtype=np.uint8)
        return lambda: extractor(faces)

    return prepare


def _measure(paths: list[Path], batch: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Faces a second of each path, taking turns."""
    on_gpu = device.type != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    calls = max(1, (4096 if on_gpu else 64) // batch)
    runs = {path.name: path.prepare(batch) for path in paths}
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            _wait(on_gpu)
            started = clock()
            for _ in range(calls):
                run()
            _wait(on_gpu)
            best[name] = min(best[name], (clock() - started) / calls)
    return {name: batch / seconds for name, seconds in best.items()}


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
