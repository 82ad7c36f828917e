"""Do action units follow real faces? Rank correlations with a teacher's blendshapes, clip by clip.

    python tests/bench/mma_clips.py --detector scrfd:det_500m.onnx --teacher face_landmarker.task \
        --picture clips.png VIDEOS/*

Compares, frame by frame, what an extractor says of the main face with what MediaPipe's blendshapes
see in the same aligned face (mean of left and right), by Spearman's rank correlation, wherever a
blendshape moves in the clip (standard deviation of at least 0.05 over at least 30 frames with a
face). Valence is compared with smile - (frown + lowered brow) / 2. The same weights' medians stand
at the end; units without a row have no blendshape that moves in any clip. Several `--weights` are
compared in one run. Needs `pip install 'feie[teacher]'`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

from feie.features.extractors.load import load_extractor
from feie.features.faces.detectors import load_detector
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.mma.teacher import Teacher
from feie.features.video.sources import discover

SHAPES = {
    "AU01": (3,), "AU02": (4, 5), "AU04": (1, 2), "AU05": (21, 22), "AU06": (44, 45),
    "AU07": (19, 20), "AU09": (50, 51), "AU10": (48, 49), "AU12": (44, 45), "AU15": (30, 31),
    "AU17": (42,), "AU20": (46, 47), "AU23": (40, 41), "AU24": (36, 37), "AU25": (25, 34, 35),
    "AU26": (25,), "happiness": (44, 45),
}  # fmt: skip
"""Column to blendshapes: inner brow up; outer brow up; brow down; eye wide; smile (cheek squint
never moves); eye squint; nose sneer; upper lip up; smile; mouth frown; lower lip shrugged; mouth
stretch; lips rolled in; mouth pressed; the most of jaw open and lower lip down; jaw open; smile."""
LIPS_PART = "AU25"
HEADLINE = ("AU01", "AU02", "AU04", "AU12", "AU25", "AU26")
LEAST_SD, LEAST_FRAMES = 0.05, 30


def references(shapes: np.ndarray) -> dict[str, np.ndarray]:
    """Give what each column is compared with, from blendshapes (n, 52)."""
    found = {
        name: shapes[:, list(places)].mean(axis=1)
        for name, places in SHAPES.items()
        if name != LIPS_PART
    }
    found[LIPS_PART] = np.maximum(shapes[:, 25], shapes[:, [34, 35]].mean(axis=1))
    found["valence"] = found["AU12"] - (found["AU15"] + found["AU04"]) / 2
    return found


def main() -> None:
    """Print a row a clip and a column a unit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", action="append", help="names or .safetensors files")
    parser.add_argument("--detector", required=True, help="e.g. scrfd:det_500m.onnx")
    parser.add_argument("--teacher", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--picture", type=Path, help="draw AU04 and AU12 of each clip")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    detector, teacher = load_detector(given.detector), Teacher(given.teacher)
    faces, seen = {}, {}
    for clip in given.clips:
        source = next(s for s in discover(clip.parent).sources if s.path.name == clip.name)
        chunks = list(FaceStream(source, FaceOptions(), detector))
        faces[clip.stem] = np.concatenate([chunk.aligned for chunk in chunks])
        if len(faces[clip.stem]) >= LEAST_FRAMES:
            shapes = np.array([teacher(face).blendshapes for face in faces[clip.stem]])
            seen[clip.stem] = references(shapes)
    report = {}
    for weights in given.weights or ["mma-lite"]:
        extractor = load_extractor(weights, "cpu")
        columns = extractor.schema.columns
        values = {
            clip: np.concatenate(
                [extractor(faces[clip][i : i + 64]).affect for i in range(0, len(faces[clip]), 64)]
            )
            for clip in seen
        }
        rows = {
            clip: {
                name: round(
                    float(spearmanr(values[clip][:, columns.index(name)], wanted).statistic), 3
                )
                for name, wanted in seen[clip].items()
                if wanted.std() >= LEAST_SD
            }
            for clip in seen
        }
        report[weights] = rows
        if not given.json:
            print_rows(weights, rows)
        if given.picture:
            draw(values, seen, columns, given.picture)
    if given.json:
        print(json.dumps(report))


def print_rows(weights: str, rows: dict[str, dict[str, float]]) -> None:
    """Print correlations, medians a column, and the median over the pairs of `HEADLINE`."""
    names = [*(n for n in SHAPES if any(n in row for row in rows.values())), "valence"]
    print(f"\n{weights}\n{'clip':24}" + "".join(f"{name:>10}" for name in names))
    for clip, row in rows.items():
        cells = "".join(f"{row[n]:10.2f}" if n in row else " " * 10 for n in names)
        print(f"{clip[:23]:24}{cells}")
    middles = [np.median([row[n] for row in rows.values() if n in row]) for n in names]
    print(f"{'median':24}" + "".join(f"{value:10.2f}" for value in middles))
    pairs = [row[n] for row in rows.values() for n in HEADLINE if n in row]
    print(f"median over {len(pairs)} pairs of {', '.join(HEADLINE)}: {np.median(pairs):.3f}")


def draw(
    values: dict[str, np.ndarray],
    seen: dict[str, dict[str, np.ndarray]],
    columns: tuple[str, ...],
    path: Path,
) -> None:
    """One row a clip: lowered brow and smile, the extractor's and the teacher's."""
    names = ("AU04", "AU12")
    figure, axes = plt.subplots(
        len(seen), 2, figsize=(12, 1.8 * len(seen)), squeeze=False, layout="constrained"
    )
    for row, (clip, wanted) in zip(axes, seen.items(), strict=True):
        for axis, name in zip(row, names, strict=True):
            axis.plot(values[clip][:, columns.index(name)], label=f"{name}, extractor", lw=1)
            axis.plot(wanted[name], "k", label="blendshape", lw=1)
            axis.set(ylim=(-0.02, 1.02))
            axis.set_title(f"{clip}: {name}", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    main()
