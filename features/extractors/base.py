"""What every extractor is, and what it says of a batch of faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.faces.crop import ALIGNED, Crop
from feie.features.schema import Schema


@dataclass(frozen=True)
class Extraction:
    """What an extractor says about a batch of faces.

    Attributes
    ----------
    affect : ndarray (b, columns) float32
        One row a face, columns as in the extractor's schema; finite.
    embedding : ndarray (b, d) float16 or None
        The shared embedding, where the extractor gives one.
    """

    affect: NDArray[np.float32]
    embedding: NDArray[np.float16] | None = None


class Extractor(Protocol):
    """A frozen per-frame model; what has a value here may be left out by a class that inherits.

    Attributes
    ----------
    name : str
        Name that goes into the provenance of a store.
    schema : Schema
        Columns of the affect vector.
    sha256 : str
        Hex digest of the weight file; of the code, for one without weights.
    crop : Crop
        What it wants to see of a face; 112x112, aligned, by default.
    embedding_dim : int
        Width of the embedding; 0 for none.
    device : str
        Where it runs, e.g. ``cpu`` or ``cuda``; never ``auto``.
    concurrent : bool
        Several threads may call it at the same time.
    extra : dict
        Whatever else changes its numbers, in JSON types; part of the provenance of a store.
    """

    name: str
    schema: Schema
    sha256: str = ""
    crop: Crop = ALIGNED
    embedding_dim: int = 0
    device: str = "cpu"
    concurrent: bool = False
    extra: Mapping[str, Any] = MappingProxyType({})

    def __call__(self, faces: NDArray[np.uint8]) -> Extraction:
        """Compute affect vectors of RGB faces (b, side, side, 3) in [0, 255]; b may be 0."""
        ...


def check_faces(name: str, faces: NDArray[np.uint8], size: int) -> None:
    """Refuse what are no faces of the right size.

    Raises
    ------
    UsageError
        Another shape or type than uint8 (b, size, size, 3).
    """
    if faces.ndim != 4 or faces.shape[1:] != (size, size, 3) or faces.dtype != np.uint8:
        raise UsageError(
            f"{name} takes uint8 faces of shape (b, {size}, {size}, 3), not {faces.dtype} "
            f"{faces.shape}"
        )
