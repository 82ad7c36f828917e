"""The seven subsets of [K] Table 3 at a data set's scale, end to end, as a user runs them.

    python tests/bench/stage_two_subsets.py --folder scratch/ [--videos 25067] [--epochs 50]
        [--seeds 1] [--frame-stride 1] [--preset default] [--jobs N] [--device auto] [--stack auto]

Makes a store of Hume-Reaction's shape and its labels once (`stage_two_data.py`: 60 to 480 frames a
video, mean 299; of ten videos six train, two validate, two test), then runs `feie ablate --table
subsets` on it in a process of its own, and prints the table, wall and CPU time, and the peak
memory of the largest process. Killed, the same command goes on (its time is then that of the rest).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from stage_two_data import ALL, cached_store


def measure(folder: Path, videos: int, given: list[str]) -> dict[str, object]:
    """Train all subsets; gives the ablation's result with the time that it took."""
    store, labels = cached_store(folder, videos)
    frames = "-".join(word.strip("-") for word in given)
    out = folder / f"subsets-{videos}-{frames}"
    command = [
        sys.executable, "-c", "from feie.cli import app; app()", "ablate", "--table", "subsets",
        "--store", str(store), "--labels", str(labels), "--out", str(out), "--json", *given,
    ]  # fmt: skip
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    wall, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout), "wall": wall, "cpu": cpu, "peak": after.ru_maxrss * 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--videos", type=int, default=ALL)
    parser.add_argument("--epochs", default="50")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--frame-stride", default="1")
    for name in ("preset", "patience", "jobs", "device", "stack"):
        parser.add_argument(f"--{name}")
    options = vars(parser.parse_args())
    folder, videos = options.pop("folder"), options.pop("videos")
    if options["patience"] is None:
        options["patience"] = options["epochs"]  # every epoch is trained: a figure to compare
    given = []
    for name, value in options.items():
        given += [] if value is None else [f"--{name.replace('_', '-')}", value]
    found = measure(folder, videos, given)
    print(f"{'subset':<18} {'Pearson (val)':>14}")
    for row in found["rows"]:
        mean = "undefined" if row["mean"] is None else f"{row['mean']:.3f}"
        print(f"{row['name']:<18} {mean:>14}")
    runs = found["trained"]
    print(
        f"{runs} runs trained on {videos} videos ({' '.join(given)}): {found['wall'] / 60:.2f} min "
        f"wall, {found['cpu'] / 60:.2f} min CPU, {found['wall'] / max(runs, 1):.1f} s a run, peak "
        f"{found['peak'] / 2**20:.0f} MiB; failed: {len(found['failed'])}"
    )


if __name__ == "__main__":
    main()
