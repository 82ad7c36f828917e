"""What cameras and codecs do to a picture: resolution, blur, colour, noise, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from feie.features.synthetic.arrays import Image, f32


@dataclass(frozen=True)
class Degradation:
    """One camera's and codec's effect; apply it with `degrade`.

    Attributes
    ----------
    scale : float
        Resolution kept, in (0, 1].
    blur : float
        Standard deviation of the blur, px at full resolution.
    grey : bool
        Whether colour is dropped.
    balance : (3,) floats
        Colour gains.
    gamma : float
        Exponent of the tone curve; above 1 darkens.
    contrast : float
        Stretch about mid-grey.
    noise : float
        Standard deviation of the sensor noise, grey levels.
    quality : int
        JPEG quality 1-100; 0 keeps the picture as it is.
    """

    scale: float = 1.0
    blur: float = 0.0
    grey: bool = False
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 1.0
    noise: float = 0.0
    quality: int = 0


def draw_degradation(rng: np.random.Generator, lowest_scale: float) -> Degradation:
    """Draw a degradation: most pictures stay fair, some lose much.

    Parameters
    ----------
    rng : Generator
        Source of chance.
    lowest_scale : float
        The lowest share of the resolution that is kept.
    """
    keen = rng.uniform() < 0.35
    return Degradation(
        scale=1.0 if keen else float(np.exp(rng.uniform(np.log(lowest_scale), 0))),
        blur=0.0 if keen else float(rng.gamma(1.0, 0.7)),
        grey=bool(rng.uniform() < 0.3),
        balance=tuple(np.exp(rng.normal(0, 0.06, 3)).tolist()),
        gamma=float(np.exp(rng.normal(0, 0.22))),
        contrast=float(rng.uniform(0.6, 1.25)),
        noise=float(rng.gamma(1.0, 2.5)) if rng.uniform() < 0.6 else 0.0,
        quality=int(rng.integers(25, 96)) if rng.uniform() < 0.8 else 0,
    )


def degrade(picture: Image, how: Degradation, rng: np.random.Generator) -> Image:
    """Apply a degradation to an RGB picture; the result is smaller where `scale` is below 1."""
    if how.blur > 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), how.blur), np.uint8)
    if how.scale < 1:
        picture = np.asarray(
            cv2.resize(picture, None, fx=how.scale, fy=how.scale, interpolation=cv2.INTER_AREA),
            np.uint8,
        )
    levels = (np.arange(256, dtype=np.float32)[:, None] / 255) ** np.float32(how.gamma)
    levels = ((levels - 0.5) * how.contrast + 0.5) * 255 * f32(how.balance)
    table = levels.clip(0, 255).astype(np.uint8)[None]
    picture = np.asarray(cv2.LUT(picture, table), np.uint8)
    if how.grey:
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    if how.noise:
        colours = 1 if how.grey else 3
        shape = (*picture.shape[:2], colours)
        grain = rng.standard_normal(shape, dtype=np.float32) * np.float32(how.noise)
        picture = (picture + grain).clip(0, 255).astype(np.uint8)
    if how.quality:
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, how.quality])
        picture = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return picture
