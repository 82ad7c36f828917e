"""Reading a store: only what is committed, one video, some, or all of it as ragged rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from feie.features.errors import FeieError, StoreError, UnknownNameError, UsageError, one_line
from feie.features.store.backends.location import open_root, refuse_absent
from feie.features.store.contents import StoreContents
from feie.features.store.layout import OK
from feie.features.store.rows import RaggedRows, read_ragged
from feie.features.store.view import VideoView
from feie.features.text import suggest

if TYPE_CHECKING:
    import xarray

__all__ = ["RaggedRows", "Store", "VideoView", "open_store", "read_attributes", "refuse_absent"]

_READ_AGAIN = 5


class Store(StoreContents, Mapping[str, VideoView]):
    """A store opened for reading at its last commit; see `open_store`.

    It is a mapping: ``store["video id"]`` is a `VideoView`, ``len(store)`` the number of videos,
    and iteration gives their ids, sorted; ``store.items()`` gives both. Videos that failed are in
    `failures` and nowhere else. Opening reads the index, a row a video, and no frame. A store may
    be handed to other processes: each opens it again for itself, at the same commit.

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
    rows : pandas.DataFrame
        All committed rows of ``video/``, superseded ones included, in stored order.
    videos : pandas.DataFrame
        One row a video id (the newest where a source was redone), indexed by id; columns
        ``offset, length, fps, width, height, source, size, mtime_ns, fingerprint, faces, status,
        message``.

    Examples
    --------
    >>> import feie
    >>> store = feie.open_store("features.zarr")
    >>> len(store), list(store)[:2]
    (6, ['face-001', 'face-002'])
    >>> {video_id: len(video) for video_id, video in store.items()}["face-001"]
    48
    >>> "face-007" in store, store.failures
    (False, {'face-007': 'empty: no bytes'})
    >>> store["face-01"]
    Traceback (most recent call last):
    ...
    feie.features.errors.UnknownNameError: features.zarr has no video 'face-01'; \
did you mean 'face-001' or 'face-006' or 'face-005'?
    """

    def __repr__(self) -> str:
        frames = sum(stop - start for start, stop, _ in self._places.values())
        columns = len(self.schema)
        return f"<feie store {self.path}: {len(self)} videos, {frames} frames, {columns} columns>"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __len__(self) -> int:
        """Give the number of videos that were extracted without failure."""
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __getitem__(self, video_id: str) -> VideoView:
        if video_id in self._places:
            return VideoView(self, video_id, *self._places[video_id])
        if video_id in (failures := self.failures):
            raise UnknownNameError(
                f"video {video_id!r} of {self.path} failed: {failures[video_id]}"
            )
        if not isinstance(video_id, str):
            raise TypeError(f"videos are found by their id, a text; {video_id!r} is none")
        raise UnknownNameError(f"{self.path} has no video {video_id!r}{suggest(video_id, self)}")

    def select(self, *patterns: str) -> Store:
        """Give the same store with fewer videos.

        Parameters
        ----------
        *patterns : str
            Ids, or shell patterns of ids (``*`` also crosses ``/``, ``?``, ``[a-c]``): a video
            stays if one of them fits.

        Raises
        ------
        UnknownNameError
            A pattern fits no video.

        Examples
        --------
        >>> store.select("face-00[1-3]", "face-006").ids
        ['face-001', 'face-002', 'face-003', 'face-006']
        """
        chosen = np.zeros(len(self.videos), np.bool_)
        for pattern in patterns:
            fits = re.compile(translate(pattern)).match
            found = np.array([fits(str(video)) is not None for video in self.videos.index], bool)
            if not found.any():
                raise UnknownNameError(
                    f"{self.path} has no video that fits {pattern!r}{suggest(pattern, self)}"
                )
            chosen |= found
        other = copy(self)
        other._choose(self.videos[chosen])
        return other

    def to_pandas(self) -> pd.DataFrame:
        """Give the index, a row a video that was extracted without failure, sorted by id.

        Returns
        -------
        pandas.DataFrame
            Indexed by ``id``: ``length`` (frames), ``faces`` (share of frames with one), ``fps``,
            ``width``, ``height``, ``source``. All that is kept of a video is in `videos`.

        Examples
        --------
        >>> store.to_pandas()["length"].to_dict()["face-001"]
        48
        """
        good = self.videos[self.videos["status"] == OK]
        return good[["length", "faces", "fps", "width", "height", "source"]].copy()

    def to_xarray(self) -> xarray.Dataset:
        """Give the store as CF's contiguous ragged array; frames are read when they are used.

        Returns
        -------
        xarray.Dataset
            Dimensions ``frame``, ``column`` and ``video``, see
            `feie.features.store.xarray.dataset`.

        Raises
        ------
        UsageError
            xarray is not installed: ``pip install 'feie[xarray]'`` does it.

        Examples
        --------
        >>> data = store.to_xarray()
        >>> dict(data.sizes)["video"], data["affect"].dims
        (6, ('frame', 'column'))
        >>> int(data["affect"].sel(column="valence").isel(frame=slice(0, 48)).count())
        39
        """
        try:
            from feie.features.store.xarray import dataset
        except ImportError:
            raise UsageError("to_xarray needs xarray: pip install 'feie[xarray]'") from None
        return dataset(self)

    def read(
        self, ids: Sequence[str] | None = None, columns: Sequence[int] | None = None
    ) -> RaggedRows:
        """Read many videos at once.

        Parameters
        ----------
        ids : sequence of str, optional
            Videos in the wanted order; all of `ids` by default.
        columns : sequence of int, optional
            Columns of ``affect`` in the wanted order; all by default.

        Returns
        -------
        RaggedRows
            Peak memory is the result plus one block of 65,536 rows.

        Raises
        ------
        UsageError
            A video that the store lacks.
        StoreError
            A chunk is damaged, or gone: without a word of zarr that would read as frames
            without a face.
        """
        return read_ragged(self, ids, columns)


def open_store(path: str | Path, storage_options: Mapping[str, Any] | None = None) -> Store:
    """Open a store for reading, at its last commit.

    Parameters
    ----------
    path : str or Path
        A folder, or any address that fsspec knows (``s3://…``, ``https://…``).
    storage_options : mapping, optional
        What fsspec needs for the address, e.g. ``{"anon": True}`` for a public bucket or
        ``{"endpoint_url": "https://s3.example.org"}`` for one that is not Amazon's.

    Returns
    -------
    Store
        Its index is in memory, of its frames none. From an address this takes some 30 requests,
        and 13 more for every 4,096 videos.

    Raises
    ------
    StoreNotFoundError
        Nothing is there.
    StoreVersionError
        It follows a specification that this version cannot read.
    StoreError
        It is something else, or damaged, or cannot be reached.

    Examples
    --------
    >>> import feie
    >>> store = feie.open_store("features.zarr")
    >>> store
    <feie store features.zarr: 6 videos, 283 frames, 26 columns>
    >>> store["face-001"].affect.shape
    (48, 26)
    """
    text = str(path)
    refuse_absent(text)
    try:
        for _ in range(_READ_AGAIN):
            store = Store(text, storage_options)
            # A writer may have replaced a video between the mark and the index that was read.
            if read_attributes(text, storage_options) == store.attributes:
                break
        return store
    except FeieError:
        raise
    except PermissionError as error:
        raise StoreError(f"{text} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged file may fail anywhere inside zarr and the codecs
        why = one_line(error)
        raise StoreError(f"{text} is damaged ({why}): run `feie verify {text}`") from error


def read_attributes(path: str, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the root attributes of a Zarr group, whatever it is."""
    return dict(open_root(path, storage_options).attrs)
