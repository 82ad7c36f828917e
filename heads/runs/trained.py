"""A trained head: everything between stored rows and intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.heads.config import HeadConfig, InputConfig, Unit
from feie.heads.data.inputs import Standardiser
from feie.heads.data.ragged import Ragged
from feie.heads.measures.baselines import LengthBaseline
from feie.heads.models.base import HeadModel
from feie.heads.training.trainer import predict


@dataclass(frozen=True)
class Calibration:
    """Intensity = slope * raw output + offset, a target each.

    Pearson's rho fixes a model's outputs only up to scale and shift. After training with it,
    slope and offset are those of least squares on the training videos, which also makes the mean
    prediction there the mean label. A slope is never below a thousandth of the ratio of the
    standard deviations, so calibration changes no rank and no correlation.

    Attributes
    ----------
    slope, offset : ndarray of float64, shape (targets,)
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def identity(cls, targets: int) -> Calibration:
        """For losses that fix scale and shift themselves."""
        return cls(np.ones(targets), np.zeros(targets))

    @classmethod
    def fit(cls, raw: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
        """Fit raw outputs to labels, both of shape (units, targets)."""
        x, y = raw - raw.mean(0), labels - labels.mean(0)
        variance = (x * x).mean(0)
        spread = np.where(variance > 0, variance, 1.0)
        least = 1e-3 * np.sqrt((y * y).mean(0) / spread)
        slope = np.maximum((x * y).mean(0) / spread, least)
        return cls(slope, labels.mean(0) - slope * raw.mean(0))

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn raw outputs, shape (units, targets), into intensities."""
        return self.slope * raw + self.offset


@dataclass(frozen=True)
class TrainedHead:
    """A trained network with what it needs to read a store; a `feie.heads.head.Head`.

    Attributes
    ----------
    model : HeadModel
    targets : tuple of str
    inputs : InputConfig
    standardiser : Standardiser
    calibration : Calibration
    label_mean : ndarray of float64, shape (targets,)
        Mean label of the training videos, or frames.
    baseline : LengthBaseline or None
        None of a head of frames.
    notes : dict
        Where it comes from: training, store, labels, versions (JSON).
    """

    model: HeadModel
    targets: tuple[str, ...]
    inputs: InputConfig
    standardiser: Standardiser
    calibration: Calibration
    label_mean: NDArray[np.float64]
    baseline: LengthBaseline | None
    notes: dict[str, Any]

    @property
    def config(self) -> HeadConfig:
        """Kind and shape of the network."""
        return self.model.config

    @property
    def kind(self) -> str:
        """In the registry."""
        return self.config.kind

    @property
    def unit(self) -> Unit:
        """What one prediction is about."""
        return self.config.unit

    def predict(self, frames: Ragged) -> NDArray[np.float64]:
        """Intensities of videos, or of their frames.

        Parameters
        ----------
        frames : Ragged
            As `feie.heads.data.inputs.prepare` gives them for `inputs`.

        Returns
        -------
        ndarray of float64, shape (units, targets)
            A video without one usable frame gets the mean label of the training videos; so does
            every frame of it.
        """
        seen = units_seen(frames, self.unit)
        return self.predict_standardised(self.standardiser.apply(frames), seen)

    def predict_standardised(
        self, frames: Ragged, seen: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Do as `predict` does, with frames that are standardised already.

        ``seen`` is what `units_seen` said before; of videos it need not be given.
        """
        out = self.calibration.apply(predict(self.model, frames))
        seen = units_seen(frames, self.unit) if seen is None else seen
        return np.where(seen[:, None], out, self.label_mean)


def units_seen(frames: Ragged, unit: Unit) -> NDArray[np.bool_]:
    """Say which videos have a usable frame, or which frames are of such a video.

    Parameters
    ----------
    frames : Ragged
        Not yet standardised, which turns NaN into 0.
    unit : {"video", "frame"}
    """
    if unit == "video":
        return frames.lengths > 0
    seen: NDArray[np.bool_] = np.all(np.isfinite(frames.values), axis=1)
    return seen
