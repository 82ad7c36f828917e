"""A trained head: everything between stored rows and intensities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.heads.data.inputs import InputConfig, Standardiser
from feie.heads.data.ragged import Ragged
from feie.heads.measures.baselines import LengthBaseline
from feie.heads.training.trainer import Model, predict


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
        """Fit raw outputs to labels, both of shape (videos, targets)."""
        x, y = raw - raw.mean(0), labels - labels.mean(0)
        variance = (x * x).mean(0)
        spread = np.where(variance > 0, variance, 1.0)
        least = 1e-3 * np.sqrt((y * y).mean(0) / spread)
        slope = np.maximum((x * y).mean(0) / spread, least)
        return cls(slope, labels.mean(0) - slope * raw.mean(0))

    def apply(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn raw outputs, shape (videos, targets), into intensities."""
        return self.slope * raw + self.offset


@dataclass(frozen=True)
class Head:
    """A trained model with what it needs to read a store.

    Attributes
    ----------
    model : MRNN, Stat or HeadModel
    targets : tuple of str
    inputs : InputConfig
    standardiser : Standardiser
    calibration : Calibration
    label_mean : ndarray of float64, shape (targets,)
        Mean label of the training videos.
    baseline : LengthBaseline
    notes : dict
        Where it comes from: training, store, labels, versions (JSON).
    """

    model: Model
    targets: tuple[str, ...]
    inputs: InputConfig
    standardiser: Standardiser
    calibration: Calibration
    label_mean: NDArray[np.float64]
    baseline: LengthBaseline
    notes: dict[str, Any]

    def predict(self, frames: Ragged) -> NDArray[np.float64]:
        """Intensities of videos.

        Parameters
        ----------
        frames : Ragged
            As `feie.heads.data.inputs.prepare` gives them for `inputs`.

        Returns
        -------
        ndarray of float64, shape (videos, targets)
            A video without one usable frame gets the mean label of the training videos.
        """
        return self.predict_standardised(self.standardiser.apply(frames))

    def predict_standardised(self, frames: Ragged) -> NDArray[np.float64]:
        """Do as `predict` does, with frames that are standardised already."""
        out = self.calibration.apply(predict(self.model, frames))
        return np.where(frames.lengths[:, None] == 0, self.label_mean, out)
