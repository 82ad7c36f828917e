"""How fast is stage one, stage by stage, as a whole, and against the loop one writes by hand?

    python tests/bench/stage_one.py --detector scrfd:det_500m.onnx VIDEOS
    python tests/bench/stage_one.py --detector scrfd:det_500m.onnx --strides VIDEOS
    python tests/bench/stage_one.py --memory

The first measures, in alternating rounds of one run: each stage alone in as many threads as there
are cores (decode, detect, align, extract, append); `feie extract` end to end; and the loop by
hand: OpenCV, insightface's FaceAnalysis at its defaults, norm_crop, the same network one frame at
a time, np.save. From the last two, the time that each takes for three frames is taken off: the
start of Python, libraries and weights. Wall seconds decide; CPU seconds are printed beside them,
for machines that are busy with other things. VIDEOS should hold faces, and no folders of crops.

The second prints what --stride 2, 3 and 5, and following the face, do to the 26 numbers. The third
compares peak memory of 20 and 200 videos, and of a video of one minute and one of thirty.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

STAGES = ("decode", "detect", "align", "extract", "append")
CHUNK = 150  # frames of a video that are held at a time


@dataclass
class Timed:
    """Seconds of one thing, a round each."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], object]) -> object:
        wall, cpu = time.perf_counter(), _cpu()
        result = work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(_cpu() - cpu)
        return result


def _cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def speed(videos: Path, detector_spec: str, rounds: int, seconds: float, threads: int) -> dict:
    """Measure every stage, the whole, and the loop by hand."""
    import cv2
    import torch

    from feie.features.extractors.load import load_extractor
    from feie.features.faces.detectors import load_detector
    from feie.features.video.sources import discover

    clips = cut_clips(videos, seconds)
    sources = discover(clips).sources
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector, extractor = load_detector(detector_spec), load_extractor("mma-lite", "cpu")
    stages = Stages(sources, detector, extractor, threads)
    whole = {"feie extract": end_to_end, "by hand": by_hand}
    timed = {name: Timed() for name in (*STAGES, *whole)}
    starting = {name: Timed() for name in whole}
    tiny = cut_clips(sources[0].path, 0.05)
    frames: dict[str, int] = {}
    shares: dict[str, float] = {}
    for _ in range(rounds):
        for name in STAGES:
            frames[name] = int(timed[name].run(getattr(stages, name)))
        for name, work in whole.items():
            starting[name].run(lambda work=work: work(tiny, detector_spec))
            frames[name], shares[name] = timed[name].run(
                lambda work=work: work(clips, detector_spec)
            )
    shutil.rmtree(clips)
    shutil.rmtree(tiny)
    wall = {n: statistics.median(t.wall) for n, t in timed.items()}
    cpu = {n: statistics.median(t.cpu) for n, t in timed.items()}
    start = {n: statistics.median(t.wall) for n, t in starting.items()}
    for name in whole:
        wall[name] -= start[name]
        cpu[name] -= statistics.median(starting[name].cpu)
    rate = {n: frames[n] / wall[n] for n in timed}
    cost = {n: 1000 * cpu[n] / frames[n] for n in timed}
    total = sum(frames[name] / rate[name] for name in STAGES) / frames["decode"]
    return {
        "threads": threads,
        "clips": len(sources),
        "frames": frames["feie extract"],
        "start_up_seconds_taken_off": start,
        "frames_per_second": rate,
        "cpu_ms_a_frame": cost,
        "face_share": shares,
        "feie_over_by_hand": rate["feie extract"] / rate["by hand"],
        "feie_over_by_hand_cpu": cost["by hand"] / cost["feie extract"],
        "feie_over_slowest_stage": rate["feie extract"] / min(rate[n] for n in STAGES),
        "feie_over_sum_of_stages": rate["feie extract"] * total,
    }


def cut_clips(videos: Path, seconds: float) -> Path:
    """Copy the videos, in full (`seconds` 0) or so many seconds of each, to a folder."""
    import av

    from feie.features.video.sources import discover

    folder = Path(tempfile.mkdtemp(prefix="feie-bench-"))
    for source in discover(videos).sources:
        if source.kind != "video":
            continue
        target = folder / source.relative.replace("/", "_")
        if not seconds:
            shutil.copy(source.path, target)
            continue
        with av.open(str(source.path)) as given, av.open(str(target), "w") as cut:
            stream = given.streams.video[0]
            copy = cut.add_stream_from_template(stream)
            last = -16
            for packet in given.demux(stream):
                if packet.pts is None:
                    continue  # what flushes the decoder
                if packet.dts is None:
                    # Matroska keeps no decoding times: the first packets come without.
                    packet.dts = last + 1
                last = packet.dts
                if float(packet.dts * packet.time_base) > seconds:
                    break
                packet.stream = copy
                cut.mux(packet)
    return folder


class Stages:
    """Each stage by itself, on what the stages before it give; one video at a time a thread."""

    def __init__(self, sources, detector, extractor, threads: int) -> None:
        from feie.features.faces.stream import FaceOptions, FaceStream

        self.sources, self.detector, self.extractor = sources, detector, extractor
        self.threads = threads
        self.found: dict[str, tuple] = {}
        for source in sources:
            with FaceStream(source, FaceOptions(faces="detect"), detector) as stream:
                chunks = list(stream)
            self.found[source.video_id] = tuple(
                np.concatenate([getattr(c, n) for c in chunks])
                for n in ("valid", "landmarks", "aligned")
            )

    def _spread(self, work: Callable[[object], int]) -> int:
        with ThreadPoolExecutor(self.threads) as pool:
            return sum(pool.map(work, self.sources))

    def _frames(self, source) -> Iterator[list]:
        from feie.features.video.file import open_reader

        with open_reader(source) as reader:
            frames = iter(reader)
            while part := list(itertools.islice(frames, CHUNK)):
                yield part

    def decode(self) -> int:
        return self._spread(lambda source: sum(len(part) for part in self._frames(source)))

    def detect(self) -> int:
        from feie.features.faces.search import Search

        def work(held) -> int:
            frames = held[1]
            height, width = frames[0].image.shape[:2]
            return sum(1 for _ in Search(self.detector, width, height).main_face(frames))

        return self._on_frames(work)

    def align(self) -> int:
        from feie.features.faces.align import align_face

        def work(held) -> int:
            source, frames = held
            valid, landmarks, _ = self.found[source.video_id]
            for frame, ok, points in zip(frames, valid, landmarks, strict=False):
                if ok:
                    align_face(frame.image, points)
            return len(frames)

        return self._on_frames(work)

    def _on_frames(self, work) -> int:
        if not hasattr(self, "held"):
            # The first frames of each video stand for all: whole videos would not fit in memory.
            self.held = [(source, next(self._frames(source))) for source in self.sources]
        with ThreadPoolExecutor(self.threads) as pool:
            return sum(pool.map(work, self.held))

    def extract(self) -> int:
        """Fixed batches of 64; counts frames, with or without a face."""
        faces = np.concatenate([aligned for _, _, aligned in self.found.values()])
        batches = [faces[i : i + 64] for i in range(0, len(faces), 64)]
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(self.extractor, batches))
        return sum(len(valid) for valid, _, _ in self.found.values())

    def append(self) -> int:
        """As the coordinator does: one writer, one commit."""
        from feie.features.schema import AFFECT
        from feie.features.store.records import StoreSettings, VideoRecord
        from feie.features.store.writer import StoreWriter

        made = {"name": "bench", "sha256": "0" * 64}
        settings = StoreSettings(AFFECT, made, {}, session={"versions": {}})
        with (
            tempfile.TemporaryDirectory() as folder,
            StoreWriter(Path(folder) / "s.zarr", settings) as writer,
        ):
            for source in self.sources:
                valid, landmarks, _ = self.found[source.video_id]
                n = len(valid)
                writer.append(
                        VideoRecord(
                            id=source.video_id, source=source.relative, size=0, mtime_ns=0,
                            fingerprint="x", fps=25.0, width=1, height=1,
                            affect=np.random.default_rng(0).random((n, 26), np.float32),
                            time=np.arange(n) / 25, valid=valid,
                            face_score=np.ones(n, np.float32),
                            bbox=np.zeros((n, 4), np.float32), landmarks=landmarks,
                        )
                    )  # fmt: skip
        return sum(len(valid) for valid, _, _ in self.found.values())


def end_to_end(clips: Path, detector: str) -> tuple[int, float]:
    """`feie extract`, the whole command with its start; frames and share of faces."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "feie.cli", "extract", "--videos", str(clips), "--json"]
        command += ["--store", f"{folder}/s.zarr", "--detector", detector]
        command += ["--faces", "detect", "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            raise SystemExit(done.stderr)
        result = json.loads(done.stdout)
    return result["frames"], result["face_share"]


BY_HAND = """
import sys, json, cv2, torch, numpy as np
from pathlib import Path
from insightface.app import FaceAnalysis
from insightface.utils.face_align import norm_crop
from feie.features.extractors.load import load_extractor

app = FaceAnalysis(name=sys.argv[2], allowed_modules=["detection"])
app.prepare(ctx_id=-1, det_size=(640, 640))
network = load_extractor("mma-lite", "cpu")
frames = faces = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    video, rows = cv2.VideoCapture(str(path)), []
    while True:
        ok, image = video.read()
        if not ok:
            break
        frames += 1
        found = app.get(image)
        if not found:
            continue
        faces += 1
        face = max(found, key=lambda f: (f.bbox[2] - f.bbox[0]) * (f.bbox[3] - f.bbox[1]))
        crop = norm_crop(image, face.kps)[:, :, ::-1]
        rows.append(network(np.ascontiguousarray(crop)[None]).affect[0])
    np.save(sys.argv[3] + "/" + path.stem + ".npy", np.array(rows))
print(json.dumps([frames, faces]))
"""


def by_hand(clips: Path, detector: str) -> tuple[int, float]:
    """Run the loop that a user writes, in a process of its own, with the threads it gets."""
    weights = Path(detector.partition(":")[2]).expanduser()
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "pack"
        pack.mkdir()
        shutil.copy(weights, pack / weights.name)
        command = [sys.executable, "-W", "ignore", "-c", BY_HAND, str(clips), str(pack), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    frames, faces = json.loads(done.stdout.strip().splitlines()[-1])
    return frames, faces / max(frames, 1)


def strides(videos: Path, detector_spec: str, limit: int) -> dict:
    """Mean absolute difference of the 26 numbers to the search of every whole frame."""
    from feie.features.extractors.load import load_extractor
    from feie.features.faces.detectors import DetectOptions, load_detector
    from feie.features.faces.stream import FaceOptions, FaceStream
    from feie.features.schema import AFFECT
    from feie.features.video.sources import discover

    extractor = load_extractor("mma-lite", "cpu")
    plain = DetectOptions(follow=0)
    ways = {
        "every frame, whole": (plain, 1),
        "every frame, at 640 px": (DetectOptions(size=640, retry_sizes=(320, 160), follow=0), 1),
        "--follow (default)": (DetectOptions(), 1),
        **{f"--stride {k}": (DetectOptions(), k) for k in (2, 3, 5)},
    }
    detectors = {name: load_detector(detector_spec, search) for name, (search, _) in ways.items()}
    gaps: dict[str, list] = {name: [] for name in ways}
    marks: dict[str, list] = {name: [] for name in ways}
    share = {name: [0, 0] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    for source in discover(videos).sources:
        base = None
        for name, (_, stride) in ways.items():
            began = time.process_time()
            with FaceStream(
                source, FaceOptions(faces="detect", stride=stride), detectors[name]
            ) as stream:
                chunks = list(itertools.islice(stream, -(-limit // 64)))
            cpu[name] += time.process_time() - began
            valid, landmarks, bbox, aligned = (
                np.concatenate([getattr(c, n) for c in chunks])
                for n in ("valid", "landmarks", "bbox", "aligned")
            )
            affect = np.full((len(valid), 26), np.nan, np.float32)
            for start in range(0, len(aligned), 64):
                rows = np.flatnonzero(valid)[start : start + 64]
                affect[rows] = extractor(aligned[start : start + 64]).affect
            share[name][0] += int(valid.sum())
            share[name][1] += len(valid)
            base = base or (valid, landmarks, bbox, affect)
            both = valid & base[0]
            gaps[name].append(np.abs(affect - base[3])[both])
            size = np.sqrt(np.prod(base[2][:, 2:] - base[2][:, :2], axis=1))
            apart = np.linalg.norm(landmarks - base[1], axis=2).mean(axis=1)
            marks[name].append((apart / size)[both])
    table = {}
    for name in ways:
        gap = np.concatenate(gaps[name])
        parts = {g: float(gap[:, slice(*span)].mean()) for g, span in AFFECT.groups.items()}
        table[name] = {
            "face_share": share[name][0] / share[name][1],
            "landmarks_percent_of_face": 100 * float(np.concatenate(marks[name]).mean()),
            **parts,
            "all 26": float(gap.mean()),
            "cpu_ms_a_frame": 1000 * cpu[name] / share[name][1],
        }
    return {"frames": share["every frame, whole"][1], "mean_absolute_difference": table}


def memory() -> dict:
    """Peak resident memory, MiB, of extractions that differ in number or length of videos."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        short = write_clip(root / "short.mp4", 40)
        for count in (20, 200):
            many = root / f"many-{count}"
            many.mkdir()
            for i in range(count):
                shutil.copy(short, many / f"{i:03d}.mp4")
            peaks[f"{count} videos"] = peak(many, root / f"{count}.zarr")
        for minutes in (1, 30):
            one = root / f"long-{minutes}"
            one.mkdir()
            write_clip(one / "a.mp4", minutes * 60 * 25)
            peaks[f"{minutes} minutes"] = peak(one, root / f"{minutes}.zarr")
    return {
        "peak_mib": peaks,
        "200 over 20 videos": peaks["200 videos"] / peaks["20 videos"],
        "30 minutes over 1": peaks["30 minutes"] / peaks["1 minutes"],
    }


def write_clip(path: Path, frames: int) -> Path:
    """Write face-sized crops, 25 a second, that hardly change: cheap to encode and decode."""
    import av

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (7, 7, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 112
        stream.pix_fmt = "yuv420p"
        for i in range(frames):
            if i % 25 == 0:
                frame = av.VideoFrame.from_ndarray(np.roll(image, i // 25, 1), format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


PEAK = """
import resource, sys
from feie.pipeline.extract.job import ExtractOptions, run
run(ExtractOptions(videos=sys.argv[1], store=sys.argv[2], device="cpu"))
usage = resource.getrusage
print(max(usage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def peak(videos: Path, store: Path) -> float:
    """Peak memory of one extraction in a process of its own, in MiB."""
    command = [sys.executable, "-c", PEAK, str(videos), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Linux counts in KiB, macOS in bytes.
    return int(done.stdout) / 1024 / (1024 if sys.platform == "darwin" else 1)


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="?", type=Path, help="folder of videos with faces in them")
    parser.add_argument("--detector", help="scrfd:FILE.onnx")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.0, help="of each video; 0 for all")
    parser.add_argument("--threads", type=int, default=None, help="of each stage alone")
    parser.add_argument("--frames", type=int, default=10**9, help="of each video, for --strides")
    parser.add_argument("--strides", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    from feie.pipeline.engine.options import cores

    if given.memory:
        result = memory()
    else:
        if not given.videos or not given.detector:
            parser.error("give --detector scrfd:FILE.onnx and a folder of videos")
        if given.strides:
            result = strides(given.videos, given.detector, given.frames)
        else:
            threads = given.threads or cores()
            result = speed(given.videos, given.detector, given.rounds, given.seconds, threads)
    print(json.dumps(result, indent=2) if given.json else table(result))


def table(result: dict, indent: str = "") -> str:
    """Write nested figures line by line."""
    lines = []
    for name, value in result.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", table(value, indent + "    ")]
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"{indent}{name:<28} {text}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
