"""Backgrounds: soft gradients, blurred blobs and edges, a little noise."""

from __future__ import annotations

import cv2
import numpy as np

from feie.features.synthetic.arrays import Image


def make_backdrop(rng: np.random.Generator, size: int) -> Image:
    """Draw a random background, (size, size, 3) uint8 RGB."""
    base = rng.uniform(20, 235)
    spread = rng.uniform(5, 70)
    cells = int(rng.integers(2, 9))
    tint = rng.normal(0, 18, 3)
    coarse = base + spread * rng.standard_normal((cells, cells, 1)) + tint
    coarse = coarse + 12 * rng.standard_normal((cells, cells, 3))
    picture = cv2.resize(
        coarse.clip(0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(int(rng.integers(0, 7))):
        colour = rng.integers(0, 256, 3).tolist()
        x, y = rng.integers(0, size, 2).tolist()
        if rng.uniform() < 0.5:
            w, h = rng.integers(size // 20, size // 2, 2).tolist()
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        else:
            axes = rng.integers(size // 30, size // 4, 2).tolist()
            cv2.ellipse(picture, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    if rng.uniform() < 0.85:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1, 9)))
    return np.asarray(picture, np.uint8)
