"""Time and memory from a store to the first batch, against a plain read of the same bytes.

    python tests/bench/stage_two_loading.py --folder scratch/ [--videos 25067] [--missing 0.05]

Each measurement is a process of its own, so that its peak of resident memory is its own; the
store is made once by `stage_two_data.py`. Features = the float32 values of the videos that are
read (training and validation split). Plain: zarr reads `affect` and `valid` with one call each,
as anybody would; in blocks: 65,536 rows at a time, of which nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from stage_two_data import ALL, cached_store


def plain(store: Path, in_blocks: bool) -> int:
    """Read every row of the two arrays; gives the bytes of `affect`."""
    import zarr

    root = zarr.open_group(store, mode="r")
    if not in_blocks:
        everything = [root[name][:] for name in ("affect", "valid")]
        return int(everything[0].nbytes)
    rows, total = root["affect"].shape[0], 0
    for start in range(0, rows, 65_536):
        total += root["affect"][start : start + 65_536].nbytes
        root["valid"][start : start + 65_536]
    return total


def first_batch(store: Path, labels: Path) -> int:
    """Read what `feie train-head` trains on, and take one step; gives the features' bytes."""
    from feie.pipeline.train.job import TrainHeadOptions, read_training_data

    options = TrainHeadOptions(store=str(store), labels=labels)
    data = read_training_data(options)
    from feie.heads.data.packing import Packing

    frames = data.train.frames
    packing = Packing.of(frames.lengths[:64])
    rows = packing.gather(frames.offsets[:64])
    frames.values[rows.numpy()].sum()
    return int(data.train.frames.values.nbytes + data.val.frames.values.nbytes)


def peak() -> int:
    """Peak of this process's resident memory in bytes; getrusage's would be the parent's too."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


def measure(what: str, store: Path, labels: Path) -> dict[str, float]:
    """Measure one way in this process, after its libraries are loaded."""
    import torch  # noqa: F401
    import zarr  # noqa: F401

    import feie.pipeline.train.job  # noqa: F401

    before = peak()
    clock, cpu = time.perf_counter(), time.process_time()
    size = first_batch(store, labels) if what == "feie" else plain(store, what == "blocks")
    return {
        "wall_s": time.perf_counter() - clock,
        "cpu_s": time.process_time() - cpu,
        "features": size,
        "peak": peak() - before,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps the synthetic store")
    parser.add_argument("--videos", type=int, default=ALL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("plain", "blocks", "feie"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    store, labels = cached_store(given.folder, given.videos)
    if given.only:
        print(json.dumps(measure(given.only, store, labels)))
        return
    found: dict[str, list[dict[str, float]]] = {"plain": [], "blocks": [], "feie": []}
    for _ in range(given.rounds):
        for what, rows in found.items():
            command = [sys.executable, *sys.argv, "--only", what]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    best = {what: min(row["cpu_s"] for row in rows) for what, rows in found.items()}
    features, everything = found["feie"][0]["features"], found["plain"][0]["features"]
    most = max(row["peak"] for row in found["feie"])
    print(f"plain read      {best['plain']:6.2f} s of CPU for {everything / 1e6:.0f} MB")
    print(f"in blocks       {best['blocks']:6.2f} s of CPU, nothing kept")
    print(f"to first batch  {best['feie']:6.2f} s of CPU for {features / 1e6:.0f} MB of them")
    print(f"ratio           {best['feie'] / best['plain']:6.2f} (at most 2)")
    print(f"peak memory     {most / features:6.2f} times the features (at most 1.5)")


if __name__ == "__main__":
    main()
