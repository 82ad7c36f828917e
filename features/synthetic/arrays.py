"""Array types of the renderer, which computes in single precision throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Image = NDArray[np.uint8]


def f32(values: ArrayLike) -> Floats:
    """Make a float32 array of numbers or of an array; no copy where it is one already."""
    return np.asarray(values, np.float32)
