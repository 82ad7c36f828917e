"""Where the head is and how the camera sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feie.features.synthetic.arrays import Floats

PIVOT = np.array([0.0, 1.0, 4.0], np.float32)
"""The point, cm, about which the head turns: inside it, between the ears."""


@dataclass(frozen=True)
class Pose:
    """Attitude of the head in degrees.

    Attributes
    ----------
    yaw : float
        Positive turns the nose to the right of the picture.
    pitch : float
        Positive lifts the nose.
    roll : float
        Positive tilts the head clockwise in the picture.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> Floats:
        """Rotation matrix (3, 3): pitch first, then yaw, then roll."""
        yaw, pitch, roll = np.deg2rad([self.yaw, -self.pitch, -self.roll])
        rx = [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
        ry = [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]]
        rz = [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
        product: Floats = (np.array(rz) @ np.array(ry) @ np.array(rx)).astype(np.float32)
        return product


@dataclass(frozen=True)
class Camera:
    """A pinhole camera on the z axis that looks at the pivot of the head.

    Attributes
    ----------
    distance : float
        From the pivot, cm; small values give the big noses of phone pictures.
    scale : float
        Pixels per cm at the pivot.
    centre : (float, float)
        Where the pivot appears, px, y down.
    """

    distance: float = 80.0
    scale: float = 8.0
    centre: tuple[float, float] = (128.0, 128.0)

    def project(self, vertices: Floats) -> tuple[Floats, Floats]:
        """Screen points (V, 2), px, and depths (V,), cm, of points relative to the pivot."""
        depth = np.maximum(np.float32(self.distance) - vertices[:, 2], np.float32(1.0))
        factor = np.float32(self.scale * self.distance) / depth
        points = np.empty((len(vertices), 2), np.float32)
        points[:, 0] = np.float32(self.centre[0]) + factor * vertices[:, 0]
        points[:, 1] = np.float32(self.centre[1]) - factor * vertices[:, 1]
        return points, depth
