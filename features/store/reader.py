"""Reading a store: only what is committed, one video, some, or all of it as ragged rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from feie.features.errors import (
    FeieError,
    StoreError,
    StoreNotFoundError,
    StoreVersionError,
    UsageError,
)
from feie.features.schema import Schema
from feie.features.store.layout import (
    FAILED,
    OK,
    SPEC_VERSION,
    STATUSES,
    SUPERSEDED,
    VIDEO_ARRAYS,
)

_BLOCK_ROWS = 65_536
_READ_AGAIN = 5
_ROUNDING = 1e-3


@dataclass(frozen=True)
class RaggedRows:
    """Rows of several videos, concatenated.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, columns)
        NaN where no face was found.
    valid : ndarray of bool, shape (rows,)
    offsets : ndarray of int64, shape (videos + 1,)
        Rows of video i are ``offsets[i]:offsets[i + 1]``.
    ids : list of str
        Video ids, one a video.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    ids: list[str]


class VideoView:
    """One video of a store, read when asked for."""

    def __init__(self, store: Store, video_id: str, start: int, stop: int) -> None:
        self._store = store
        self.id = video_id
        self._rows = slice(start, stop)

    def __len__(self) -> int:
        return self._rows.stop - self._rows.start

    def _read(self, name: str) -> NDArray[Any]:
        return self._store.values(name, self._rows)

    @property
    def affect(self) -> NDArray[np.float32]:
        """Affect vectors, shape (frames, columns); NaN where no face was found."""
        return self._read("affect")

    @property
    def time(self) -> NDArray[np.float64]:
        """Presentation time stamps in seconds, shape (frames,)."""
        return self._read("time")

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether a face was found, shape (frames,)."""
        return self._read("valid")

    @property
    def face_score(self) -> NDArray[np.float32]:
        """Detector scores, shape (frames,); NaN without one."""
        return self._read("face_score")

    @property
    def bbox(self) -> NDArray[np.float32]:
        """Face boxes x0, y0, x1, y1 in pixels, shape (frames, 4)."""
        return self._read("bbox")

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """Five ArcFace points in pixels, shape (frames, 5, 2)."""
        return self._read("landmarks")


class Store:
    """A store opened for reading at its last commit; see `open_store`.

    Attributes
    ----------
    path : str
        Where it was opened from.
    schema : Schema
        Columns and groups of ``affect``.
    attributes : dict
        Root attributes, provenance included.
    rows : pandas.DataFrame
        All committed rows of ``video/``, superseded ones included, in stored order.
    videos : pandas.DataFrame
        One row a video id (the newest where a source was redone), indexed by id; columns
        ``offset, length, fps, width, height, source, size, mtime_ns, fingerprint, faces, status,
        message``.
    """

    def __init__(self, path: str, root: zarr.Group) -> None:
        self.path = path
        self._root = root
        self.attributes: dict[str, Any] = dict(root.attrs)
        _check_attributes(path, self.attributes)
        self.schema = Schema(
            tuple(self.attributes["columns"]),
            {k: (int(v[0]), int(v[1])) for k, v in self.attributes["groups"].items()},
        )
        self.committed: int = self.attributes["committed"]
        self.rows = self._read_index()
        latest = self.rows[~self.rows["id"].duplicated(keep="last")]
        self.videos = latest[latest["status"] != SUPERSEDED].set_index("id").sort_index()

    def values(self, name: str, rows: slice) -> NDArray[Any]:
        """Read rows of one array.

        Raises
        ------
        StoreError
            They are not there, or damaged.
        """
        try:
            return np.asarray(self.array(name)[rows])
        except FeieError:
            raise
        except Exception as error:  # the codecs raise several kinds
            raise StoreError(
                f"{self.path}: {name} cannot be read ({error}): run `feie verify {self.path}`"
            ) from error

    def array(self, name: str) -> zarr.Array[Any]:
        """Give one array by its path in the store, e.g. ``"affect"`` or ``"video/id"``."""
        found = self._root.get(name)
        if not isinstance(found, zarr.Array):
            raise StoreError(f"{self.path} has no array {name!r}: run `feie verify {self.path}`")
        return found

    def _read_index(self) -> pd.DataFrame:
        """Read all committed rows of ``video/``, superseded ones included, in stored order."""
        count = self.committed
        table: dict[str, Any] = {}
        for spec in VIDEO_ARRAYS:
            rows = count + (spec.name == "offset")
            values = self.values(f"video/{spec.name}", slice(rows))
            if len(values) < rows:
                raise StoreError(
                    f"{self.path}: video/{spec.name} has {len(values)} rows, {count} are committed"
                )
            table[spec.name] = [str(v) for v in values] if spec.dtype is str else np.asarray(values)
        offsets, lengths = table["offset"], table["length"]
        # A chunk that is gone reads as zeros, which would hand out the rows of other videos.
        if offsets[0] != 0 or (np.diff(offsets) != lengths).any() or (lengths < 0).any():
            raise StoreError(f"{self.path} is damaged: video/offset and video/length do not agree")
        if not set(table["status"]) <= set(STATUSES):
            raise StoreError(f"{self.path} is damaged: video/status holds unknown words")
        table["offset"] = offsets[:-1]
        return pd.DataFrame(table)

    @property
    def has_embedding(self) -> bool:
        """Whether the extractor's embedding of each face is kept, as array ``embedding``."""
        return "embedding" in self._root

    @property
    def ids(self) -> list[str]:
        """Ids of the videos that were extracted without failure, sorted."""
        found: list[str] = self.videos.index[self.videos["status"] == OK].to_list()
        return found

    @property
    def failed(self) -> dict[str, str]:
        """Failed videos: id to reason."""
        rows = self.videos[self.videos["status"] == FAILED]
        return {str(k): str(v) for k, v in rows["message"].items()}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the numbers: extractor, detector, options, sessions."""
        found: Mapping[str, Any] = self.attributes["provenance"]
        return found

    @property
    def fingerprint(self) -> str:
        """``sha256:…`` over the columns, what made them and the committed sources."""
        made_by = {k: v for k, v in self.provenance.items() if k != "sessions"}
        rows = self.videos[["fingerprint", "length", "status"]]
        text = json.dumps(
            [self.attributes["columns"], made_by, rows.reset_index().to_numpy().tolist()],
            sort_keys=True,
        )
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        return bool(self.videos["status"].get(video_id) == OK)

    def __getitem__(self, video_id: str) -> VideoView:
        if video_id not in self.videos.index:
            raise UsageError(f"{self.path} has no video {video_id!r} (see `feie info`)")
        row: Mapping[Any, Any] = self.videos.loc[video_id].to_dict()
        if row["status"] == FAILED:
            raise UsageError(f"video {video_id!r} of {self.path} failed: {row['message']}")
        start = int(row["offset"])
        return VideoView(self, video_id, start, start + int(row["length"]))

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
        wanted = self.ids if ids is None else list(ids)
        usable = set(self.ids)
        missing = [v for v in wanted if v not in usable]
        if missing:
            raise UsageError(f"{self.path} has no video {missing[0]!r} ({len(missing)} missing)")
        every = list(range(len(self.schema)))
        picked = every if columns is None else list(columns)
        rows = self.videos.loc[wanted]
        lengths = rows["length"].to_numpy(np.int64)
        starts = rows["offset"].to_numpy(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = np.empty((int(offsets[-1]), len(picked)), np.float32)
        valid = np.empty(int(offsets[-1]), np.bool_)
        for start, stop, pieces in _blocks(starts, offsets[:-1], lengths):
            block = self.values("affect", slice(start, stop))
            flags = self.values("valid", slice(start, stop))
            if picked != every:
                block = block[:, picked]
            for source, target, count in pieces:
                rows_of = slice(source - start, source - start + count)
                values[target : target + count] = block[rows_of]
                valid[target : target + count] = flags[rows_of]
        _refuse_blanks(self.path, values, valid, offsets, rows["faces"])
        return RaggedRows(values, valid, offsets, wanted)


def _refuse_blanks(
    path: str,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    offsets: NDArray[np.int64],
    faces: pd.Series,
) -> None:
    """Raise `StoreError` where rows that were written with a face are blank.

    A chunk without a value is not stored, so one that is gone looks like it: what tells them
    apart is the index, which knows each video's share of faces.
    """
    counted = np.concatenate([[0], np.cumsum(valid)])[offsets]
    lengths = np.maximum(np.diff(offsets), 1)
    lost = np.abs(np.diff(counted) / lengths - faces.to_numpy(np.float64)) > _ROUNDING
    if values.shape[1]:
        # All columns of a row lie in one chunk.
        blank = np.flatnonzero(valid & np.isnan(values[:, 0]))
        lost[np.searchsorted(offsets, blank, side="right") - 1] = True
    # A share that cannot be compared is damage too.
    lost |= ~np.isfinite(faces.to_numpy(np.float64))
    if lost.any():
        video = str(faces.index[int(np.flatnonzero(lost)[0])])
        raise StoreError(
            f"{path} is damaged: the faces of {int(lost.sum())} videos, e.g. {video!r}, are not as "
            f"its index says, as if a chunk were gone; run `feie verify {path}`"
        )


def _blocks(
    starts: NDArray[np.int64], targets: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Iterator[tuple[int, int, list[tuple[int, int, int]]]]:
    """Cut the wanted rows into chunk-aligned blocks, so that no chunk is decoded twice.

    Yields
    ------
    start, stop : int
        Stored rows of the block.
    pieces : list of (source, target, count)
        Where runs of wanted rows lie in the store and where they go.
    """
    pieces: dict[int, list[tuple[int, int, int]]] = {}
    for start, target, length in zip(starts, targets, lengths, strict=True):
        source, at, left = int(start), int(target), int(length)
        while left:
            block = source // _BLOCK_ROWS
            count = min(left, (block + 1) * _BLOCK_ROWS - source)
            pieces.setdefault(block, []).append((source, at, count))
            source, at, left = source + count, at + count, left - count
    for block in sorted(pieces):
        wanted = pieces[block]
        yield (
            min(source for source, _, _ in wanted),
            max(source + count for source, _, count in wanted),
            wanted,
        )


def open_store(path: str | Path) -> Store:
    """Open a store for reading, at its last commit.

    Parameters
    ----------
    path : str or Path
        A folder, or any URL that fsspec knows (``s3://…``, ``https://…``).

    Raises
    ------
    StoreNotFoundError
        Nothing is there.
    StoreVersionError
        It follows a specification that this version cannot read.
    StoreError
        It is something else, or damaged.

    Examples
    --------
    >>> store = open_store("features.zarr")      # doctest: +SKIP
    >>> store[store.ids[0]].affect.shape         # doctest: +SKIP
    (95, 26)
    """
    text = str(path)
    refuse_absent(text)
    try:
        for _ in range(_READ_AGAIN):
            store = Store(text, _open_root(text))
            # A writer may have replaced a video between the mark and the index that was read.
            if read_attributes(text) == store.attributes:
                break
        return store
    except FeieError:
        raise
    except PermissionError as error:
        raise StoreError(f"{text} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged file may fail anywhere inside zarr and the codecs
        raise StoreError(f"{text} is damaged ({error}): run `feie verify {text}`") from error


def refuse_absent(path: str) -> None:
    """Raise `StoreNotFoundError` where a local path holds nothing."""
    try:
        if "://" in path or Path(path).exists():
            return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    raise StoreNotFoundError(
        f"there is no store at {path}; `feie extract --videos DIR --store {path}` makes one"
    )


def read_attributes(path: str) -> dict[str, Any]:
    """Read the root attributes of a Zarr group, whatever it is."""
    return dict(_open_root(path).attrs)


def _open_root(path: str) -> zarr.Group:
    try:
        return zarr.open_group(path, mode="r", use_consolidated=False)
    except FileNotFoundError:
        raise StoreNotFoundError(f"{path} holds no Zarr group, so it is no feie store") from None
    except ImportError as error:
        raise StoreError(f"{path} cannot be opened: {error}; pip install it") from None


def _check_attributes(path: str, attributes: Mapping[str, Any]) -> None:
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
    if not sound:
        raise StoreError(f"{path} is damaged: its root attributes break the specification")
