"""Draws a person with an expression: geometry, materials, light and background in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.synthetic.arrays import Floats, Image, f32
from feie.features.synthetic.camera import PIVOT, Camera, Pose
from feie.features.synthetic.fields import (
    CROWN,
    TextureMap,
    lip_mask,
    make_fields,
)
from feie.features.synthetic.hair import long_hair, long_hair_triangles
from feie.features.synthetic.ict import FaceMesh, MeshPart, normals_operator, vertex_normals
from feie.features.synthetic.light import Lighting
from feie.features.synthetic.linework import brow_map, glasses_lines, wrinkle_map
from feie.features.synthetic.materials import CURTAIN, Materials
from feie.features.synthetic.person import Person
from feie.features.synthetic.raster import Fragments, rasterise

SKIN_WRAP = f32([0.35, 0.15, 0.10])


@dataclass(frozen=True)
class View:
    """How a person is seen at one instant.

    Attributes
    ----------
    pose : Pose
        Attitude of the head.
    camera : Camera
        Perspective and framing.
    lighting : Lighting
        Lights of the scene.
    exposure : float
        Gain before the picture is clipped.
    """

    pose: Pose
    camera: Camera
    lighting: Lighting
    exposure: float = 1.0


@dataclass(frozen=True)
class Look:
    """A person prepared for drawing: everything that no expression changes."""

    person: Person
    neutral: Floats
    push: Floats
    texture: Image
    fields: Floats = field(repr=False)


class FaceRenderer:
    """Renders people from a face mesh; build it once, it holds no state between pictures."""

    def __init__(self, mesh: FaceMesh) -> None:
        self.mesh = mesh
        self._fields = make_fields(mesh)
        self._columns = self._fields.stacked()
        self._texture_map = TextureMap(mesh)
        self._lips = (lip_mask() * 255).astype(np.uint8)
        away = mesh.neutral - CROWN
        self._away = f32(away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-6))
        self._materials = Materials()
        lashes = mesh.part == MeshPart.LASHES
        self._lashes = np.concatenate([mesh.triangles[lashes], mesh.triangles[lashes][:, ::-1]])
        self._triangles = mesh.triangles[~lashes]
        self._operator = normals_operator(self._triangles, len(mesh.neutral))
        self._curtain = long_hair_triangles(len(mesh.neutral))
        self._all = np.concatenate([self._triangles, self._curtain])
        self._part = np.concatenate(
            [mesh.part[~lashes], np.full(len(self._curtain), CURTAIN, np.int64)]
        )

    def look(self, person: Person) -> Look:
        """Prepare a person: shape, hair and the drawn texture."""
        neutral = self.mesh.person(person.identity)
        fields = self._columns.copy()
        height = fields[:, 3] - np.float32(person.hairline)
        # A fringe lowers the hairline on the forehead only, more on one side; a widow's peak
        # lowers its middle.
        chance = np.random.default_rng([13, person.seed])
        x = self.mesh.neutral[:, 0]
        forehead = np.clip((self.mesh.neutral[:, 2] - 6.0) / 3.0, 0, 1)
        fringe = person.fringe * np.clip(1 + chance.uniform(-1.2, 1.2) * x / 6, 0, 2)
        fringe += chance.uniform(-0.5, 0.9) * np.exp(-((x / 1.8) ** 2))
        height += np.where(self._columns[:, 3] > -8, forehead * fringe, 0).astype(np.float32)
        fields[:, 3] = height
        rise = np.clip(height / 1.2, 0, 1)
        push = self._away * (rise * np.float32(person.hair_thickness))[:, None]
        brows = brow_map(person, self._texture_map)
        texture = np.stack([brows, self._lips, np.zeros_like(brows)], axis=2)
        return Look(person, neutral, push.astype(np.float32), texture, fields)

    def vertices(
        self, look: Look, weights: Mapping[str, float], pose: Pose, gaze: tuple[float, float]
    ) -> Floats:
        """Shape and pose a head.

        Parameters
        ----------
        look : Look
            The person.
        weights : dict of str to float
            Expression weights by delta name.
        pose : Pose
            Attitude of the head.
        gaze : (float, float)
            Eyes to the right of the picture and up, degrees, relative to the head.

        Returns
        -------
        (V, 3) float32
            Relative to the pivot of the head, cm.
        """
        shaped = self.mesh.shape(look.neutral, weights)
        turn = Pose(yaw=gaze[0], pitch=gaze[1]).rotation()
        for eye in self.mesh.eyes:
            centre = look.neutral[eye].mean(axis=0)
            shaped[eye] = (shaped[eye] - centre) @ turn.T + centre
        return f32((shaped + look.push - PIVOT) @ pose.rotation().T)

    def landmarks(self, vertices: Floats, camera: Camera) -> Floats:
        """Project the five landmarks, (5, 2) px, of posed vertices, visible or not."""
        return camera.project(self.mesh.landmark_points(vertices))[0]

    def draw(
        self,
        look: Look,
        vertices: Floats,
        units: NDArray[np.floating],
        view: View,
        background: Image,
    ) -> Image:
        """Render one picture.

        Parameters
        ----------
        look : Look
            The person, from `look`.
        vertices : (V, 3)
            The posed head with its expression, from `vertices`, in the pose of the view.
        units : (17,)
            Action-unit activations, which deepen the expression lines of the skin.
        view : View
            Pose, camera and light.
        background : (h, w, 3) uint8
            RGB picture behind the head; its size is the size of the result.

        Returns
        -------
        (h, w, 3) uint8
            RGB.
        """
        height, width = background.shape[:2]
        normals = vertex_normals(vertices, self._triangles, self._operator)
        triangles, part = self._triangles, self._part
        columns = look.fields
        uv = self.mesh.uv
        if look.person.hair_length >= 0:
            curtain, outward, strands = long_hair(look.person, view.pose)
            vertices = np.concatenate([vertices, curtain])
            normals = np.concatenate([normals, outward])
            columns = np.concatenate([columns, strands])
            uv = np.concatenate([uv, np.zeros((len(curtain), 2), np.float32)])
            triangles = self._all
        points, depth = view.camera.project(vertices)
        seen = rasterise(points, depth, triangles, width, height)
        values = seen.interpolate(np.concatenate([normals, uv, columns], axis=1), triangles)
        kind = part[seen.triangle]
        texture = look.texture.copy()
        texture[:, :, 2] = wrinkle_map(look.person, units, self._texture_map)
        albedo, gloss = self._materials.paint(look.person, values[:, 3:], kind, texture)

        normal = values[:, :3] / np.maximum(
            np.linalg.norm(values[:, :3], axis=1, keepdims=True), 1e-6
        )
        shine = gloss * view.lighting.gloss
        diffuse, specular = view.lighting.shade(normal, shine, SKIN_WRAP)
        light = _openness(seen, width, height, view.camera.scale)[:, None]
        radiance = (albedo * diffuse + specular) * light * np.float32(view.exposure)
        colour = (np.clip(radiance, 0, 1) ** np.float32(1 / 2.2)) * 255

        canvas = background.astype(np.float32)
        canvas.reshape(-1, 3)[seen.pixel] = colour
        self._draw_lashes(canvas, look.person, points, depth, seen)
        picture: Image = canvas.astype(np.uint8)
        if look.person.glasses:
            glasses_lines(picture, look.person, look.neutral, self.mesh, view.pose, view.camera)
        return picture

    def _draw_lashes(
        self, canvas: Floats, person: Person, points: Floats, depth: Floats, seen: Fragments
    ) -> None:
        """Blend the lashes, a thin dark veil, over what they do not hide behind."""
        height, width = canvas.shape[:2]
        lash = rasterise(points, depth, self._lashes, width, height)
        behind = np.full(width * height, np.inf, np.float32)
        behind[seen.pixel] = seen.depth
        visible = lash.pixel[lash.depth < behind[lash.pixel] + 0.05]
        flat = canvas.reshape(-1, 3)
        flat[visible] *= np.float32(1 - 0.35 * person.lashes)


def _openness(seen: Fragments, width: int, height: int, scale: float) -> Floats:
    """Ambient light (P,) in [0.25, 1]: less where the surroundings stand nearer to the camera."""
    relief = np.zeros((height, width, 2), np.float32)  # depth, and whether anything is there
    flat = relief.reshape(-1, 2)
    flat[seen.pixel, 0] = seen.depth
    flat[seen.pixel, 1] = 1
    light = np.ones(len(seen.pixel), np.float32)
    # Radius in cm, strength per cm, and how far the picture is shrunk before it is blurred.
    for radius, strength, shrink in ((0.35, 0.9, 1), (1.2, 0.30, 4)):
        sigma = max(radius * scale, 0.8)
        blurred = relief
        if shrink > 1:
            size = (-(-width // shrink), -(-height // shrink))
            blurred = f32(cv2.resize(relief, size, interpolation=cv2.INTER_AREA))
        blurred = f32(cv2.GaussianBlur(blurred, (0, 0), sigma / shrink))
        if shrink > 1:
            blurred = f32(cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR))
        around = blurred.reshape(-1, 2)[seen.pixel]
        hollow = seen.depth - around[:, 0] / np.maximum(around[:, 1], 1e-3) - np.float32(0.05)
        light *= 1 - np.minimum(strength * np.clip(hollow, 0, 1.2), 0.6)
    return np.maximum(light, np.float32(0.25))
