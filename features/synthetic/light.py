"""Lighting: a key light, a coloured fill, and an ambient sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feie.features.synthetic.arrays import Floats, f32

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """A distant light.

    Attributes
    ----------
    direction : (3,) floats
        Towards the light, camera coordinates (x right, y up, z to the camera); any length.
    colour : (3,) floats
        Linear RGB power.
    """

    direction: tuple[float, float, float]
    colour: Colour


@dataclass(frozen=True)
class Lighting:
    """Lights and ambience of a scene, linear RGB.

    Attributes
    ----------
    lights : tuple of Light
        Distant lights.
    sky, ground : (3,) floats
        Ambient colour from above and from below.
    gloss : float
        Strength of the highlights of the skin; some 0.02 is dry, 0.2 sweaty.
    """

    lights: tuple[Light, ...]
    sky: Colour
    ground: Colour
    gloss: float = 0.08

    def shade(self, normals: Floats, gloss: Floats, wrap: Floats) -> tuple[Floats, Floats]:
        """Diffuse and specular light at points with unit normals (P, 3).

        Parameters
        ----------
        normals : (P, 3)
            Unit normals in camera coordinates.
        gloss : (P,)
            Specular strength of the material.
        wrap : (3,)
            Per colour, how far light creeps past the terminator: red creeps furthest in skin.

        Returns
        -------
        (P, 3), (P, 3)
            Diffuse irradiance (to be multiplied by albedo) and specular radiance (to be added).
        """
        up = (0.5 + 0.5 * normals[:, 1:2]).astype(np.float32)
        diffuse = up * f32(self.sky) + (1 - up) * f32(self.ground)
        specular = np.zeros_like(diffuse)
        for light in self.lights:
            towards = f32(light.direction)
            towards /= np.float32(np.linalg.norm(towards))
            cosine = (normals @ towards)[:, None]
            diffuse += np.maximum((cosine + wrap) / (1 + wrap), 0) * f32(light.colour)
            half = towards + f32([0, 0, 1])
            half /= np.float32(np.linalg.norm(half))
            shine = np.maximum(normals @ half, 0)
            shine *= shine
            shine *= shine
            shine *= shine
            shine *= shine  # the sixteenth power
            specular += (shine * gloss)[:, None] * f32(light.colour)
        return diffuse, specular
