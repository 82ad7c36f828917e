"""SIGKILL the coordinator at many random instants; every time the resumed store is the same.

    python tests/bench/kill_soak.py --count 200

Twelve short clips and a small untrained network: what is killed is the bookkeeping. Not collected
by pytest, which does the same fewer times, on real clips (tests/pipeline/extract/test_kill.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from conftest import write_clip
from test_kill import kill_and_resume

from feie.features.mma.network import MMANetwork, NetworkConfig
from feie.features.mma.weights import save_weights
from feie.pipeline.engine.options import ExtractOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="how many kills")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for i in range(12):
            write_clip(root / "videos" / f"{i:02d}.mp4", 10 + i, seed=i)
        config = NetworkConfig(stem=(8, 8), widths=(8, 16), depths=(1, 1), embedding=8)
        torch.manual_seed(0)
        save_weights(root / "small.safetensors", "small", MMANetwork(config), 112, {})
        options = ExtractOptions(
            videos=root / "videos",
            extractor=str(root / "small.safetensors"),
            threads=2,
            commit_videos=1,
        )
        began = time.monotonic()
        kill_and_resume(options, count, root)
        print(f"{count} kills survived in {time.monotonic() - began:.0f} s: every store opened at")
        print("its last commit, and every resumed one equals the undisturbed run")


if __name__ == "__main__":
    main()
