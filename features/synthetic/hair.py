"""Long hair: a sheet that hangs from the crown, open towards the face."""

from __future__ import annotations

import numpy as np

from feie.features.synthetic.arrays import Floats, Ints, f32
from feie.features.synthetic.camera import PIVOT, Pose
from feie.features.synthetic.person import Person

_AZIMUTH, _STOREYS = 25, 12


def long_hair_triangles(first: int) -> Ints:
    """Triangles (T, 3) of the sheet, both sides of it, for vertices numbered from `first`."""
    grid = first + np.arange(_AZIMUTH * _STOREYS).reshape(_STOREYS, _AZIMUTH)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    sheet = np.stack([np.stack([a, d, c], -1), np.stack([a, c, b], -1)]).reshape(-1, 3)
    return np.concatenate([sheet, sheet[:, ::-1]])


def long_hair(person: Person, pose: Pose) -> tuple[Floats, Floats, Floats]:
    """Hang a sheet of hair beside and behind the face.

    Returns
    -------
    (N, 3), (N, 3), (N, 7)
        Posed points relative to the pivot of the head, cm; outward unit normals; and the fields
        of `Fields.stacked` that colour them.
    """
    turn = np.linspace(-np.pi + 1.05, np.pi - 1.05, _AZIMUTH, dtype=np.float32) + np.float32(np.pi)
    top, bottom = 10.0, 3.0 - person.hair_length
    y = np.linspace(top, bottom, _STOREYS, dtype=np.float32)[:, None]
    dome = np.sqrt(np.clip(1 - ((y - 4.0) / 9.5) ** 2, 0.05, 1)) * (y > 4) + (y <= 4)
    # Waves keep the lower edge and the sides from looking cut.
    radius = (8.9 + person.hair_thickness) * dome + 0.25 * np.sin(turn * 7 + y * 0.6)
    sag = 0.5 * np.sin(turn * 11 + person.seed)
    x = radius * np.sin(turn)
    z = radius * 1.1 * np.cos(turn) - 0.5
    yy = np.broadcast_to(y, x.shape) + sag * (y < bottom + 2)
    points = np.stack([x, yy, z], axis=-1).reshape(-1, 3).astype(np.float32)
    outward = np.stack([np.sin(turn) + 0 * y, 0.2 + 0 * x, np.cos(turn) + 0 * y], axis=-1)
    outward = outward.reshape(-1, 3).astype(np.float32)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    strands = np.zeros((len(points), 7), np.float32)
    strands[:, 3], strands[:, 4] = 9.0, 9.0
    strands[:, 5] = np.broadcast_to(turn, x.shape).reshape(-1)
    strands[:, 6] = yy.reshape(-1)
    rotation = pose.rotation().T
    return f32((points - PIVOT) @ rotation), f32(outward @ rotation), strands
