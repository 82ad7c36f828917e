"""Where things are on the head: smooth fields over its vertices and line work in its texture.

All positions are those of the mean neutral head in cm (x to the subject's left, y up, z out);
they follow identity and expression because the fields are carried by the vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from feie.features.synthetic.arrays import Floats, f32
from feie.features.synthetic.ict import FaceMesh, MeshPart

TEXTURE_SIZE = 512
CROWN = np.array([0.0, 4.0, 1.0], np.float32)
"""Hair stands away from this point inside the head."""


@dataclass(frozen=True)
class Fields:
    """Per-vertex fields, each (V,) float32.

    Attributes
    ----------
    blush : cheeks and nose, where blood shows, in [0, 1].
    beard : where a beard grows, in [0, 1].
    orbit : the darker skin round the eyes, in [0, 1].
    hair : distance, cm, above the hairline; negative is bare skin.
    iris : angle, radians, from the axis of the eyeball; 9 outside the eyes.
    azimuth, height : cylindrical coordinates of the neutral head, for strands.
    """

    blush: Floats
    beard: Floats
    orbit: Floats
    hair: Floats
    iris: Floats
    azimuth: Floats
    height: Floats

    def stacked(self) -> Floats:
        """All fields as columns, (V, 7), in the order above."""
        columns = (self.blush, self.beard, self.orbit, self.hair, self.iris)
        return np.stack([*columns, self.azimuth, self.height], axis=1)


def _bump(points: Floats, x: float, y: float, width: float, height: float) -> Floats:
    """Gaussian bumps at (x, y) and (-x, y), as seen from the front, at most 1."""
    dx = (np.abs(points[:, 0]) - x) / width
    dy = (points[:, 1] - y) / height
    bump: Floats = np.exp(-0.5 * (dx * dx + dy * dy)).astype(np.float32)
    return bump


def _smoothstep(value: Floats, low: float, high: float) -> Floats:
    t = np.clip((value - low) / (high - low), 0, 1)
    step: Floats = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def make_fields(mesh: FaceMesh) -> Fields:
    """Compute the fields of a head once."""
    p = mesh.neutral
    x, y, z = p.T
    face = np.zeros(len(p), bool)
    face[np.unique(mesh.triangles[mesh.part == MeshPart.FACE])] = True
    skin = face.copy()
    skin[np.unique(mesh.triangles[mesh.part == MeshPart.HEAD])] = True
    front = _smoothstep(z, 2.0, 6.0)

    blush = (_bump(p, 4.6, 0.2, 1.7, 1.5) + 0.8 * _bump(p, 0.0, 0.4, 1.1, 1.0)) * front
    orbit = np.maximum(_bump(p, 3.3, 2.6, 1.5, 0.8), 0.8 * _bump(p, 2.6, 4.2, 1.5, 0.7)) * front

    # A beard covers jaw, chin and upper lip; it leaves the cheeks above a line that rises to the
    # ear, a strip under the nose and the soft corner beside the chin.
    line = -3.4 + 0.10 * np.maximum(np.abs(x) - 3, 0) ** 1.6
    jaw = _smoothstep(line - y, -0.7, 0.8) * _smoothstep(y + 0.25 * (9 - z), -9.2, -7.6)
    moustache = _bump(p, 1.2, -1.9, 1.3, 0.42) * front * 1.3
    beard = np.clip(np.maximum(jaw, moustache), 0, 1) * _smoothstep(z, -2.5, 0.5)

    # The hairline runs from the forehead over the temples to the sideburns and the neck.
    way = np.array([[-9.5, -9.0], [-3.2, -5.0], [-1.2, 2.0], [1.2, 1.6], [3.2, 3.0],
                    [5.2, 6.5], [7.0, 9.0], [9.0, 9.8], [14.0, 10.2]])  # fmt: skip
    hair = f32(y - np.interp(z, way[:, 0], way[:, 1]))
    ear = (mesh.uv[:, 0] < 0.10) | (mesh.uv[:, 0] > 0.90)
    ear &= (mesh.uv[:, 1] > 0.43) & (mesh.uv[:, 1] < 0.70) & face
    hair[ear | ~skin] = -9.0

    iris = np.full(len(p), 9.0, np.float32)
    for eye in mesh.eyes:
        offset = p[eye] - p[eye].mean(axis=0)
        iris[eye] = np.arctan2(np.hypot(offset[:, 0], offset[:, 1]), offset[:, 2])
    azimuth = np.arctan2(x, z + 0.5).astype(np.float32)
    none = np.where(skin, np.float32(1), np.float32(0))
    return Fields(
        (blush * none).astype(np.float32),
        (beard * none).astype(np.float32),
        (orbit * none).astype(np.float32),
        hair,
        iris,
        azimuth,
        y.astype(np.float32),
    )


class TextureMap:
    """Finds texture pixels of points given on the front of the mean neutral face."""

    def __init__(self, mesh: FaceMesh) -> None:
        face = np.unique(mesh.triangles[mesh.part == MeshPart.FACE])
        face = face[mesh.neutral[face, 2] > 3.0]
        self._tree = cKDTree(mesh.neutral[face, :2])
        self._uv = mesh.uv[face]

    def pixels(self, xy: NDArray[np.floating]) -> Floats:
        """Texture pixels (N, 2), y down, of front-view points (N, 2) in cm."""
        distance, index = self._tree.query(xy, k=4)
        weight = 1 / (np.asarray(distance) + 1e-3) ** 2
        uv = (self._uv[index] * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1)[:, None]
        return texture_pixels(f32(uv))


def texture_pixels(uv: Floats) -> Floats:
    """Texture coordinates (N, 2), v up, to texture pixels (N, 2), y down."""
    return (np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * (TEXTURE_SIZE - 1)).astype(np.float32)


# The border of the red of the lips in texture coordinates, right half, from the top of the
# bow over the corner to the middle of the lower lip; the left half mirrors it.
LIP_BORDER = np.array(
    [[0.500, 0.506], [0.513, 0.512], [0.535, 0.506], [0.562, 0.491], [0.588, 0.470],
     [0.608, 0.447], [0.597, 0.422], [0.572, 0.395], [0.545, 0.374], [0.520, 0.359],
     [0.500, 0.353]], np.float32)  # fmt: skip


def lip_mask() -> Floats:
    """Red of the lips in the texture, (S, S) float32 in [0, 1]."""
    left = LIP_BORDER[::-1] * f32([-1, 1]) + f32([1, 0])
    outline = texture_pixels(np.concatenate([LIP_BORDER, left]))
    mask = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return f32(cv2.GaussianBlur(mask, (0, 0), 2.2)) / np.float32(255)


def tileable_noise(rng: np.random.Generator, size: int = 256, slope: float = 1.0) -> Floats:
    """Periodic noise, (size, size), zero mean, unit variance, amplitude ~ 1 / frequency^slope."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(size, size))
    scaled: Floats = (noise / noise.std()).astype(np.float32)
    return scaled
