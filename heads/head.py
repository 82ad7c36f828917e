"""What a head is, whichever kind: the protocol, and what its network inherits."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feie.heads.config import HEADS, HeadConfig, HeadOptions, InputConfig, Unit
from feie.heads.data.ragged import Ragged
from feie.heads.models.base import HeadModel

__all__ = ["HEADS", "Head", "HeadConfig", "HeadModel", "HeadOptions"]


class Head(Protocol):
    """A trained head: everything between stored rows and intensities.

    Attributes
    ----------
    kind : str
        In the registry `feie.heads.config.HEADS`.
    unit : {"video", "frame"}
        What one prediction is about.
    targets : tuple of str
        What is predicted.
    inputs : InputConfig
        How it reads a store.
    config : HeadConfig
        Shape of its network.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def unit(self) -> Unit: ...  # noqa: D102
    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def inputs(self) -> InputConfig: ...  # noqa: D102
    @property
    def config(self) -> HeadConfig: ...  # noqa: D102

    def predict(self, frames: Ragged) -> NDArray[np.float64]:
        """Predict frames as `feie.heads.data.inputs.prepare` gives them, shape (units, targets)."""
