"""What the length of a video alone predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LengthBaseline:
    """Ridge regression on the number of usable frames.

    The masked concatenation tells a head how long each video is, so a result is worth what it
    adds to this.

    Attributes
    ----------
    mean, sd : ndarray of float64, shape (3,)
        Of the training features.
    weights : ndarray of float64, shape (3, targets)
    offset : ndarray of float64, shape (targets,)
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    weights: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def fit(
        cls, lengths: NDArray[np.int64], target: NDArray[np.float64], penalty: float = 1.0
    ) -> LengthBaseline:
        """Fit on training videos: lengths (videos,), labels (videos, targets)."""
        raw = _features(lengths)
        mean, sd = raw.mean(0), raw.std(0)
        sd = np.where(sd > 1e-9, sd, 1.0)
        x, offset = (raw - mean) / sd, target.mean(0)
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - offset))
        return cls(mean, sd, weights, offset)

    def predict(self, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Intensities, shape (videos, targets)."""
        out: NDArray[np.float64] = (
            (_features(lengths) - self.mean) / self.sd
        ) @ self.weights + self.offset
        return out


def _features(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    frames = lengths.astype(np.float64)
    return np.stack([frames / 100, (frames / 100) ** 2, np.log1p(frames)], axis=1)
