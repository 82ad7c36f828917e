"""Rates of `feie dump` against a plain copy of the same arrays and pandas' `to_csv`; peak memory.

    python tests/bench/dump_speed.py --folder scratch/ [--videos 25067] [--rounds 3]
    python tests/bench/dump_speed.py --folder scratch/ --memory

The store is made once by `stage_two_data.py`. Plain copy: `affect`, `time` and `valid` read with
zarr in blocks of 65,536 rows, each written with `ndarray.tofile`, flushed to the disk at the end.
`feie dump` does more than that: it opens the store, writes the data sheet and the provenance, and
hashes what it wrote. pandas: the arrays of a video, already in memory, through a DataFrame to a
CSV file.
Rounds alternate, and the least of each figure counts; CPU time is all threads together. `--memory`
measures each format in a process of its own, over a tenth of the videos and over all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from stage_two_data import ALL, cached_store
from stage_two_loading import peak

ROWS = 65_536
FORMATS = ("hdf5", "hdf5-groups", "parquet", "safetensors", "npz", "openface", "muse")


def plain_copy(store: Path, out: Path) -> None:
    """Copy the arrays of a dump, as fast as anybody would."""
    import zarr

    root = zarr.open_group(store, mode="r")
    out.mkdir()
    files = {name: (out / name).open("wb") for name in ("affect", "time", "valid")}
    for start in range(0, root["affect"].shape[0], ROWS):
        for name, file in files.items():
            root[name][start : start + ROWS].tofile(file)
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
        file.close()


def dumped(store: Path, out: Path, form: str, ids: Path | None = None) -> None:
    """Run the job."""
    from feie.pipeline.dump.job import DumpOptions, run

    run(DumpOptions(store=str(store), format=form, out=out, ids=ids))


def pandas_csv(store: Path, ids: list[str], out: Path) -> tuple[float, float]:
    """Write a table a video; gives wall and CPU seconds without the time to read the store."""
    import numpy as np
    import pandas as pd

    from feie.features.store.reader import open_store

    opened = open_store(store)
    rows = opened.read(ids)
    out.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    for i, video_id in enumerate(ids):
        part = rows.values[rows.offsets[i] : rows.offsets[i + 1]]
        table = pd.DataFrame(part, columns=list(opened.schema.columns))
        table.insert(0, "timestamp", np.arange(len(part)) / 30 * 1000)
        table.insert(1, "segment_id", video_id)
        table.to_csv(out / f"{video_id}.csv", index=False)
    return time.perf_counter() - wall, time.process_time() - cpu


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def speed(store: Path, folder: Path, rounds: int, csv_videos: int) -> None:
    """Print both tables."""
    import zarr

    from feie.features.store.reader import open_store

    root = zarr.open_group(store, mode="r")
    size = sum(root[name].nbytes for name in ("affect", "time", "valid"))
    names = ("copy", "hdf5", "parquet", "safetensors")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, rows in found.items():
            out = fresh(folder)
            work = plain_copy if name == "copy" else (lambda s, o, f=name: dumped(s, o / "x", f))
            rows.append(timed(lambda w=work, o=out: w(store, o / "work")))
    wall, cpu = (
        {name: min(row[i] for row in rows) for name, rows in found.items()} for i in (0, 1)
    )
    print(f"{size / 1e6:.0f} MB in {root['affect'].shape[0]} frames, best of {rounds}")
    print(
        "             wall s   CPU s   MB/s   share of the copy's rate: wall   CPU (at least 0.33)"
    )
    for name in names:
        print(
            f"{name:12s}{wall[name]:7.2f} {cpu[name]:7.2f} {size / 1e6 / wall[name]:6.0f}"
            f"{wall['copy'] / wall[name]:33.2f} {cpu['copy'] / cpu[name]:6.2f}"
        )
    ids = open_store(store).ids[:csv_videos]
    listed = folder / "ids.txt"
    listed.write_text("\n".join(ids))
    ours, theirs = [], []
    for _ in range(rounds):
        out = fresh(folder)
        ours.append(timed(lambda o=out: dumped(store, o / "muse", "muse", listed)))
        few = ids[: max(1, len(ids) // 5)]
        seconds = pandas_csv(store, few, fresh(folder) / "pandas")
        theirs.append(tuple(s * len(ids) / len(few) for s in seconds))
    print(f"\nCSV, {len(ids)} videos, ms a video")
    print("             wall     CPU   times pandas' rate: wall   CPU (at least 5)")
    best = {"pandas": [min(x) for x in zip(*theirs, strict=True)]}
    best["feie muse"] = [min(x) for x in zip(*ours, strict=True)]
    for name, (w, c) in best.items():
        faster = best["pandas"][0] / w, best["pandas"][1] / c
        print(
            f"{name:10s}{w / len(ids) * 1e3:7.2f} {c / len(ids) * 1e3:7.2f}"
            f"{faster[0]:26.1f} {faster[1]:6.1f}"
        )
    shutil.rmtree(folder / "out", ignore_errors=True)


def fresh(folder: Path) -> Path:
    """Give an empty folder."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    return folder / "out"


def memory(folder: Path, videos: int) -> None:
    """Print the peak of resident memory above what the libraries take."""
    sizes = (max(1, videos // 10), videos)
    print("peak memory in MB over that of the libraries")
    print(" ".join([f"{'':12s}", *(f"{n:8d}" for n in sizes), " videos"]))
    for form in FORMATS:
        figures = []
        for n in sizes:
            cached_store(folder, n)
            command = [sys.executable, __file__, "--folder", str(folder), "--videos", str(n)]
            fresh(folder)
            done = subprocess.run([*command, "--only", form], check=True, capture_output=True)
            figures.append(json.loads(done.stdout))
        print(
            " ".join([f"{form:12s}", *(f"{figure / 1e6:8.0f}" for figure in figures)]), flush=True
        )
    shutil.rmtree(folder / "out", ignore_errors=True)


def one_peak(store: Path, out: Path, form: str) -> None:
    """Print the bytes that a dump adds to this process's peak."""
    from feie.features.store.reader import open_store

    few = out / "few.txt"
    few.write_text(open_store(store).ids[0])
    dumped(store, out / "warm", form, few)  # all libraries are loaded now
    before = peak()
    dumped(store, out / "all", form)
    print(peak() - before)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps the synthetic store")
    parser.add_argument("--videos", type=int, default=ALL)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv-videos", type=int, default=5_000, help="of the table of CSV files")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--only", choices=FORMATS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        memory(given.folder, given.videos)
        return
    store, _ = cached_store(given.folder, given.videos)
    if given.only:
        one_peak(store, given.folder / "out", given.only)
    else:
        speed(store, given.folder, given.rounds, given.csv_videos)


if __name__ == "__main__":
    main()
