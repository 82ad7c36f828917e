"""Where does an extractor fail? Its figures by skin tone, attitude of the head and light.

    python tests/bench/mma_groups.py synthetic_val.h5 fer2013_val.h5

A pack is cut at the terciles of each number that it stores of its faces (`feie render-faces`
writes tone, yaw and pitch; turns count by size, not side) and of the mean brightness of the
image, and each third is scored on its own, with bootstrap 95 % intervals.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import h5py
import numpy as np

from feie.features.extractors.load import load_extractor
from feie.features.mma.data.crops import pack_faces
from feie.features.mma.data.packs import read_pack
from feie.features.mma.scoring.scores import score_pack

STORED = ("tone", "yaw", "pitch")


def factors(path: Path, faces: np.ndarray) -> dict[str, np.ndarray]:
    """What may make a face harder, by name: (n,) each."""
    found = {"brightness": faces.mean(axis=(1, 2, 3))}
    with h5py.File(path) as file:
        for name in STORED:
            if name in file:
                values = file[name][:].astype(float)
                found[name] = values if name == "tone" else np.abs(values)
    return found


def main() -> None:
    """Print one Markdown table a pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="+", type=Path)
    parser.add_argument("--weights", default="mma-lite", help="name or .safetensors file")
    given = parser.parse_args()
    extractor = load_extractor(given.weights, "cpu")
    for path in given.packs:
        pack = read_pack(path)
        faces, _ = pack_faces(pack)
        affect = np.concatenate(
            [
                extractor(np.repeat(part, 3 // part.shape[3], axis=3)).affect
                for part in np.array_split(faces, max(1, len(faces) // 64))
            ]
        )
        print(f"\n| {path.name}: third by | range | images | accuracy | macro F1 | mean AU F1 |")
        print("|---|---|---|---|---|---|")
        for name, values in factors(path, faces).items():
            edges = np.quantile(values, [0, 1 / 3, 2 / 3, 1])
            for low, high in itertools.pairwise(edges):
                rows = np.flatnonzero((values >= low) & (values <= high))
                scores = score_pack(pack.select(rows), affect[rows])
                cells = []
                for figure in ("accuracy", "macro_f1", "au_f1_mean"):
                    value, interval = getattr(scores, figure), scores.intervals.get(figure)
                    cells.append(
                        "–"
                        if value is None
                        else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
                    )
                print(
                    f"| {name} | {low:.2f} to {high:.2f} | {len(rows)} | "
                    + " | ".join(cells)
                    + " |"
                )


if __name__ == "__main__":
    main()
