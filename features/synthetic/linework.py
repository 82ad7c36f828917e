"""What is drawn with lines: brow hairs, expression lines of the skin, frames of glasses."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.schema import ACTION_UNITS
from feie.features.synthetic.arrays import Floats, Image, f32
from feie.features.synthetic.camera import PIVOT, Camera, Pose
from feie.features.synthetic.fields import TEXTURE_SIZE, TextureMap
from feie.features.synthetic.ict import FaceMesh
from feie.features.synthetic.person import Person

# Spine of the subject's left brow on the mean neutral face, cm, from the nose outwards.
BROW_SPINE = np.array([[1.15, 5.10], [2.2, 5.45], [3.4, 5.75], [4.5, 5.65], [5.6, 5.05]])
# Expression lines of the subject's left half: unit -> polylines, cm; mirrored for the right.
LINES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "AU01": (((0.0, 7.3), (1.2, 7.35), (2.4, 7.2)), ((0.0, 8.3), (1.4, 8.35), (2.6, 8.1))),
    "AU02": (((2.2, 7.3), (3.6, 7.2), (4.8, 6.8)), ((2.4, 8.2), (3.8, 8.1), (5.0, 7.6))),
    "AU04": (((0.55, 4.6), (0.65, 5.3), (0.5, 6.0)),),
    "AU06": (((5.3, 3.3), (6.2, 3.6)), ((5.3, 2.9), (6.3, 2.7)), ((5.0, 2.5), (5.9, 1.9))),
    "AU07": (((2.0, 3.35), (3.2, 3.0), (4.6, 3.3)),),
    "AU09": (((0.0, 3.5), (0.8, 3.3), (1.3, 2.8)), ((0.0, 3.0), (0.9, 2.7))),
    "AU10": (((1.7, -0.2), (2.4, -1.0), (2.9, -2.0)),),
    "AU12": (((1.8, -0.3), (2.7, -1.2), (3.2, -2.4), (3.3, -3.2)),),
    "AU15": (((2.6, -3.9), (2.9, -4.8)),),
    "AU17": (((0.0, -5.3), (0.9, -5.4), (1.6, -5.8)), ((0.3, -6.3), (1.1, -6.4))),
    "AU20": (((3.1, -2.6), (3.5, -3.3), (3.5, -4.1)),),
    "AU23": (((0.5, -1.7), (0.5, -2.3)), ((1.1, -1.8), (1.1, -2.3))),
    "AU24": (((2.7, -3.0), (3.1, -3.4)), ((0.0, -4.9), (1.2, -4.8), (2.0, -4.4))),
}
_MIRROR = np.array([-1.0, 1.0])
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.asarray(np.round(points * 2**_SHIFT), np.int32)


def brow_map(person: Person, where: TextureMap) -> Image:
    """Coverage of brow hairs in the texture, (S, S) uint8."""
    rng = np.random.default_rng([11, person.seed])
    count = 170
    along = rng.uniform(0, 1, count) ** 0.9
    t = along * (len(BROW_SPINE) - 1)
    knot = np.minimum(t.astype(int), len(BROW_SPINE) - 2)
    rest = (t - knot)[:, None]
    root = BROW_SPINE[knot] * (1 - rest) + BROW_SPINE[knot + 1] * rest
    taper = np.interp(along, [0, 0.15, 0.6, 1], [0.75, 1.0, 0.85, 0.25])
    root[:, 1] += person.brow_lift + rng.uniform(-0.5, 0.5, count) * person.brow_height * taper
    angle = np.interp(along, [0, 0.3, 0.7, 1], [1.25, 0.6, 0.15, -0.35])
    angle = angle + rng.normal(0, 0.15, count)
    length = person.brow_height * rng.uniform(0.5, 0.9, count)
    tip = root + np.stack([np.cos(angle), np.sin(angle)], axis=1) * length[:, None]
    root[:, 1] -= 0.15 * person.brow_height

    image = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    upper, lower = BROW_SPINE.copy(), BROW_SPINE[::-1].copy()
    upper[:, 1] += person.brow_lift + 0.35 * person.brow_height
    lower[:, 1] += person.brow_lift - 0.35 * person.brow_height
    outline = np.concatenate([upper, lower])
    for mirror in (np.ones(2), _MIRROR):
        ground = _fixed(where.pixels(outline * mirror))
        cv2.fillPoly(image, [ground], 150 * min(person.brow_density, 1.0), cv2.LINE_AA, _SHIFT)
    ground_map = cv2.GaussianBlur(image, (0, 0), 2.0)
    strokes = np.zeros_like(image)
    for mirror in (np.ones(2), _MIRROR):
        a, b = _fixed(where.pixels(root * mirror)), _fixed(where.pixels(tip * mirror))
        for p, q in zip(a, b, strict=True):
            cv2.line(strokes, p.tolist(), q.tolist(), 255, 1, cv2.LINE_AA, _SHIFT)
    fine = cv2.GaussianBlur(strokes, (0, 0), 0.7).astype(np.float32)
    both = ground_map + fine * np.float32(0.75 * person.brow_density)
    return np.clip(both, 0, 235).astype(np.uint8)


def wrinkle_map(person: Person, units: NDArray[np.floating], where: TextureMap) -> Image:
    """Depth of expression lines in the texture, (S, S) uint8, at unit activations (17,)."""
    image = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
    if person.wrinkles <= 0:
        return image
    for unit, lines in LINES.items():
        value = float(np.nan_to_num(units[ACTION_UNITS.index(unit)]))
        ink = 220 * person.wrinkles * value
        if ink < 8:
            continue
        for line in lines:
            for mirror in (np.ones(2), _MIRROR):
                path = _fixed(where.pixels(np.array(line) * mirror))
                cv2.polylines(image, [path], False, ink, 2, cv2.LINE_AA, _SHIFT)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8)


def glasses_lines(
    picture: Image, person: Person, neutral: Floats, mesh: FaceMesh, pose: Pose, camera: Camera
) -> None:
    """Draw the frame of a pair of glasses onto the picture, in place."""
    eyes = mesh.landmark_points(neutral)[:2]
    nose_z = float(eyes[:, 2].mean()) + 2.0
    turn = np.linspace(0, 2 * np.pi, 28)
    rounding = 2.5 + 3 * (person.seed % 3)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    circle = np.sign(circle) * np.abs(circle) ** (2 / rounding)
    curves = []
    for eye in eyes:
        side = np.sign(eye[0])
        ring = np.empty((len(turn), 3), np.float32)
        ring[:, 0] = eye[0] + 0.15 * side + circle[:, 0] * 2.5
        ring[:, 1] = eye[1] - 0.3 + circle[:, 1] * 1.9
        ring[:, 2] = nose_z - 0.1 * np.maximum(np.abs(ring[:, 0]) - 2.5, 0) ** 1.5
        curves.append(ring)
        hinge = [eye[0] + 2.65 * side, eye[1] + 0.5]
        temple = f32([[*hinge, nose_z - 0.9], [side * 8.2, eye[1] + 0.3, nose_z - 3.5]])
        # The temple on the far side is hidden by the face.
        if side * pose.yaw < 8:
            curves.append(temple)
    inner = eyes[:, 0] + f32([2.4, -2.4])
    bridge = f32([[inner[0], eyes[0, 1], nose_z], [inner[1], eyes[1, 1], nose_z]])
    curves.append(bridge)
    shade = int(20 + 60 * (person.seed % 5 == 0))
    thickness = max(1, round(person.glasses * camera.scale))
    rotation = pose.rotation().T
    for curve in curves:
        points = camera.project(f32((curve - PIVOT) @ rotation))[0]
        cv2.polylines(
            picture, [_fixed(points)], False, (shade,) * 3, thickness, cv2.LINE_AA, _SHIFT
        )
