"""A z-buffer in plain NumPy for meshes of many small triangles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feie.features.synthetic.arrays import Floats, f32


class Fragments(NamedTuple):
    """Visible surface, one entry a covered pixel.

    Attributes
    ----------
    pixel : (P,) int64
        Flat indices ``y * width + x``.
    triangle : (P,) int64
        Which triangle is seen there.
    weights : (P, 3) float32
        Barycentric weights of its corners; they sum to one.
    depth : (P,) float32
        Distance from the camera.
    """

    pixel: NDArray[np.int64]
    triangle: NDArray[np.int64]
    weights: Floats
    depth: Floats

    def interpolate(self, values: Floats, triangles: NDArray[np.int64]) -> Floats:
        """Vertex values (V, C) at the fragments, (P, C)."""
        corners = triangles[self.triangle]
        result = values[corners[:, 0]] * self.weights[:, :1]
        result += values[corners[:, 1]] * self.weights[:, 1:2]
        result += values[corners[:, 2]] * self.weights[:, 2:]
        return result


def rasterise(
    points: Floats, depth: Floats, triangles: NDArray[np.int64], width: int, height: int
) -> Fragments:
    """Find the nearest triangle at each pixel centre.

    Pixel centres have integer coordinates, y points down. Triangles that turn their back, whose
    corners run clockwise as one sees them, are dropped. Interpolation is affine: on triangles of
    a few pixels perspective correction changes nothing visible.

    Parameters
    ----------
    points : (V, 2) float32
        Screen coordinates of the vertices, px.
    depth : (V,) float32
        Distance of the vertices from the camera; smaller is nearer.
    triangles : (T, 3) int64
        Vertex indices.
    width, height : int
        Size of the picture, px.

    Returns
    -------
    Fragments
        In order of `pixel`; each pixel occurs at most once.
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    keep = np.flatnonzero(area < -1e-9)
    a, b, c, ab, ac, area = a[keep], b[keep], c[keep], ab[keep], ac[keep], area[keep]
    low = np.maximum(np.ceil(np.minimum(np.minimum(a, b), c)), 0)
    high = np.floor(np.maximum(np.maximum(a, b), c))
    high = np.minimum(high, f32([width - 1, height - 1]))
    size = (high - low + 1).astype(np.int32)
    touched = np.flatnonzero((size[:, 0] > 0) & (size[:, 1] > 0))
    keep = keep[touched]
    if not len(keep):
        empty = np.zeros(0, np.int64)
        nothing = np.zeros((0, 3), np.float32)
        return Fragments(empty, empty, nothing, np.zeros(0, np.float32))
    a, ab, ac, area = a[touched], ab[touched], ac[touched], area[touched]
    low, size = low[touched], size[touched]

    # Weights of corners b and c, and the depth, are affine in (x, y): relative to `low`, each
    # is value0 + slope_x * dx + slope_y * dy, so a candidate pixel needs two multiply-adds.
    inverse = 1.0 / area
    slopes_b = np.stack([ac[:, 1] * inverse, -ac[:, 0] * inverse], axis=1)
    slopes_c = np.stack([-ab[:, 1] * inverse, ab[:, 0] * inverse], axis=1)
    start = low - a
    base_b = (start * slopes_b).sum(axis=1)
    base_c = (start * slopes_c).sum(axis=1)

    count = size[:, 0] * size[:, 1]
    row = np.repeat(np.arange(len(keep), dtype=np.int32), count)
    first = np.cumsum(count) - count
    local = np.arange(len(row), dtype=np.int32) - first.astype(np.int32)[row]
    columns = size[:, 0][row]
    down = local // columns
    across = local - down * columns
    dx, dy = across.astype(np.float32), down.astype(np.float32)
    weight_b = base_b[row] + slopes_b[row, 0] * dx + slopes_b[row, 1] * dy
    weight_c = base_c[row] + slopes_c[row, 0] * dx + slopes_c[row, 1] * dy
    # A hair of tolerance closes the seams between neighbours that rounding would open.
    inside = np.flatnonzero(
        (weight_b >= -1e-5) & (weight_c >= -1e-5) & (weight_b + weight_c <= 1 + 1e-5)
    )
    row, across, down = row[inside], across[inside], down[inside]
    weight_b, weight_c = weight_b[inside], weight_c[inside]
    weights = np.stack([1 - weight_b - weight_c, weight_b, weight_c], axis=1).astype(np.float32)
    corner_depth = depth[triangles[keep]]
    z = np.einsum("pk,pk->p", weights, corner_depth[row]).astype(np.float32)
    corner = low.astype(np.int64)[row]
    pixel = (corner[:, 1] + down) * width + corner[:, 0] + across

    # Far to near; assignment keeps the last, so the nearest wins. 16 bits make it a radix sort.
    span = max(float(np.ptp(z)) if len(z) else 0.0, 1e-9)
    far_first = ((z.max(initial=0.0) - z) * (65535.0 / span)).astype(np.uint16)
    order = np.argsort(far_first, kind="stable")
    winner = np.full(width * height, -1, np.int64)
    winner[pixel[order]] = order
    seen = np.flatnonzero(winner >= 0)
    chosen = winner[seen]
    return Fragments(seen, keep[row[chosen]], weights[chosen], z[chosen])
