"""What a store holds, at its last commit: attributes, index, and rows of its arrays.

Everything that is read of a store goes through here, and what a damaged or hostile store may say
of itself is compared with the specification before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, VLenUTF8Codec

from feie.features.errors import FeieError, StoreError, StoreVersionError, one_line
from feie.features.schema import Schema
from feie.features.store.backends.bounds import MOST_BYTES
from feie.features.store.backends.location import is_url, open_root
from feie.features.store.chunks import ChunkCache
from feie.features.store.index import read_index
from feie.features.store.layout import (
    FAILED,
    OK,
    SPEC_VERSION,
    SUPERSEDED,
    VIDEO_ARRAYS,
    ArraySpec,
    frame_arrays,
)

_CODECS = (BloscCodec, Crc32cCodec)


class StoreContents:
    """The arrays of a store by their names, and its index; see `open_store`.

    Attributes
    ----------
    path : str
        Where it was opened from.
    schema : Schema
        Columns and groups of ``affect``.
    attributes : dict
        Root attributes, provenance included.
    committed : int
        Rows of ``video/`` that count.
    frames : int
        Rows of the frame arrays that count.
    rows : pandas.DataFrame
        All committed rows of ``video/``, superseded ones included, in stored order.
    videos : pandas.DataFrame
        See `Store`.

    Raises
    ------
    StoreError
        What the store says of itself breaks the specification.
    """

    def __init__(self, path: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._storage_options = dict(storage_options or {})
        self._handles = _Handles(path, self._storage_options)
        self.attributes: dict[str, Any] = dict(self._handles.root.attrs)
        self.schema = _checked_schema(path, self.attributes)
        self.committed: int = self.attributes["committed"]
        self.frames = 0
        self.rows: pd.DataFrame = read_index(path, self.committed, self.read_rows)
        self.frames = int(self.rows["length"].sum())
        latest = self.rows[~self.rows["id"].duplicated(keep="last")]
        self._choose(latest[latest["status"] != SUPERSEDED].set_index("id").sort_index())
        self._every = self.videos

    def _choose(self, videos: pd.DataFrame) -> None:
        self.videos = videos
        good = videos[videos["status"] == OK]
        starts, lengths = good["offset"].tolist(), good["length"].tolist()
        self._places: dict[str, tuple[int, int, float]] = {
            str(video): (start, start + length, faces)
            for video, start, length, faces in zip(
                good.index, starts, lengths, good["faces"].tolist(), strict=True
            )
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_handles"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _handles=None)

    def _opened(self) -> _Handles:
        # A child process must not use its parent's connections and event loops.
        if self._handles is None or self._handles.pid != os.getpid():
            self._handles = _Handles(self.path, self._storage_options)
        return self._handles

    def read_rows(self, name: str, rows: slice) -> NDArray[Any]:
        """Read rows of one array.

        Raises
        ------
        StoreError
            They are not there, or damaged.
        """
        with self._damage_named(name):
            return np.asarray(self.array(name)[rows])

    def read_outer(self, name: str, key: tuple[Any, ...]) -> NDArray[Any]:
        """Read by one index, slice or array of indices a dimension."""
        with self._damage_named(name):
            return np.asarray(self.array(name).oindex[key])

    def read_cached(self, name: str, rows: slice) -> NDArray[Any]:
        """Read a few rows as `read_rows` does; what was read last is kept, see `ChunkCache`."""
        with self._damage_named(name):
            return self._opened().chunks.rows(self.array(name), rows.start, rows.stop)

    @contextmanager
    def _damage_named(self, name: str) -> Iterator[None]:
        try:
            yield
        except FeieError:
            raise
        except Exception as error:  # the codecs and the networks raise many kinds
            cure = "try again" if is_url(self.path) else f"run `feie verify {self.path}`"
            raise StoreError(
                f"{self.path}: {name} cannot be read ({one_line(error)}): {cure}"
            ) from error

    def array(self, name: str) -> zarr.Array[Any]:
        """Give one array by its path in the store, e.g. ``"affect"`` or ``"video/id"``.

        Raises
        ------
        StoreError
            It is not there, or not as the specification wants it.
        """
        opened = self._opened()
        if name not in opened.arrays:
            with self._damage_named(name):
                found = opened.root.get(name)
            why = self._oddity(name, found)
            if why or not isinstance(found, zarr.Array):
                raise StoreError(f"{self.path}: {why}: run `feie verify {self.path}`")
            opened.arrays[name] = found
        return opened.arrays[name]

    def _oddity(self, name: str, found: object) -> str:
        """Say how an array differs from what it may be; nothing where it does not."""
        if not isinstance(found, zarr.Array):
            return f"there is no array {name!r}"
        spec = self._specs.get(name)
        if spec is None:
            return coding_oddity(found)
        shape = found.shape[1:] if name == "embedding" else spec.shape
        rows = 0 if name.startswith("video/") else self.frames
        return type_oddity(found, spec, shape) or row_oddity(found, rows) or coding_oddity(found)

    @cached_property
    def _specs(self) -> dict[str, ArraySpec]:
        frames = {spec.name: spec for spec in frame_arrays(self.schema, 1)}
        return {**frames, **{f"video/{spec.name}": spec for spec in VIDEO_ARRAYS}}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the affect vector's columns, in stored order."""
        return self.schema.columns

    @property
    def groups(self) -> dict[str, tuple[int, int]]:
        """Groups of columns as half-open ranges, e.g. ``{"va": (0, 2)}``."""
        return dict(self.schema.groups)

    @cached_property
    def has_embedding(self) -> bool:
        """Whether the extractor's embedding of each face is kept, as array ``embedding``."""
        with self._damage_named("embedding"):
            return "embedding" in self._opened().root

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the numbers: extractor, detector, options, sessions."""
        found: Mapping[str, Any] = self.attributes["provenance"]
        return found

    @property
    def ids(self) -> list[str]:
        """Ids of the videos that were extracted without failure, sorted."""
        return list(self._places)

    @property
    def failures(self) -> dict[str, str]:
        """Failed videos: id to reason."""
        rows = self.videos[self.videos["status"] == FAILED]
        return {str(k): str(v) for k, v in rows["message"].items()}

    @property
    def fingerprint(self) -> str:
        """``sha256:…`` over the columns, what made them and the committed sources."""
        made_by = {k: v for k, v in self.provenance.items() if k != "sessions"}
        rows = self._every[["fingerprint", "length", "status"]]
        text = json.dumps(
            [self.attributes["columns"], made_by, rows.reset_index().to_numpy().tolist()],
            sort_keys=True,
        )
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def type_oddity(array: zarr.Array[Any], spec: ArraySpec, width: tuple[int, ...]) -> str:
    """Say how type and shape of an array differ from what they must be; nothing where they do not.

    Parameters
    ----------
    array : zarr.Array
    spec : ArraySpec
    width : tuple of int
        What must follow the first dimension.
    """
    is_text = spec.dtype is str
    if is_text != (array.dtype.kind == "T") or not (is_text or array.dtype == spec.dtype):
        return f"{array.path} has type {array.dtype}"
    if array.ndim != 1 + len(spec.shape) or array.shape[1:] != width:
        return f"{array.path} has shape {array.shape}"
    return ""


def row_oddity(array: zarr.Array[Any], rows: int) -> str:
    """Say that an array has fewer rows than are committed; nothing where it has not."""
    if array.shape[0] >= rows:
        return ""
    return f"{array.path} has shape {array.shape}, {rows} rows are committed"


def coding_oddity(array: zarr.Array[Any]) -> str:
    """Say why the chunks of an array cannot be unpacked without danger."""
    name, is_text = array.path, array.dtype.kind == "T"
    size = array.dtype.itemsize * int(np.prod([int(n) for n in array.chunks], dtype=object))
    if not is_text and size > MOST_BYTES:
        return f"{name} has chunks of {size >> 20} MB, {MOST_BYTES >> 20} MB are allowed"
    codecs = array.compressors
    packed = [codec for codec in codecs if not isinstance(codec, Crc32cCodec)]
    plain = isinstance(array.serializer, BytesCodec | VLenUTF8Codec)
    if array.filters or array.shards or not plain or len(packed) > 1:
        return f"{name} is coded in a way that feie does not read"
    if not all(isinstance(codec, _CODECS) for codec in codecs):
        return f"{name} is compressed by {type(packed[0]).__name__}, not by blosc"
    return ""


class _Handles:
    """What a process opened of a store: it is no other's."""

    def __init__(self, path: str, storage_options: Mapping[str, Any]) -> None:
        self.pid = os.getpid()
        self.root = open_root(path, storage_options)
        self.arrays: dict[str, zarr.Array[Any]] = {}
        self.chunks = ChunkCache()


def _checked_schema(path: str, attributes: Mapping[str, Any]) -> Schema:
    version = str(attributes.get("spec_version", ""))
    if not version:
        raise StoreError(f"{path} is a Zarr group but no feie store (no spec_version)")
    if version.split(".")[0] != SPEC_VERSION.split(".")[0]:
        raise StoreVersionError(
            f"{path} follows specification {version}, this feie reads {SPEC_VERSION}; "
            f"use the feie that made it or extract again"
        )
    made, committed = attributes.get("provenance"), attributes.get("committed")
    sound = (
        isinstance(made, dict)
        and isinstance(made.get("extractor"), dict)
        and isinstance(made.get("options"), dict)
        and isinstance(made.get("detector", ""), dict | None)
        and isinstance(made.get("sessions"), list)
        and type(committed) is int
        and committed >= 0
    )
    if sound:
        try:
            return _schema(attributes)
        except (TypeError, KeyError, AttributeError, IndexError, ValueError):
            pass
    raise StoreError(f"{path} is damaged: its root attributes break the specification")


def _schema(attributes: Mapping[str, Any]) -> Schema:
    groups = {name: (int(span[0]), int(span[1])) for name, span in attributes["groups"].items()}
    columns = attributes["columns"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise TypeError("columns are a list of texts")
    return Schema(tuple(columns), groups)
