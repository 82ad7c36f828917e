"""Extractors of others, held to what stores need of any extractor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import EngineError, UsageError
from feie.features.extractors.base import Extraction, Extractor, check_faces
from feie.features.faces.crop import ALIGNED, Crop
from feie.features.plugins import Plugin
from feie.features.schema import Schema

_T = TypeVar("_T")


class PluginExtractor:
    """An extractor that a plugin makes, checked at load and in every batch.

    Parameters
    ----------
    plugin : Plugin
        Called as ``NAME(device=…, weights=…)``; gives an `Extractor`.
    device : str
        ``cpu``, ``cuda:N`` or so, never ``auto``.
    weights : Path or None
        What ``--weights`` names.

    Raises
    ------
    UsageError
        It is no extractor, or does not do what it says.
    """

    def __init__(self, plugin: Plugin, device: str, weights: Path | None) -> None:
        made = plugin.make(device=device, weights=weights)
        self._extractor: Extractor = made
        self._spec = plugin.spec
        if not callable(made):
            raise UsageError(
                f"{plugin.spec} needs `__call__(self, faces)`, which returns `Extraction` "
                "(docs/extending.md shows one)"
            )
        self.name = _own(made, plugin, "name", str)
        self.schema = _own(made, plugin, "schema", Schema)
        self.crop = _own(made, plugin, "crop", Crop, ALIGNED)
        self.embedding_dim = _own(made, plugin, "embedding_dim", int, 0)
        self.device = _own(made, plugin, "device", str, "cpu")
        self.concurrent = _own(made, plugin, "concurrent", bool, False)
        self.sha256 = _own(made, plugin, "sha256", str, "") or plugin.sha256
        self.extra: Mapping[str, Any] = {
            **_json(getattr(made, "extra", {}), plugin),
            "code": {"name": plugin.name, "sha256": plugin.sha256},
        }
        try:
            self(np.full((2, self.crop.size, self.crop.size, 3), 127, np.uint8))
        except EngineError as error:
            raise UsageError(str(error)) from error

    def __call__(self, faces: NDArray[np.uint8]) -> Extraction:
        """Compute affect vectors, see `Extractor`.

        Raises
        ------
        EngineError
            The plugin fails, or gives what is not one row of finite numbers a face.
        """
        check_faces(self.name, faces, self.crop.size)
        try:
            found = self._extractor(faces)
            if not isinstance(found, Extraction):
                raise EngineError(
                    f"{self._spec}: `__call__` must return `Extraction`, not "
                    f"{type(found).__name__} (docs/extending.md shows one)"
                )
            if self.embedding_dim and found.embedding is None:
                raise EngineError(
                    f"{self._spec}: its embedding_dim is {self.embedding_dim}, and `__call__` "
                    "returned an `Extraction` without an embedding"
                )
            affect = np.asarray(found.affect, np.float32)
            embedding = None
            if self.embedding_dim:
                embedding = np.asarray(found.embedding, np.float16)
        except EngineError:
            raise
        except Exception as error:  # whatever it is, it is the plugin's
            raise EngineError(f"{self._spec} fails: {type(error).__name__}: {error}") from error
        self._check("affect", affect, len(faces), len(self.schema))
        if embedding is not None:
            self._check("embedding", embedding, len(faces), self.embedding_dim)
        return Extraction(affect, embedding)

    def _check(self, what: str, values: NDArray[np.floating], count: int, columns: int) -> None:
        if values.shape != (count, columns):
            raise EngineError(
                f"{self._spec} gives {what} of shape {values.shape} for {count} faces; it should "
                f"be {(count, columns)}"
            )
        if not np.isfinite(values).all():
            raise EngineError(f"{self._spec} gives {what} that is not finite")


def _json(extra: Mapping[str, Any], plugin: Plugin) -> dict[str, Any]:
    """Give what goes into a store's provenance as it will be read from there."""
    try:
        return dict(json.loads(json.dumps(dict(extra))))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{plugin.spec}: its extra is no dict in JSON types: {error}") from error


def _own(made: object, plugin: Plugin, name: str, kind: type[_T], default: _T | None = None) -> _T:
    """Give an attribute of what a plugin made, of the right type."""
    value = getattr(made, name, default)
    if not isinstance(value, kind):
        raise UsageError(
            f"{plugin.spec} makes no extractor: its {name} is {value!r}, not a {kind.__name__} "
            "(docs/extending.md shows one)"
        )
    return value
