"""What the surfaces of a head are made of: colour and gloss of every visible point."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.synthetic.arrays import Floats, Image, f32
from feie.features.synthetic.fields import texture_pixels, tileable_noise
from feie.features.synthetic.ict import MeshPart
from feie.features.synthetic.person import Person

CURTAIN = 7  # a part beside those of the mesh: hair that falls beside and behind the face

# Linear albedo of what is not skin.
_PLAIN = np.zeros((8, 3), np.float32)
_PLAIN[MeshPart.SOCKET] = (0.10, 0.03, 0.03)
_PLAIN[MeshPart.GUMS] = (0.36, 0.10, 0.10)
_PLAIN[MeshPart.TEETH] = (0.62, 0.58, 0.50)
_PLAIN[MeshPart.EYE] = (0.46, 0.43, 0.41)
_GLOSS = np.array([1.0, 0.5, 0.3, 1.5, 2.0, 2.0, 0.0, 0.8], np.float32)


class Materials:
    """Colours visible points; holds the noise that all people share, each at an offset."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20)
        self._fine = tileable_noise(rng, slope=0.6)
        self._coarse = tileable_noise(rng, slope=1.6)

    def paint(
        self, person: Person, values: Floats, kind: NDArray[np.int64], texture: Image
    ) -> tuple[Floats, Floats]:
        """Colour the fragments of a picture.

        Parameters
        ----------
        person : Person
            Whose colours and fine pattern to use.
        values : (P, 9)
            Texture coordinates, then the columns of `Fields.stacked`.
        kind : (P,)
            `MeshPart` or `CURTAIN`.
        texture : (S, S, 3) uint8
            Coverage of brow hairs, red of the lips, depth of expression lines.

        Returns
        -------
        (P, 3), (P,)
            Linear albedo and gloss relative to skin.
        """
        blush, beard, orbit, hair, iris, azimuth, height = values[:, 2:9].T
        shift = np.random.default_rng([7, person.seed]).integers(0, 256, 4)
        size = self._fine.shape[0]

        def noise(bank: Floats, x: Floats, y: Floats) -> Floats:
            return f32(bank[y.astype(np.int64) % size, x.astype(np.int64) % size])

        around = azimuth * 9.0
        mottle = noise(self._coarse, around * 6 + shift[0], height * 6 + shift[1])
        pores = noise(self._fine, around * 14 + shift[2], height * 14 + shift[3])
        strand = noise(self._fine, around * 16 + mottle * 2, height * 5 + shift[1])

        face = kind == MeshPart.FACE
        pixels = texture_pixels(values[:, :2])
        drawn = _sample(texture, pixels).astype(np.float32) / 255
        drawn[~face] = 0
        brow, lips, wrinkle = (drawn[:, k : k + 1] for k in range(3))

        albedo = np.broadcast_to(person.skin, (len(kind), 3)).copy()
        red = f32([0.04, -0.16, -0.12]) * person.ruddiness
        albedo *= 1 + blush[:, None] * red
        albedo *= 1 - orbit[:, None] * f32([0.16, 0.22, 0.18])
        uneven = 0.045 * person.mottle * mottle + 0.03 * pores
        albedo *= 1 + uneven[:, None] * f32([0.8, 1.1, 1.0])
        albedo *= 1 - 0.55 * wrinkle
        albedo += lips * (person.lips * (1 + 0.05 * pores[:, None]) - albedo)
        stubble = beard * person.beard * np.clip(0.75 + 0.25 * pores + 0.1 * mottle, 0, 1)
        cover = stubble[:, None] * (1 - lips)
        albedo += cover * (person.hair * 0.9 - albedo) * 0.85
        # Brows of the white-haired stay greyer than their hair.
        brow_colour = person.hair * np.float32(min(0.8, 0.22 / float(person.hair.max())))
        albedo += brow * (brow_colour - albedo)

        skinned = face | (kind == MeshPart.HEAD)
        if person.hair_thickness > 0:
            softness = 0.35 + 0.2 * (person.seed % 6)
            ragged = np.clip((hair + 0.10 * strand + 0.22 * mottle) / softness, 0, 1)
        else:
            ragged = np.clip((hair + 0.5) / 2.0, 0, 1) * np.float32(0.35)
        ragged = np.where(kind == CURTAIN, np.float32(1), ragged * skinned)[:, None]
        locks = person.hair * (0.9 + 0.22 * strand[:, None]).clip(0.3, 1.5)
        albedo += ragged * (locks - albedo)

        plain = ~skinned & (kind != CURTAIN)
        albedo[plain] = _PLAIN[kind[plain]]
        eye = kind == MeshPart.EYE
        albedo[eye] = _eye_colour(iris[eye], person, pores[eye])
        gloss = _GLOSS[kind] * (1 + 1.2 * lips[:, 0]) * (1 - 0.6 * ragged[:, 0])
        return np.maximum(albedo, 0.003).astype(np.float32), gloss.astype(np.float32)


def _sample(texture: Image, pixels: Floats) -> Image:
    """Bilinear look-ups, (P, C), at texture pixels (P, 2)."""
    rows = -(-len(pixels) // 256)  # OpenCV's remap takes no line of 2^15 points
    grid = np.zeros((rows * 256, 2), np.float32)
    grid[: len(pixels)] = pixels
    lines = grid.reshape(rows, 256, 2)
    found = cv2.remap(texture, lines[..., 0], lines[..., 1], cv2.INTER_LINEAR)
    looked_up: Image = np.asarray(found, np.uint8).reshape(rows * 256, -1)[: len(pixels)]
    return looked_up


def _eye_colour(angle: Floats, person: Person, noise: Floats) -> Floats:
    """Albedo (P, 3) of the eyeball by the angle from its axis: pupil, iris, limbus, sclera."""
    white = np.broadcast_to(_PLAIN[MeshPart.EYE], (len(angle), 3)).copy()
    white *= 1 - np.clip(angle[:, None] - 0.7, 0, 1) * f32([0.25, 0.5, 0.5])
    disc = np.clip((0.50 - angle) / 0.05, 0, 1)[:, None]
    rim = 1 - 0.6 * np.clip((angle - 0.36) / 0.12, 0, 1)[:, None]
    iris = person.iris * rim * (1 + 0.15 * noise[:, None])
    pupil = np.clip((0.19 - angle) / 0.04, 0, 1)[:, None]
    iris = iris + pupil * (np.float32(0.004) - iris)
    blend: Floats = (white + disc * (iris - white)).astype(np.float32)
    return blend
