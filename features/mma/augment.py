"""Augmentation of aligned faces: what separates one camera from another.

None of it changes a label. Every random number comes from the generator that is passed in. Faces
are changed one by one in 8 bits with OpenCV: on a CPU that takes a fraction of the time that tensor
operations over the batch take.
"""

from __future__ import annotations

import math
from typing import Any, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor

Image = NDArray[np.uint8]
_LEVELS = np.linspace(0.0, 1.0, 256)


class AugmentConfig(BaseModel):
    """Strength of each change; probabilities are a sample's, ranges are symmetric.

    Attributes
    ----------
    flip : float
        Probability of mirroring.
    rotate : float
        Largest rotation in degrees.
    scale : float
        Largest relative change of size.
    shift : float
        Largest shift, as a share of the image.
    light : float
        Largest change of brightness and of log contrast and log gamma.
    grey : float
        Probability of losing colour.
    equalise : float
        Probability of histogram equalisation of the luminance, which some data sets come with.
    blur, low_resolution, noise, compress, cutout : float
        Probabilities of Gaussian blur, of shrinking and enlarging again, of sensor noise, of
        JPEG compression, and of a rectangle painted over.
    quality : tuple of int
        Lowest and highest JPEG quality.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(default=0.5, ge=0, le=1)
    rotate: float = Field(default=12.0, ge=0, le=180)
    scale: float = Field(default=0.12, ge=0, lt=1)
    shift: float = Field(default=0.06, ge=0, lt=1)
    light: float = Field(default=0.35, ge=0, lt=2)
    grey: float = Field(default=0.3, ge=0, le=1)
    equalise: float = Field(default=0.0, ge=0, le=1)
    blur: float = Field(default=0.15, ge=0, le=1)
    low_resolution: float = Field(default=0.25, ge=0, le=1)
    noise: float = Field(default=0.15, ge=0, le=1)
    compress: float = Field(default=0.1, ge=0, le=1)
    cutout: float = Field(default=0.3, ge=0, le=1)
    quality: tuple[int, int] = (15, 70)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not 1 <= self.quality[0] < self.quality[1] <= 101:
            raise ValueError("quality: give lowest and highest JPEG quality, as [15, 70]")
        return self

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later where unused: checkpoints of 0.1.0 go on."""
        content: dict[str, Any] = handler(self)
        unused: dict[str, Any] = {"equalise": [0.0], "quality": [(15, 70), [15, 70]]}
        return {k: v for k, v in content.items() if k not in unused or v not in unused[k]}


def augment(
    faces: NDArray[np.uint8], size: int, config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """Change a batch of faces at random and resample it to a size.

    Parameters
    ----------
    faces : ndarray (b, 112, 112, 3) uint8
        Aligned RGB faces.
    size : int
        Side of the result in pixels.
    config : AugmentConfig
        What to do how much.
    rng : Generator
        Source of all randomness.

    Returns
    -------
    Tensor (b, 3, size, size) float32
        In [-1, 1], channels last.
    """
    done = np.empty((len(faces), size, size, 3), dtype=np.uint8)
    for row, face in enumerate(faces):
        if config.equalise and rng.random() < config.equalise:
            face = equalised(face)
        picture = _warp(face, size, config, rng)
        picture = _photometric(picture, config, rng)
        picture = _degrade(picture, config, rng)
        _cutout(picture, config, rng)
        done[row] = picture
    x = torch.from_numpy(done).permute(0, 3, 1, 2).float()
    return x.mul_(1 / 127.5).sub_(1.0)


def equalised(face: Image) -> Image:
    """Equalise the histogram of the luminance (h, w, 3 RGB or 1); colours keep their hue."""
    if face.shape[2] == 1:
        return np.asarray(cv2.equalizeHist(face), dtype=np.uint8).reshape(face.shape)
    planes = cv2.cvtColor(face, cv2.COLOR_RGB2YCrCb)
    planes[..., 0] = cv2.equalizeHist(planes[..., 0])
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def resample(faces: Tensor, size: int) -> Tensor:
    """Scale (b, 112, 112, 3) uint8 faces to (b, 3, size, size) float32 in [-1, 1]."""
    # A permuted (b, h, w, c) tensor already is channels-last, and stays so.
    x = faces.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x


def _warp(face: Image, size: int, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Rotate, scale, stretch, shift and mirror, in one resampling."""
    source = face.shape[0]
    angle = rng.uniform(-1, 1) * math.radians(config.rotate)
    scale = math.exp(rng.uniform(-1, 1) * math.log1p(config.scale))
    stretch = math.exp(rng.uniform(-1, 1) * math.log1p(config.scale / 3))
    shift = rng.uniform(-1, 1, 2) * config.shift * source
    mirror = -1.0 if rng.random() < config.flip else 1.0
    # From a place in the result to the place in the source that is shown there.
    step = source / size
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn * [[stretch], [1 / stretch]] * scale * step * [mirror, 1.0]
    offset = (source - 1) / 2 + shift - linear @ np.full(2, (size - 1) / 2)
    # Stage one leaves black what lies outside the frame; crops of a pack repeat their edges.
    outside = cv2.BORDER_CONSTANT if rng.random() < 0.3 else cv2.BORDER_REPLICATE
    warped = cv2.warpAffine(
        face,
        np.column_stack([linear, offset]),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=outside,
    )
    return np.asarray(warped, dtype=np.uint8)


def _photometric(picture: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Gamma, contrast, brightness and tint by a table; light from one side; loss of colour."""
    gamma, contrast = np.exp(rng.uniform(-1, 1, 2) * config.light)
    brightness = rng.uniform(-1, 1) * config.light / 2
    tint = np.exp(rng.uniform(-0.5, 0.5, 3) * config.light)
    slope = rng.uniform(-1, 1) * config.light
    levels = _LEVELS**gamma
    middle = (sum(cv2.mean(picture)[:3]) / 765) ** gamma
    levels = (levels[:, None] - middle) * contrast + middle
    table = np.rint((levels * tint + brightness) * 255).clip(0, 255)
    picture = np.asarray(cv2.LUT(picture, table.astype(np.uint8)[None]), dtype=np.uint8)
    if slope:
        # Light that falls off to one side: in 16 bits, a tenth of what floats take.
        ramp = np.linspace(128 * (1 - slope), 128 * (1 + slope), picture.shape[1])
        lit = picture * ramp.astype(np.uint16)[:, None] + 64 >> 7
        picture = np.minimum(lit, 255).astype(np.uint8)
    if rng.random() < config.grey:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    return picture


def _degrade(picture: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Blur, resolution, noise and compression, each with its own probability."""
    size = picture.shape[0]
    blurred, low, noisy, compressed = rng.random(4) < (
        config.blur,
        config.low_resolution,
        config.noise,
        config.compress,
    )
    if blurred:
        sigma = rng.uniform(0.4, 1.4) * size / 64
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.uint8)
    if low:
        side = int(rng.uniform(0.3, 0.8) * size)
        small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        large = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        picture = np.asarray(large, dtype=np.uint8)
    if noisy:
        strength = np.float32(rng.uniform(0.01, 0.08) * 255)
        grain = rng.standard_normal(picture.shape, dtype=np.float32) * strength
        picture = np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), dtype=np.uint8)
    if compressed:
        quality = int(rng.integers(*config.quality))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
    return picture


def _cutout(picture: Image, config: AugmentConfig, rng: np.random.Generator) -> None:
    """Paint a rectangle over, in place."""
    if rng.random() < config.cutout:
        size = picture.shape[0]
        centre = rng.random(2) * size
        half = rng.uniform(0.07, 0.2, 2) * size
        (top, left), (bottom, right) = (
            np.clip(np.rint(edge), 0, size).astype(int) for edge in (centre - half, centre + half)
        )
        picture[top:bottom, left:right] = rng.integers(0, 256, 3)
