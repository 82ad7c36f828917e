"""Where does an extractor fail? Its figures by skin tone, pose, light and size of the face.

    python tests/bench/mma_groups.py synthetic_val.h5 ferplus_val.h5 --detector scrfd:det_500m.onnx

A pack is cut at the terciles of each number that it stores of its faces (`feie render-faces`
writes tone, yaw and pitch; turns count by size, not side), of the mean brightness of the face, and,
with a detector, of the distance between the eyes that it finds in images that are not 112x112, in
pixels of the image. Each third is scored on its own, with bootstrap 95 % intervals. Several
`--weights` stand side by side.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from feie.features.extractors.load import load_extractor
from feie.features.faces.detectors import Detector, load_detector
from feie.features.mma.data.crops import (
    CROP_SEARCH,
    SIDE,
    decode,
    enlarged,
    found_landmarks,
    pack_faces,
)
from feie.features.mma.data.packs import Pack, read_pack
from feie.features.mma.scoring.scores import Scores, score_pack

STORED = ("tone", "yaw", "pitch")
FIGURES = ("accuracy", "macro_f1", "au_f1_mean")


def eye_distances(pack: Pack, detector: Detector) -> np.ndarray:
    """Measure the distance (n,) between the eyes in pixels of each image; NaN where not found."""
    distances = np.full(len(pack), np.nan)
    for row in range(len(pack)):
        image = decode(pack, row)
        if image.shape[:2] == (SIDE, SIDE):
            continue
        picture = enlarged(image)
        found = found_landmarks(picture, detector)
        if found is not None:
            scale = max(picture.shape[:2]) / (2 * max(image.shape[:2]))
            distances[row] = np.linalg.norm(found[1] - found[0]) / scale
    return distances


def factors(
    path: Path, pack: Pack, faces: np.ndarray, detector: Detector | None
) -> dict[str, np.ndarray]:
    """What may make a face harder, by name: (n,) each, NaN where it is not known."""
    found = {"brightness": faces.mean(axis=(1, 2, 3))}
    if detector is not None:
        found["eye distance"] = eye_distances(pack, detector)
    with h5py.File(path) as file:
        for name in STORED:
            if name in file:
                values = file[name][:].astype(float)
                found[name] = values if name == "tone" else np.abs(values)
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def cell(scores: Scores, figure: str) -> str:
    """Write a figure with its interval; a dash where there is none."""
    value, interval = getattr(scores, figure), scores.intervals.get(figure)
    if value is None:
        return "–"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{value:.3f}"


def print_thirds(
    path: Path, weights: Sequence[str], detector: Detector | None, repeats: int = 1000
) -> None:
    """Print a Markdown table of a pack: a row per third, the figures of each of the weights."""
    pack = read_pack(path)
    faces, _ = pack_faces(pack)
    colour = 3 // faces.shape[3]
    affect, schemas = {}, {}
    for name in weights:
        extractor = load_extractor(name, "cpu")
        schemas[name] = extractor.schema
        affect[name] = np.concatenate(
            [
                extractor(np.repeat(faces[i : i + 64], colour, axis=3)).affect
                for i in range(0, len(faces), 64)
            ]
        )
    units = not np.isnan(pack.units).all()
    figures = [figure for figure in FIGURES if units or figure != "au_f1_mean"]
    heads = [f"{Path(name).stem}: {figure}" for name in weights for figure in figures]
    print(f"\n| {path.name}: third by | range | images | " + " | ".join(heads) + " |")
    print("|---" * (3 + len(heads)) + "|")
    for name, values in factors(path, pack, faces, detector).items():
        edges = np.nanquantile(values, [0, 1 / 3, 2 / 3, 1])
        for low, high in itertools.pairwise(edges):
            rows = np.flatnonzero((values >= low) & (values <= high))
            cells = []
            for key in weights:
                scores = score_pack(pack.select(rows), affect[key][rows], repeats, schemas[key])
                cells += [cell(scores, figure) for figure in figures]
            span = f"{low:.2f} to {high:.2f}"
            print(f"| {name} | {span} | {len(rows)} | " + " | ".join(cells) + " |", flush=True)
        unknown = int(np.isnan(values).sum())
        if unknown:
            print(f"| {name} | not found | {unknown} |" + " |" * len(heads))


def main() -> None:
    """Print one Markdown table a pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="+", type=Path)
    parser.add_argument("--weights", action="append", help="names or .safetensors files")
    parser.add_argument("--detector", help="measures the distance between the eyes")
    parser.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    given = parser.parse_args()
    detector = load_detector(given.detector, CROP_SEARCH) if given.detector else None
    for path in given.packs:
        print_thirds(path, given.weights or ["mma-lite"], detector, given.repeats)


if __name__ == "__main__":
    main()
