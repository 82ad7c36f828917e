"""One training sample: a random person, affect, view and camera, aligned as stage one aligns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.faces.align import ALIGNED_SIZE, align_face, similarity
from feie.features.schema import ACTION_UNITS
from feie.features.synthetic.arrays import Floats, Image, f32
from feie.features.synthetic.aus import LARGEST_WEIGHT, SIDES, expression_weights
from feie.features.synthetic.backdrop import make_backdrop
from feie.features.synthetic.camera import Camera, Pose
from feie.features.synthetic.degrade import degrade, draw_degradation
from feie.features.synthetic.expressions import draw_affect
from feie.features.synthetic.ict import FaceMesh
from feie.features.synthetic.light import Light, Lighting
from feie.features.synthetic.person import Person, make_person
from feie.features.synthetic.render import FaceRenderer, View

PHOTO_SIZE = 232
"""Side of the picture that is drawn, px; the face crop spans `CROP_SIDE` of it."""
CROP_SIDE = 170.0
# Movements that are no unit of ours and must not be taken for one, at their largest weight.
_DISTRACTORS = {
    "mouthFunnel": 0.5,
    "mouthPucker": 0.6,
    "mouthLeft": 0.5,
    "mouthRight": 0.5,
    "jawLeft": 0.4,
    "jawRight": 0.4,
    "cheekPuff": 0.6,
    "mouthDimple": 0.6,
}


@dataclass(frozen=True)
class Sample:
    """A rendered face and everything known of it.

    Attributes
    ----------
    image : (112, 112, 3) uint8 RGB, aligned.
    units : (17,) float32 activations in [0, 1]; NaN where they cannot be known.
    expression : one of the seven, or "".
    valence, arousal : in [-1, 1] or NaN.
    identity : number of the person.
    pose : attitude of the head.
    tone : skin tone, 0 lightest to 1 darkest.
    """

    image: Image
    units: Floats
    expression: str
    valence: float
    arousal: float
    identity: int
    pose: Pose
    tone: float


def aim_camera(
    renderer: FaceRenderer, vertices: Floats, distance: float, size: int, side: float
) -> Camera:
    """Camera that puts the aligned crop of a posed head into the middle of the picture.

    Parameters
    ----------
    renderer : FaceRenderer
        Knows the landmarks.
    vertices : (V, 3)
        Posed head relative to the pivot, cm.
    distance : float
        Of the camera, cm.
    size : int
        Side of the picture, px.
    side : float
        Side of the square, px, that alignment will cut out.
    """
    trial = Camera(distance, 10.0, (0.0, 0.0))
    matrix = similarity(renderer.landmarks(vertices, trial))
    growth = side / (ALIGNED_SIZE / float(np.hypot(matrix[0, 0], matrix[1, 0])))
    middle = np.full(2, (ALIGNED_SIZE - 1) / 2)
    x, y = np.linalg.solve(matrix[:, :2], middle - matrix[:, 2]) * growth
    half = (size - 1) / 2
    return Camera(distance, 10.0 * growth, (half - float(x), half - float(y)))


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """Draw a scene's light: from an overcast sky to one hard lamp at the side."""
    azimuth = np.deg2rad(rng.normal(0, 40))
    elevation = np.deg2rad(rng.uniform(-15, 70))
    towards = (
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
        float(np.cos(azimuth) * np.cos(elevation)),
    )
    warmth = rng.normal(0, 0.12)
    ambient = rng.uniform(0.15, 0.75)
    key = (1.15 - ambient) * np.array([1 + warmth, 1.0, 1 - warmth])
    sky = ambient * (1 + rng.normal(0, 0.06, 3))
    ground = sky * rng.uniform(0.35, 0.9)
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    fill_colour = rng.uniform(0.0, 0.3) * rng.uniform(0.5, 1.0, 3)
    fill = (side, float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.2, 0.8)))
    return Lighting(
        (Light(towards, _colour(key)), Light(fill, _colour(fill_colour))),
        _colour(sky),
        _colour(ground),
        gloss=float(rng.gamma(2.0, 0.03)),
    )


def _colour(value: NDArray[np.floating]) -> tuple[float, float, float]:
    red, green, blue = np.maximum(value, 0).tolist()
    return red, green, blue


def fair_exposure(person: Person) -> float:
    """Exposure of a camera that meters the face, part of the way: dark skin is lifted some."""
    luminance = float(person.skin @ f32([0.2126, 0.7152, 0.0722]))
    return float((0.35 / max(luminance, 1e-3)) ** 0.3)


def parted_lips(mesh: FaceMesh, weights: Mapping[str, float]) -> float:
    """How far lips part, in [0, 1], relative to AU25 at activation 1.

    Other units part the lips too (AU10, AU20, AU26): a face is labelled by what is seen.
    """

    def gap(of: Mapping[str, float]) -> float:
        upper, lower = mesh.lips
        return sum(
            w * float(mesh.expression[k][upper, 1] - mesh.expression[k][lower, 1])
            for k, w in of.items()
        )

    units = np.zeros(len(ACTION_UNITS))
    units[ACTION_UNITS.index("AU25")] = 1.0
    full = gap(expression_weights(units, mesh.expression))
    return float(np.clip(gap(weights) / full, 0, 1))


def eye_weights(gaze: tuple[float, float], blink: float) -> dict[str, float]:
    """Lid weights that go with a gaze (right in the picture, up; degrees) and a blink in [0, 1]."""
    right, up = gaze[0] / 30, gaze[1] / 25
    weights = {"eyeLookUp": max(up, 0.0), "eyeLookDown": max(-up, 0.0), "eyeBlink": blink}
    sided = {name + side: value for name, value in weights.items() for side in SIDES}
    # The subject's left eye is on the right of the picture: looking right turns it outwards.
    sided |= {"eyeLookOut_L": max(right, 0.0), "eyeLookIn_R": max(right, 0.0)}
    sided |= {"eyeLookIn_L": max(-right, 0.0), "eyeLookOut_R": max(-right, 0.0)}
    return sided


def draw_sample(renderer: FaceRenderer, identity: int, seed: tuple[int, ...]) -> Sample:
    """Render one training sample.

    Parameters
    ----------
    renderer : FaceRenderer
        Of the face model.
    identity : int
        The person, a function of this number.
    seed : tuple of int
        Everything else is a function of these numbers.
    """
    rng = np.random.default_rng(seed)
    person = make_person(identity, len(renderer.mesh.identity))
    if rng.uniform() < 0.5:
        person = replace(person, glasses=0.0)
    look = renderer.look(person)
    affect = draw_affect(rng)
    weights = expression_weights(affect.units, renderer.mesh.expression, rng.normal(0, 0.12))
    units = affect.units.copy()
    lips = ACTION_UNITS.index("AU25")
    units[lips] = max(units[lips], parted_lips(renderer.mesh, weights))

    pose = Pose(
        float(np.clip(rng.normal(0, 17), -40, 40)),
        float(np.clip(rng.normal(0, 10), -25, 25)),
        float(np.clip(rng.normal(0, 7), -20, 20)),
    )
    gaze = (
        float(np.clip(rng.normal(-0.4 * pose.yaw, 9), -25, 25)),
        float(np.clip(rng.normal(-0.3 * pose.pitch, 6), -18, 18)),
    )
    blink = float(rng.uniform(0.8, 1)) if rng.uniform() < 0.04 else float(rng.uniform(0, 0.12))
    if blink > 0.5:
        units[[ACTION_UNITS.index("AU05"), ACTION_UNITS.index("AU07")]] = np.nan
    _add(weights, eye_weights(gaze, blink))
    if rng.uniform() < 0.25:
        name = str(rng.choice(list(_DISTRACTORS)))
        amount = float(rng.uniform(0.1, _DISTRACTORS[name]))
        sided = {name: amount}
        if name not in renderer.mesh.expression:
            sided = {name + side: amount for side in SIDES}
        _add(weights, sided)

    vertices = renderer.vertices(look, weights, pose, gaze)
    distance = float(np.exp(rng.uniform(np.log(38), np.log(160))))
    camera = aim_camera(renderer, vertices, distance, PHOTO_SIZE, CROP_SIDE)
    exposure = fair_exposure(person) * float(np.exp(rng.normal(0, 0.2)))
    view = View(pose, camera, draw_lighting(rng), exposure)
    photo = renderer.draw(look, vertices, units, view, make_backdrop(rng, PHOTO_SIZE))
    landmarks = renderer.landmarks(vertices, camera)
    if rng.uniform() < 0.04:
        _occlude(photo, rng)
    how = draw_degradation(rng, 0.28)
    photo = degrade(photo, how, rng)
    # Detectors are off by a few per cent of the face; so is the crop.
    error = rng.normal(0, 0.012, (5, 2)) + rng.normal(0, 0.012, 2)
    stretch = 1 + rng.normal(0, 0.03)
    centre = landmarks.mean(axis=0)
    landmarks = (centre + (landmarks - centre) * stretch + error * CROP_SIDE) * how.scale
    image = align_face(photo, landmarks)
    return Sample(
        image,
        units.astype(np.float32),
        affect.expression,
        affect.valence,
        affect.arousal,
        identity,
        pose,
        person.tone,
    )


def _add(weights: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        weights[name] = min(LARGEST_WEIGHT, weights.get(name, 0.0) + value)


def _occlude(picture: Image, rng: np.random.Generator) -> None:
    """Put something in front of a part of the face, in place."""
    size = picture.shape[0]
    x, y = rng.uniform(0.25, 0.75, 2) * size
    axes = (rng.uniform(0.06, 0.2, 2) * size).astype(int).tolist()
    colour = rng.integers(0, 256, 3).tolist()
    cv2.ellipse(picture, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
