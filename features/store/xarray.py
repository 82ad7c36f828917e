"""A store as an `xarray.Dataset`: CF's contiguous ragged array, read when it is used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from feie.features.store.layout import OK, VIDEO_ARRAYS, frame_arrays

if TYPE_CHECKING:
    from feie.features.store.contents import StoreContents

_OF_VIDEOS = ("length", "fps", "width", "height", "source", "faces")


def dataset(store: StoreContents) -> xarray.Dataset:
    """Give the videos of a store that were extracted without failure, in stored order.

    Parameters
    ----------
    store : StoreContents

    Returns
    -------
    xarray.Dataset
        ``affect`` (frame, column) and the other frame arrays, of which nothing is read yet;
        ``length`` (video) with CF's attribute ``sample_dimension``, ``fps``, ``width``,
        ``height``, ``source`` and ``faces``. Coordinates: ``column`` (names), ``group`` (column),
        ``video`` (ids) and ``start`` (video), the video's first frame in this dataset.
    """
    good = store.videos[store.videos["status"] == OK].sort_values("offset")
    lengths = good["length"].to_numpy(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    rows = _rows(good["offset"].to_numpy(np.int64), starts, lengths)
    variables: dict[str, Any] = {}
    for spec in frame_arrays(store.schema, int(store.has_embedding)):
        lazy = indexing.LazilyIndexedArray(_StoredArray(store, spec.name))
        about = {**spec.attributes, **store.array(spec.name).attrs}
        about = {k: _plain(v) for k, v in about.items() if k not in ("columns", "groups")}
        variables[spec.name] = xarray.Variable(spec.dims, lazy, about)[rows]
    about = {s.name: {k: _plain(v) for k, v in s.attributes.items()} for s in VIDEO_ARRAYS}
    for name in _OF_VIDEOS:
        variables[name] = xarray.Variable(("video",), good[name].to_numpy(), about[name])
    made_by = store.provenance["extractor"]["name"]
    return xarray.Dataset(
        variables,
        coords={
            "column": list(store.columns),
            "group": ("column", _groups(store)),
            "video": ("video", good.index.to_numpy(str), about["id"]),
            "start": ("video", starts, {"long_name": "first frame of the video"}),
        },
        attrs={"Conventions": "CF-1.11", "featureType": "trajectory", "extractor": made_by},
    )


def _rows(
    offsets: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> slice | NDArray[np.int64]:
    """Say which stored rows the videos take: one run, unless some between were replaced."""
    if not len(offsets):
        return slice(0, 0)
    if (offsets - offsets[0] == starts).all():
        return slice(int(offsets[0]), int(offsets[-1] + lengths[-1]))
    return np.repeat(offsets - starts, lengths) + np.arange(int(lengths.sum()))


def _plain(value: Any) -> Any:
    """Give an attribute as every version of netCDF has it: texts and numbers, no lists of texts."""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


def _groups(store: StoreContents) -> list[str]:
    groups = [""] * len(store.columns)
    for name, (start, stop) in store.groups.items():
        groups[start:stop] = [name] * (stop - start)
    return groups


class _StoredArray(BackendArray):
    """A frame array of a store, as xarray's backends give theirs: indexing it reads nothing."""

    def __init__(self, store: StoreContents, name: str) -> None:
        array = store.array(name)
        self._store, self._name = store, name
        self.shape, self.dtype = array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return self._store.read_outer(self._name, key)
