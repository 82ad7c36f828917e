"""What the crop of a face does to an ONNX network's numbers: aligned against the detector's box.

python tests/bench/crop_kinds.py --extractor fer.json --detector scrfd:det_500m.onnx CLIPS
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from feie.features.extractors.load import load_extractor
from feie.features.faces.crop import Crop
from feie.features.faces.detectors import load_detector
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.video.sources import discover

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("clips", type=Path)
parser.add_argument("--extractor", required=True)
parser.add_argument("--weights", type=Path)
parser.add_argument("--detector", required=True)
parser.add_argument("--fps", type=float, default=5.0)
given = parser.parse_args()

extractor = load_extractor(given.extractor, weights=given.weights)
detector = load_detector(given.detector)
size = extractor.crop.size
kinds = {
    "aligned": Crop(size=size),
    "box": Crop("box", size),
    "box, margin 0.2": Crop("box", size, 0.2),
}
numbers: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
options = FaceOptions(faces="detect", fps=given.fps)
for source in discover(given.clips).sources:
    for name, crop in kinds.items():
        with FaceStream(source, replace(options, crop=crop), detector) as stream:
            numbers[name] += [extractor(chunk.aligned).affect for chunk in stream]
affect = {name: np.concatenate(parts) for name, parts in numbers.items()}
expressions = list(extractor.schema.group("expr"))
rows = [extractor.schema.columns.index(name) for name in expressions]
own = next(name for name, crop in kinds.items() if crop == extractor.crop)
print(f"{len(affect[own])} faces, against {own}:")
for name, values in affect.items():
    top = values[:, rows].argmax(1)
    apart = np.abs(values - affect[own]).mean()
    other = (top != affect[own][:, rows].argmax(1)).mean()
    counts = ", ".join(f"{e} {(top == i).mean():.0%}" for i, e in enumerate(expressions))
    print(f"{name:16} mean abs. difference {apart:.3f}, another expression {other:.1%}: {counts}")
