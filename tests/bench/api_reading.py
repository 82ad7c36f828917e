"""Reading a store through the Python API, as ratios to plain zarr reading the same bytes.

    python tests/bench/api_reading.py features.zarr --rounds 3

Rounds alternate between the ways; the table shows medians of the time on the clock and of that on
the processors, which tells more on a busy machine. The file cache is warm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import zarr

import feie


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    path = given.store

    def plain() -> int:
        array = zarr.open_group(path, mode="r")["affect"]
        height = array.chunks[0]
        return sum(len(array[i : i + height]) for i in range(0, array.shape[0], height))

    def each_video() -> int:
        return sum(len(video.affect) for video in feie.open_store(path).values())

    def all_at_once() -> int:
        return len(feie.open_store(path).read().values)

    def batches() -> int:
        data = feie.VideoDataset(path)
        return sum(int(batch.lengths.sum()) for batch in feie.loader(data, 64, by_length=True))

    ways: dict[str, Callable[[], int]] = {
        "zarr, chunk by chunk": plain,
        "open_store, .affect of each video": each_video,
        "open_store, .read() of all": all_at_once,
        "VideoDataset and an epoch of loader": batches,
    }
    plain()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    rows: dict[str, int] = {}
    for _ in range(given.rounds):
        for name, way in ways.items():
            start = time.perf_counter(), time.process_time()
            rows[name] = way()
            taken = time.perf_counter() - start[0], time.process_time() - start[1]
            seconds[name].append(taken)
    medians = {
        name: [statistics.median(kind) for kind in zip(*taken, strict=True)]
        for name, taken in seconds.items()
    }
    clock, processors = medians["zarr, chunk by chunk"]
    print(f"{path}: {rows['zarr, chunk by chunk']} frames")
    for name, (ours, on_processors) in medians.items():
        print(
            f"{name:36} {rows[name]:9} frames {ours:6.2f} s x{ours / clock:.2f}"
            f"  on processors {on_processors:6.2f} s x{on_processors / processors:.2f}"
        )


if __name__ == "__main__":
    main()
