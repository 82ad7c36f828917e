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
    texture_pixels,
    tileable_noise,
)
from feie.features.synthetic.ict import FaceMesh, Part, normals_operator, vertex_normals
from feie.features.synthetic.light import Lighting
from feie.features.synthetic.linework import brow_map, glasses_lines, wrinkle_map
from feie.features.synthetic.person import Person
from feie.features.synthetic.raster import Fragments, rasterise

CURTAIN = 7  # a part beside those of the mesh: hair that falls beside and behind the face
_AZIMUTH, _STOREYS = 25, 12
SKIN_WRAP = f32([0.35, 0.15, 0.10])

# Linear albedo of what is not skin.
_PLAIN = np.zeros((8, 3), np.float32)
_PLAIN[Part.SOCKET] = (0.10, 0.03, 0.03)
_PLAIN[Part.GUMS] = (0.36, 0.10, 0.10)
_PLAIN[Part.TEETH] = (0.62, 0.58, 0.50)
_PLAIN[Part.EYE] = (0.62, 0.58, 0.56)
_GLOSS = np.array([1.0, 0.5, 0.3, 1.5, 2.0, 2.0, 0.0, 0.8], np.float32)


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
    gaze : (float, float)
        Eyes to the right of the picture and up, degrees, relative to the head.
    exposure : float
        Gain before the picture is clipped.
    """

    pose: Pose
    camera: Camera
    lighting: Lighting
    gaze: tuple[float, float] = (0.0, 0.0)
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
        rng = np.random.default_rng(20)
        self._fine = tileable_noise(rng, slope=0.6)
        self._coarse = tileable_noise(rng, slope=1.6)
        lashes = mesh.part == Part.LASHES
        self._lashes = np.concatenate([mesh.triangles[lashes], mesh.triangles[lashes][:, ::-1]])
        self._triangles = mesh.triangles[~lashes]
        self._operator = normals_operator(self._triangles, len(mesh.neutral))
        first = len(mesh.neutral)
        grid = first + np.arange(_AZIMUTH * _STOREYS).reshape(_STOREYS, _AZIMUTH)
        a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
        sheet = np.stack([np.stack([a, d, c], -1), np.stack([a, c, b], -1)]).reshape(-1, 3)
        self._curtain = np.concatenate([sheet, sheet[:, ::-1]])
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
        """Posed vertices relative to the pivot of the head, (V, 3) cm."""
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
        weights: Mapping[str, float],
        units: NDArray[np.floating],
        view: View,
        background: Image,
    ) -> Image:
        """Render one picture.

        Parameters
        ----------
        look : Look
            The person, from `look`.
        weights : dict of str to float
            Expression weights by delta name.
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
        vertices = self.vertices(look, weights, view.pose, view.gaze)
        normals = vertex_normals(vertices, self._triangles, self._operator)
        triangles, part = self._triangles, self._part
        columns = look.fields
        uv = self.mesh.uv
        if look.person.hair_length >= 0:
            curtain, outward, strands = _curtain(look.person, view.pose)
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
        albedo, gloss = self._materials(look.person, values, kind, texture)

        normal = values[:, :3] / np.maximum(
            np.linalg.norm(values[:, :3], axis=1, keepdims=True), 1e-6
        )
        wrap = SKIN_WRAP
        diffuse, specular = view.lighting.shade(normal, gloss * view.lighting.gloss, wrap)
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

    def _materials(
        self, person: Person, values: Floats, kind: NDArray[np.int64], texture: Image
    ) -> tuple[Floats, Floats]:
        """Linear albedo (P, 3) and relative gloss (P,) of the fragments."""
        blush, beard, orbit, hair, iris, azimuth, height = values[:, 5:12].T
        shift = np.random.default_rng([7, person.seed]).integers(0, 256, 4)
        size = self._fine.shape[0]

        def noise(bank: Floats, x: Floats, y: Floats) -> Floats:
            return f32(bank[y.astype(np.int64) % size, x.astype(np.int64) % size])

        around = azimuth * 9.0
        mottle = noise(self._coarse, around * 6 + shift[0], height * 6 + shift[1])
        pores = noise(self._fine, around * 14 + shift[2], height * 14 + shift[3])
        strand = noise(self._fine, around * 16 + mottle * 2, height * 5 + shift[1])

        face = kind == Part.FACE
        pixels = texture_pixels(values[:, 3:5])
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
        albedo += brow * (person.hair * 0.8 - albedo)

        skinned = face | (kind == Part.HEAD)
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
        eye = kind == Part.EYE
        albedo[eye] = _eye_colour(iris[eye], person, pores[eye])
        gloss = _GLOSS[kind] * (1 + 1.2 * lips[:, 0]) * (1 - 0.6 * ragged[:, 0])
        return np.maximum(albedo, 0.003).astype(np.float32), gloss.astype(np.float32)

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
    white = np.broadcast_to(_PLAIN[Part.EYE], (len(angle), 3)).copy()
    white *= 1 - np.clip(angle[:, None] - 0.7, 0, 1) * f32([0.25, 0.5, 0.5])
    disc = np.clip((0.50 - angle) / 0.05, 0, 1)[:, None]
    rim = 1 - 0.6 * np.clip((angle - 0.36) / 0.12, 0, 1)[:, None]
    iris = person.iris * rim * (1 + 0.15 * noise[:, None])
    pupil = np.clip((0.19 - angle) / 0.04, 0, 1)[:, None]
    iris = iris + pupil * (np.float32(0.004) - iris)
    blend: Floats = (white + disc * (iris - white)).astype(np.float32)
    return blend


def _openness(seen: Fragments, width: int, height: int, scale: float) -> Floats:
    """Ambient light (P,) in [0.35, 1]: less where the surroundings stand nearer to the camera."""
    field_ = np.zeros((height, width), np.float32)
    cover = np.zeros((height, width), np.float32)
    field_.reshape(-1)[seen.pixel] = seen.depth
    cover.reshape(-1)[seen.pixel] = 1
    light = np.ones(len(seen.pixel), np.float32)
    for radius, strength in ((0.35, 0.9), (1.2, 0.30)):
        sigma = max(radius * scale, 0.8)
        mean = cv2.GaussianBlur(field_, (0, 0), sigma) / np.maximum(
            cv2.GaussianBlur(cover, (0, 0), sigma), 1e-3
        )
        hollow = np.clip(seen.depth - mean.reshape(-1)[seen.pixel] - 0.05, 0, 1.2)
        light *= 1 - np.minimum(strength * hollow, 0.6)
    return np.maximum(light, 0.25)


def _curtain(person: Person, pose: Pose) -> tuple[Floats, Floats, Floats]:
    """Long hair: posed points (N, 3), outward normals (N, 3) and strand fields (N, 7)."""
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
