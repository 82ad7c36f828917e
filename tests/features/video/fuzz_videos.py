"""Feed `feie extract` damaged videos: each is a named failure or a valid result.

    python tests/features/video/fuzz_videos.py --count 300 --seed 0

Small clips in every container are damaged in ten ways: cut, bits flipped, headers overwritten…
No file may crash or hang the process that reads it (the run would survive it, and name it), fail
for a reason without a name, or leave files, threads or memory behind.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import psutil

from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.pipeline.extract import job as extract
from feie.pipeline.progress import Progress

CONTAINERS = {
    "mp4": "mpeg4",
    "mov": "mjpeg",
    "mkv": "mpeg4",
    "webm": "libvpx",
    "avi": "mpeg4",
    "mpg": "mpeg1video",
    "flv": "flv",
    "gif": "gif",
    "ts": "mpeg2video",
}
# What a damaged file may fail for; "crash", "timeout" and "unexpected" are faults of ours.
NAMED = {"broken", "empty", "missing", "no-frames", "no-video-stream", "truncated", "not-aligned"}

EXTREMES = [bytes.fromhex(h) for h in ("ffffffff", "7fffffff", "80000000", "00000000", "ffffff7f")]


def base_clips(folder: Path) -> list[Path]:
    """Encode a dozen frames of 112x112 in each container."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (14, 14, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    paths = []
    for suffix, codec in CONTAINERS.items():
        path = folder / f"base.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width = stream.height = 112
            formats = {"gif": "rgb8", "mjpeg": "yuvj420p"}
            stream.pix_fmt = formats.get(codec, "yuv420p")
            for i in range(12):
                frame = av.VideoFrame.from_ndarray(np.roll(base, 5 * i, 1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        paths.append(path)
    return paths


def _span(rng: random.Random, data: bytearray, most: int = 256) -> slice:
    start = rng.randrange(len(data))
    return slice(start, min(len(data), start + rng.randint(1, most)))


def _flip(rng: random.Random, data: bytearray, within: int) -> None:
    for _ in range(rng.choice((1, 4, 32))):
        data[rng.randrange(min(within, len(data)))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def _behead(rng: random.Random, data: bytearray) -> None:
    del data[: rng.randint(1, 512)]


def _flip_anywhere(rng: random.Random, data: bytearray) -> None:
    _flip(rng, data, len(data))


def _flip_in_header(rng: random.Random, data: bytearray) -> None:
    _flip(rng, data, 512)


def _overwrite(rng: random.Random, data: bytearray) -> None:
    span = _span(rng, data)
    data[span] = rng.randbytes(span.stop - span.start)


def _zero(rng: random.Random, data: bytearray) -> None:
    span = _span(rng, data)
    data[span] = bytes(span.stop - span.start)


def _remove(rng: random.Random, data: bytearray) -> None:
    del data[_span(rng, data)]


def _repeat(rng: random.Random, data: bytearray) -> None:
    span = _span(rng, data, 4096)
    data[span.start : span.start] = data[span]


def _extreme(rng: random.Random, data: bytearray) -> None:
    """Put extreme numbers where sizes and counts stand."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(max(1, min(len(data), 1024) - 4))
        data[at : at + 4] = rng.choice(EXTREMES)


def _swap_tail(rng: random.Random, data: bytearray) -> None:
    """Exchange two halves: an index that points nowhere."""
    at = rng.randrange(len(data))
    data[:] = data[at:] + data[:at]


DAMAGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _cut, _behead, _flip_anywhere, _flip_in_header, _overwrite, _zero, _remove, _repeat, _extreme,
    _swap_tail,
)  # fmt: skip


def damaged_videos(folder: Path, count: int, seed: int) -> None:
    """Write `count` damaged videos, every container and damage in turn."""
    with tempfile.TemporaryDirectory() as bases:
        whole = [(path.suffix, path.read_bytes()) for path in base_clips(Path(bases))]
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        suffix, data = whole[i % len(whole)]
        damage = DAMAGES[i // len(whole) % len(DAMAGES)]
        mutated = bytearray(data)
        damage(rng, mutated)
        if rng.random() < 0.05:  # one container under another's name
            suffix = rng.choice(whole)[0]
        (folder / f"{i:04d}{damage.__name__}{suffix}").write_bytes(bytes(mutated))


def defects(store: Path, folder: Path) -> tuple[Counter[str], list[str]]:
    """Tell how the files ended, and what is wrong with that."""
    opened = open_store(store)
    found = [f"{v.rule}: {v.message}" for v in check_store(store)]
    ends = Counter({"valid": len(opened.ids)})
    for video_id, message in opened.failures.items():
        reason = message.partition(":")[0]
        ends[reason] += 1
        if reason not in NAMED:
            found.append(f"{video_id}: {message}")
    files = {path.stem for path in folder.iterdir()}
    if lost := files - {*opened.ids, *opened.failures}:
        found.append(f"neither valid nor failed: {sorted(lost)}")
    return ends, found


def main() -> int:
    """Run the fuzzer; the exit code is 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="how many files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extractor", default="mma-lite")
    parser.add_argument("--keep", type=Path, help="copy files that did harm here")
    given = parser.parse_args()
    usage: list[tuple[int, int, float]] = []

    def watch(report: Progress) -> None:
        if report.stage != "videos":
            return
        for child in psutil.Process().children():
            memory = child.memory_info().rss / 1e6
            usage.append((child.num_fds(), child.num_threads(), memory))

    with tempfile.TemporaryDirectory() as root:
        folder, store = Path(root) / "videos", Path(root) / "s.zarr"
        damaged_videos(folder, given.count, given.seed)
        options = extract.ExtractOptions(
            videos=folder,
            store=store,
            extractor=given.extractor,
            faces="aligned",  # a damaged header may claim another size: no detector is wanted
            timeout=60.0,
            threads=2,
        )
        began = time.monotonic()
        extract.run(options, watch)
        ends, found = defects(store, folder)
        if given.keep and found:
            shutil.copytree(folder, given.keep, dirs_exist_ok=True)
    print(f"{given.count} damaged videos in {time.monotonic() - began:.0f} s: {dict(ends)}")
    # What is kept for good only grows; the most of a stretch, because videos come in bursts.
    third = len(usage) // 3
    middle, last = (
        [max(column) for column in zip(*part, strict=True)]
        for part in (usage[third : 2 * third], usage[-third:])
    )
    print("             open files  threads  memory (MB)")
    for name, (files, threads, memory) in (("second third", middle), ("last third", last)):
        print(f"{name:12} {files:10} {threads:8} {memory:12.0f}")
    if last[0] > middle[0] + 2 or last[1] > middle[1] + 2 or last[2] > 1.1 * middle[2] + 20:
        found.append("something leaks")
    print("\n".join(found) or "nothing crashed, hung or leaked, and every failure has a name")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
