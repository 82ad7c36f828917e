"""Who is rendered: shape, skin, brows, hair and eyes of a synthetic person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.synthetic.arrays import Floats

# sRGB anchors of skin from Fitzpatrick I to VI and a little beyond; tones between are mixed.
SKIN = np.array(
    [[248, 219, 203], [240, 200, 176], [226, 178, 146], [201, 146, 108], [160, 106, 74],
     [116, 73, 50], [78, 49, 36]], np.float32)  # fmt: skip
HAIR = np.array(
    [[18, 15, 14], [38, 26, 20], [66, 43, 28], [104, 70, 42], [150, 110, 66], [196, 160, 104],
     [128, 62, 34], [150, 148, 146], [210, 208, 204]], np.float32)  # fmt: skip
IRIS = np.array(
    [[52, 33, 22], [84, 54, 32], [110, 82, 44], [96, 104, 66], [92, 118, 134], [118, 138, 152]],
    np.float32)  # fmt: skip


def linear(srgb: NDArray[np.floating]) -> Floats:
    """SRGB in [0, 255] to linear light in [0, 1] (a plain power of 2.2)."""
    return (np.asarray(srgb, np.float32) / 255.0) ** np.float32(2.2)


@dataclass(frozen=True)
class Person:
    """A synthetic person; colours are linear RGB.

    Attributes
    ----------
    identity : (100,) weights of the identity modes.
    tone : place on the scale of skin tones, 0 lightest, 1 darkest.
    skin, lips, hair, iris : (3,) colours.
    ruddiness : strength of the blush, 0-1.
    mottle : strength of the skin's unevenness, 0-1.
    brow_density : hairs in a brow, relative to 1.
    brow_height : thickness of the brow, cm.
    brow_lift : where the brow sits, cm above its usual place.
    hair_thickness : cm; 0 is a shaven head.
    hairline : shift of the hairline, cm, up is positive.
    hair_length : how far hair falls below the eyes, cm; negative is short hair.
    fringe : how far hair falls over the forehead, cm.
    beard : density of a beard, 0-1.
    lashes : opacity of the lashes, 0-1.
    wrinkles : how deep expression lines cut, 0-1.
    glasses : 0 none, else the thickness of the frame in cm.
    seed : seed of the fine pattern (brow hairs, mottling).
    """

    identity: Floats
    tone: float
    skin: Floats
    lips: Floats
    hair: Floats
    iris: Floats
    ruddiness: float
    mottle: float
    brow_density: float
    brow_height: float
    brow_lift: float
    hair_thickness: float
    hairline: float
    hair_length: float
    fringe: float
    beard: float
    lashes: float
    wrinkles: float
    glasses: float
    seed: int


def make_person(seed: int, modes: int = 100, tone: float | None = None) -> Person:
    """Draw a person.

    Parameters
    ----------
    seed : int
        The person is a function of the seed (and of `tone`) alone.
    modes : int
        Number of identity modes of the model.
    tone : float, optional
        Skin tone in [0, 1]; drawn uniformly when None.
    """
    rng = np.random.default_rng([0xFACE, seed])
    identity = (0.8 * rng.standard_normal(modes)).clip(-2.2, 2.2).astype(np.float32)
    drawn = float(rng.uniform())
    tone = drawn if tone is None else tone
    place = tone * (len(SKIN) - 1)
    low = min(int(place), len(SKIN) - 2)
    skin = SKIN[low] + (place - low) * (SKIN[low + 1] - SKIN[low])
    skin = skin * rng.normal(1, 0.03) * rng.normal(1, 0.02, 3)
    dark = tone > 0.55
    if rng.uniform() < 0.12:
        hair = HAIR[rng.choice([7, 8])]
    else:
        hair = (
            HAIR[rng.choice([0, 0, 1])] if dark else HAIR[rng.choice([0, 1, 1, 2, 2, 3, 4, 5, 6])]
        )
    iris = IRIS[rng.choice(2)] if dark else IRIS[rng.choice(len(IRIS))]
    feminine = bool(rng.uniform() < 0.5)
    redness = rng.uniform(0.0, 1.0) * (1.0 if feminine else 0.5)
    natural = skin * ([0.9, 0.72, 0.75] if dark else [0.90, 0.71, 0.70])
    painted = natural * np.array([0.98, 0.66, 0.72])
    lips = natural + redness * (painted - natural)
    bald = not feminine and rng.uniform() < 0.15
    if feminine:
        length = float(rng.uniform(2, 14)) if rng.uniform() < 0.75 else -1.0
    else:
        length = float(rng.uniform(0, 8)) if rng.uniform() < 0.1 else -1.0
    bearded = not feminine and rng.uniform() < 0.45
    return Person(
        identity=identity,
        tone=float(tone),
        skin=linear(skin.clip(0, 255)),
        lips=linear(lips.clip(0, 255)),
        hair=linear(hair * rng.uniform(0.8, 1.2)),
        iris=linear(iris * rng.uniform(0.85, 1.15)),
        ruddiness=float(rng.uniform(0.1, 1.0)),
        mottle=float(rng.uniform(0.2, 1.0)),
        brow_density=float(rng.uniform(0.45, 0.9) if feminine else rng.uniform(0.6, 1.3)),
        brow_height=float(rng.uniform(0.3, 0.55) if feminine else rng.uniform(0.4, 0.85)),
        brow_lift=float(rng.normal(0.1 if feminine else -0.1, 0.15)),
        hair_thickness=0.0 if bald else float(rng.uniform(0.2, 1.6)),
        hairline=float(rng.normal(0.5, 0.7)) + (3.0 if bald else 0.0),
        hair_length=-1.0 if bald else length,
        fringe=float(rng.uniform(0.5, 3.5)) if rng.uniform() < 0.2 and not bald else 0.0,
        beard=float(rng.uniform(0.1, 1.0)) if bearded else 0.0,
        lashes=float(rng.uniform(0.5, 1.0) if feminine else rng.uniform(0.2, 0.6)),
        wrinkles=float(rng.uniform(0.0, 1.0)),
        glasses=float(rng.uniform(0.12, 0.35)) if rng.uniform() < 0.12 else 0.0,
        seed=seed,
    )
