"""How good the face finder that comes with feie is, beside insightface's detectors, in one run.

    python tests/bench/face_finders.py shared/videos --models shared/models

Every detector follows the main face through every frame of every clip, as `feie extract` does.
Printed: the share of frames with a face; the distance of each landmark to that of `--judge` in the
same frame, over the distance of the judge's eyes; jitter (the second difference of a landmark over
three frames, over the distance of its eyes); the concordance (CCC) of the stored numbers with those
that `--beside` gives; CPU ms a frame to decode, find and align.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from feie.features.extractors.load import load_extractor
from feie.features.faces.detectors import load_detector
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.schema import AFFECT
from feie.features.video.sources import discover


def main() -> None:
    """Measure every detector on every clip and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--models", type=Path, required=True, help="folder of det_*.onnx")
    parser.add_argument("--judge", default="det_2.5g")
    parser.add_argument("--beside", default="det_500m")
    parser.add_argument("--smooth", type=int, nargs="*", help="the finder with these windows, too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    ways = {name: (f"scrfd:{given.models / name}.onnx", FaceOptions(faces="detect"))
            for name in (given.beside, given.judge)}  # fmt: skip
    ways |= {name: (name, FaceOptions(faces="detect")) for name in ("auto", "yunet")}
    for window in given.smooth or ():
        ways[f"auto --smooth {window}"] = "auto", FaceOptions(faces="detect", smooth=window)
    sources = discover(given.videos).sources
    runs = {name: followed(sources, *way) for name, way in ways.items()}
    table = {
        name: {
            "frames": len(run["valid"]),
            "faces_percent": 100 * float(run["valid"].mean()),
            "faces_on_no_face": int(run["clips"].get("no_face", 0)),
            **apart(run, runs[given.judge]),
            **jitter(run),
            **agreement(run["affect"], runs[given.beside]["affect"]),
            "cpu_ms": run["cpu_ms"],
        }
        for name, run in runs.items()
    }
    if given.json:
        print(json.dumps(table, indent=2))
        return
    columns = list(next(iter(table.values())))
    print(" | ".join(["detector", *columns]))
    for name, row in table.items():
        print(" | ".join([name, *(f"{row[column]:.4g}" for column in columns)]))


def followed(sources, spec: str, options: FaceOptions) -> dict:
    """Follow the main face through every clip with one detector."""
    detector, extractor = load_detector(spec), load_extractor("mma-lite", "cpu")
    names = ("valid", "landmarks", "bbox", "time")
    parts: dict[str, list] = {name: [] for name in (*names, "affect", "clip")}
    clips, cpu = {}, 0.0
    for number, source in enumerate(sources):
        began = time.process_time()
        with FaceStream(source, options, detector) as stream:
            chunks = list(stream)
        cpu += time.process_time() - began
        for name in names:
            parts[name].append(np.concatenate([getattr(chunk, name) for chunk in chunks]))
        valid = parts["valid"][-1]
        affect = np.full((len(valid), len(AFFECT)), np.nan, np.float32)
        faces = np.concatenate([chunk.aligned for chunk in chunks])
        for start in range(0, len(faces), 64):
            rows = np.flatnonzero(valid)[start : start + 64]
            affect[rows] = extractor(faces[start : start + 64]).affect
        parts["affect"].append(affect)
        parts["clip"].append(np.full(len(valid), number))
        clips[source.video_id.rsplit("/", 1)[-1]] = valid.sum()
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    return {**joined, "clips": clips, "cpu_ms": 1000 * cpu / len(joined["valid"])}


def apart(run: dict, judge: dict) -> dict[str, float]:
    """Distance of each landmark to the judge's, over the distance of the judge's eyes."""
    both = run["valid"] & judge["valid"]
    ours, theirs = run["landmarks"][both], judge["landmarks"][both]
    eyes = np.linalg.norm(theirs[:, 0] - theirs[:, 1], axis=1)
    distance = np.linalg.norm(ours - theirs, axis=2) / eyes[:, None]
    median, p95 = np.percentile(distance, [50, 95])
    return {"landmarks_median": float(median), "landmarks_p95": float(p95)}


def jitter(run: dict) -> dict[str, float]:
    """Second difference of landmarks in three frames of one clip that show the face."""
    valid, clip, points = run["valid"], run["clip"], run["landmarks"]
    rows = valid[:-2] & valid[1:-1] & valid[2:] & (clip[:-2] == clip[2:])
    second = np.linalg.norm(points[:-2] - 2 * points[1:-1] + points[2:], axis=2)[rows]
    eyes = np.linalg.norm(points[1:-1, 0] - points[1:-1, 1], axis=1)[rows]
    return {"jitter_median": float(np.median(second / eyes[:, None]))}


def agreement(affect: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """CCC of each number over all frames that have it in both, as means of groups."""
    both = np.isfinite(affect).all(axis=1) & np.isfinite(other).all(axis=1)
    x, y = affect[both].astype(np.float64), other[both].astype(np.float64)
    shared = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    ccc = 2 * shared / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    groups = {"valence": slice(0, 1), "arousal": slice(1, 2)}
    groups |= {name: slice(*AFFECT.groups[name]) for name in ("expr", "au")}
    return {f"ccc_{name}": float(ccc[part].mean()) for name, part in groups.items()}


if __name__ == "__main__":
    main()
