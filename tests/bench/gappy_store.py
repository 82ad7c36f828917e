"""Copy a store and lose faces in it, to see what `--missing` does about them.

    python tests/bench/gappy_store.py features.zarr gappy.zarr --share 0.4

Each video loses that share of its frames, in stretches of 10 frames at random places.
"""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import zarr

from feie.features.store.reader import open_store

STRETCH = 10


def main() -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("copy")
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    store, rng = open_store(given.source), np.random.default_rng(given.seed)
    shutil.copytree(given.source, given.copy)
    root = zarr.open_group(given.copy, mode="r+")
    affect, valid, faces = root["affect"][:], root["valid"][:], root["video/faces"][:]
    for row, video in store.rows.iterrows():
        start, length = int(video["offset"]), int(video["length"])
        lost = np.zeros(length, bool)
        while length and lost.mean() < given.share:
            first = int(rng.integers(length))
            lost[first : first + STRETCH] = True
        valid[start : start + length][lost] = False
        affect[start : start + length][lost] = np.nan
        faces[row] = valid[start : start + length].mean() if length else 0.0
    root["affect"][:], root["valid"][:], root["video/faces"][:] = affect, valid, faces
    print(f"{given.copy}: {valid.mean():.1%} of {len(valid)} frames show a face")


if __name__ == "__main__":
    main()
