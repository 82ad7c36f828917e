"""Augmentation of batches of aligned faces, as tensors: what separates one camera from another.

None of it changes a label. Every random number comes from the generator that is passed in.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


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
    blur, low_resolution, noise, compress, cutout : float
        Probabilities of Gaussian blur, of shrinking and enlarging again, of sensor noise, of
        JPEG compression, and of a rectangle painted over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(default=0.5, ge=0, le=1)
    rotate: float = Field(default=12.0, ge=0, le=180)
    scale: float = Field(default=0.12, ge=0, lt=1)
    shift: float = Field(default=0.06, ge=0, lt=1)
    light: float = Field(default=0.35, ge=0, lt=2)
    grey: float = Field(default=0.3, ge=0, le=1)
    blur: float = Field(default=0.15, ge=0, le=1)
    low_resolution: float = Field(default=0.25, ge=0, le=1)
    noise: float = Field(default=0.15, ge=0, le=1)
    compress: float = Field(default=0.1, ge=0, le=1)
    cutout: float = Field(default=0.3, ge=0, le=1)


def augment(faces: Tensor, size: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch of faces at random and resample it to a size.

    Parameters
    ----------
    faces : Tensor (b, 112, 112, 3) uint8
        Aligned RGB faces.
    size : int
        Side of the result in pixels.
    config : AugmentConfig
        What to do how much.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    Tensor (b, 3, size, size) float32
        In [-1, 1].
    """
    x = faces.permute(0, 3, 1, 2).float().div_(255.0)
    x = _warp(x, size, config, generator)
    x = _photometric(x, config, generator)
    x = _degrade(x, config, generator)
    x = _cutout(x, config, generator)
    return x.mul_(2.0).sub_(1.0)


def resample(faces: Tensor, size: int) -> Tensor:
    """Scale (b, 112, 112, 3) uint8 faces to (b, 3, size, size) float32 in [-1, 1]."""
    # A permuted (b, h, w, c) tensor already is channels-last, and stays so.
    x = faces.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return x


def _uniform(n: int, generator: torch.Generator, low: float = -1.0, high: float = 1.0) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _chosen(n: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) < share


def _warp(x: Tensor, size: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n = x.shape[0]
    angle = _uniform(n, generator) * math.radians(config.rotate)
    scale = torch.exp(_uniform(n, generator) * math.log1p(config.scale))
    stretch = torch.exp(_uniform(n, generator) * math.log1p(config.scale / 3))
    mirror = 1.0 - 2.0 * _chosen(n, config.flip, generator).float()
    shift = torch.stack([_uniform(n, generator), _uniform(n, generator)], dim=1) * 2 * config.shift
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos * scale * stretch * mirror, -sin * scale], dim=1),
        torch.stack([sin * scale * mirror, cos * scale / stretch], dim=1),
    ]
    theta = torch.cat([torch.stack(rows, dim=1), shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [n, x.shape[1], size, size], align_corners=False)
    # Stage one leaves black what lies outside the frame; crops of a pack repeat their edges.
    outside = "zeros" if bool(_chosen(1, 0.3, generator)) else "border"
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _photometric(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n = x.shape[0]
    gamma = torch.exp(_uniform(n, generator) * config.light)[:, None, None, None]
    contrast = torch.exp(_uniform(n, generator) * config.light)[:, None, None, None]
    brightness = (_uniform(n, generator) * config.light / 2)[:, None, None, None]
    tint = torch.exp(torch.rand(n, 3, 1, 1, generator=generator).sub_(0.5) * config.light)
    side = torch.linspace(-1.0, 1.0, x.shape[-1])
    slope = _uniform(n, generator) * config.light
    ramp = 1.0 + slope[:, None, None, None] * side[None, None, None, :]
    x = x.clamp_(1e-4, 1.0).pow(gamma)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (((x - mean) * contrast + mean) * tint * ramp + brightness).clamp_(0.0, 1.0)
    grey = _chosen(n, config.grey, generator)
    if bool(grey.any()):
        weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
        x[grey] = (x[grey] * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    return x


def _degrade(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n, _, size, _ = x.shape
    blurred = _chosen(n, config.blur, generator)
    if bool(blurred.any()):
        sigma = float(_uniform(1, generator, 0.4, 1.4)) * size / 64
        radius = math.ceil(2 * sigma)
        taps = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma**2))
        taps = (taps / taps.sum()).expand(3, 1, 1, -1)
        part = F.pad(x[blurred], (radius, radius, radius, radius), mode="replicate")
        part = F.conv2d(F.conv2d(part, taps, groups=3), taps.transpose(2, 3), groups=3)
        x[blurred] = part
    low = _chosen(n, config.low_resolution, generator)
    if bool(low.any()):
        side = int(_uniform(1, generator, 0.3, 0.8).item() * size)
        small = F.interpolate(x[low], size=(side, side), mode="bilinear", antialias=True)
        x[low] = F.interpolate(small, size=(size, size), mode="bilinear")
    noisy = _chosen(n, config.noise, generator)
    if bool(noisy.any()):
        strength = float(_uniform(1, generator, 0.01, 0.08))
        x[noisy] += torch.randn(x[noisy].shape, generator=generator) * strength
    x = x.clamp_(0.0, 1.0)
    compressed = _chosen(n, config.compress, generator)
    quality = torch.randint(15, 70, (n,), generator=generator)
    for row in torch.nonzero(compressed).flatten().tolist():
        image = (x[row].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality[row])])
        decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.float32)
        x[row] = torch.from_numpy(decoded / 255.0).permute(2, 0, 1)
    return x


def _cutout(x: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    n, _, size, _ = x.shape
    cut = _chosen(n, config.cutout, generator)
    centre = torch.rand(n, 2, generator=generator) * size
    half = _uniform(2 * n, generator, 0.07, 0.2).reshape(n, 2) * size
    value = torch.rand(n, 3, generator=generator)
    pixel = torch.arange(size).float()
    inside_y = (pixel[None, :] - centre[:, :1]).abs() < half[:, :1]
    inside_x = (pixel[None, :] - centre[:, 1:]).abs() < half[:, 1:]
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :] & cut[:, None, None, None]
    return torch.where(inside, value[:, :, None, None], x)
