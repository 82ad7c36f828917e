"""A z-buffer in plain NumPy for meshes of many small triangles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feie.features.synthetic.arrays import Floats


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

    Pixel centres have integer coordinates, y points down. Triangles that turn their back (those
    whose corners run counter-clockwise on the screen with y down) are dropped. Interpolation is
    affine: on triangles of a few pixels perspective correction changes nothing visible.

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
        Sorted by nothing in particular; each pixel occurs at most once.
    """
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    low = np.ceil(np.minimum(np.minimum(a, b), c))
    high = np.floor(np.maximum(np.maximum(a, b), c))
    low = np.maximum(low, 0).astype(np.int32)
    high = np.minimum(high, [width - 1, height - 1]).astype(np.int32)
    size = high - low + 1
    keep = np.flatnonzero((area < -1e-9) & (size > 0).all(axis=1))
    if not len(keep):
        empty = np.zeros(0, np.int64)
        nothing = np.zeros((0, 3), np.float32)
        return Fragments(empty, empty, nothing, np.zeros(0, np.float32))
    a, b, c, low, size, area = a[keep], b[keep], c[keep], low[keep], size[keep], area[keep]

    # Weights of corners b and c, and the depth, are affine in (x, y): relative to `low`, each
    # is value0 + slope_x * dx + slope_y * dy, so a candidate pixel needs two multiply-adds.
    inverse = 1.0 / area
    slopes_b = np.stack([(c[:, 1] - a[:, 1]) * inverse, -(c[:, 0] - a[:, 0]) * inverse], axis=1)
    slopes_c = np.stack([-(b[:, 1] - a[:, 1]) * inverse, (b[:, 0] - a[:, 0]) * inverse], axis=1)
    start = low - a
    base_b = (start * slopes_b).sum(axis=1)
    base_c = (start * slopes_c).sum(axis=1)

    count = size[:, 0] * size[:, 1]
    row = np.repeat(np.arange(len(keep), dtype=np.int32), count)
    first = np.cumsum(count) - count
    local = np.arange(len(row), dtype=np.int32) - first.astype(np.int32)[row]
    columns = size[:, 0].astype(np.int32)[row]
    dy = local // columns
    dx = local - dy * columns
    weight_b = base_b[row] + slopes_b[row, 0] * dx + slopes_b[row, 1] * dy
    weight_c = base_c[row] + slopes_c[row, 0] * dx + slopes_c[row, 1] * dy
    # A hair of tolerance closes the seams between neighbours that rounding would open.
    inside = np.flatnonzero(
        (weight_b >= -1e-5) & (weight_c >= -1e-5) & (weight_b + weight_c <= 1 + 1e-5)
    )
    row, dx, dy = row[inside], dx[inside], dy[inside]
    weight_b, weight_c = weight_b[inside], weight_c[inside]
    weights = np.stack([1 - weight_b - weight_c, weight_b, weight_c], axis=1).astype(np.float32)
    corner_depth = depth[triangles[keep]]
    z = np.einsum("pk,pk->p", weights, corner_depth[row]).astype(np.float32)
    pixel = (low[row, 1] + dy).astype(np.int64) * width + low[row, 0] + dx

    # Far to near; assignment keeps the last, so the nearest wins. 16 bits make it a radix sort.
    span = max(float(np.ptp(z)) if len(z) else 0.0, 1e-9)
    far_first = ((z.max(initial=0.0) - z) * (65535.0 / span)).astype(np.uint16)
    order = np.argsort(far_first, kind="stable")
    winner = np.full(width * height, -1, np.int64)
    winner[pixel[order]] = order
    seen = np.flatnonzero(winner >= 0)
    chosen = winner[seen]
    return Fragments(seen, keep[row[chosen]], weights[chosen], z[chosen])
