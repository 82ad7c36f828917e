"""Writing a store: one writer, buffered appends, and commits that survive a kill at any instant."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr

from feie.features.errors import FeieError, StoreError, StoreMismatchError, one_line
from feie.features.files import json_object
from feie.features.store.backends.base import disk_errors
from feie.features.store.backends.opening import backend_of
from feie.features.store.layout import (
    FAILED,
    OK,
    SPEC_VERSION,
    SUPERSEDED,
    VIDEO_ARRAYS,
    create_store,
    frame_arrays,
)
from feie.features.store.reader import Store, open_store
from feie.features.store.records import StoreSettings, VideoRecord

_COMMIT_BYTES = 128 << 20  # of buffered rows, however few the videos are

_SHOWN = 30  # columns in a message

_ENDS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
# What a store carries from its first byte until it is laid out: whoever finds it may start anew.
_UNFINISHED = {"feie": "being laid out"}


class StoreWriter:
    """The one coordinator that appends to a store.

    Use as a context manager. `append` buffers; `commit` makes everything buffered count, at
    once and durably; leaving the block commits. Opening drops rows that a killed writer left
    beyond its last commit.

    Parameters
    ----------
    path : str or Path
        A folder, or an address that fsspec writes to (``s3://…``); made if absent.
    settings : StoreSettings
        Checked against the store's provenance.
    commit_videos, commit_seconds : int, float
        `append` commits by itself at that many buffered videos or that much time since the last
        commit. Each commit rewrites the tail chunks, so a commit a video costs some 100 times
        more than one in 256.
    waiting : callable, optional
        Told, in a sentence, when it is watched whether another writer of an address is alive.

    Raises
    ------
    StoreLockedError
        Another process writes this store.
    StoreMismatchError
        The store was made with other weights or options; the message says which.
    StoreError
        The place holds something else, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        settings: StoreSettings,
        *,
        commit_videos: int = 256,
        commit_seconds: float = 30.0,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        self._backend = backend_of(path, waiting)
        self.path = self._backend.name
        self._settings = settings
        self._commit_videos = commit_videos
        self._commit_seconds = commit_seconds
        self._buffer: list[VideoRecord] = []
        self._buffered_bytes = 0
        self._retired: set[str] = set()
        self._in_commit = False

    def __enter__(self) -> StoreWriter:
        with disk_errors(self._backend):
            self._backend.refuse_foreign()
            self._backend.claim()
        try:
            with disk_errors(self._backend):
                self._open()
        except BaseException as error:
            self._backend.release()
            if isinstance(error, FeieError) or not isinstance(error, Exception):
                raise
            # A damaged file may fail anywhere inside zarr and the codecs.
            raise StoreError(
                f"{self.path} is damaged ({one_line(error)}): run `feie verify {self.path}`"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # A commit that broke off has said why; to try it again would only hide that.
            if not self._in_commit:
                self.commit()
        finally:
            self._backend.release()

    def _open(self) -> None:
        root = self._backend.root()
        if root is None:
            zarr.create_group(self._backend.disk, attributes=_UNFINISHED)
            self._backend.appeared()
            unfinished = True
        else:
            unfinished = _is_unfinished(root) or open_store(self.path).committed == 0
        self._backend.tidy()
        self._root = zarr.open_group(self._backend.disk, mode="r+", use_consolidated=False)
        if unfinished:
            self._create()
        store = open_store(self.path)
        _check_same(store, self._settings)
        self._adopt(store)

    def _create(self) -> None:
        # The attributes come last: whoever is killed before leaves a store that is laid out anew.
        self._root.attrs.put(dict(_UNFINISHED))
        self._backend.clear()
        create_store(self._root, self._settings.schema, self._settings.embedding_dim)
        self._backend.flush()
        self._root.attrs.put(
            {
                "Conventions": "CF-1.11",
                "featureType": "trajectory",
                "spec_version": SPEC_VERSION,
                "columns": list(self._settings.schema.columns),
                "groups": {k: list(v) for k, v in self._settings.schema.groups.items()},
                "provenance": {
                    "extractor": dict(self._settings.extractor),
                    "detector": None,
                    "options": dict(self._settings.options),
                    "sessions": [],
                },
                "committed": 0,
            }
        )
        self._backend.flush()

    def _adopt(self, store: Store) -> None:
        """Take over the committed state and cut off whatever lies beyond it."""
        index = store.rows
        self._committed = store.committed
        self._frames = int(index["length"].sum())
        frame_specs = frame_arrays(self._settings.schema, self._settings.embedding_dim)
        for spec in frame_specs:
            store.array(spec.name)  # which refuses one that is too short, or of another type
        for spec in frame_specs:
            self._cut(spec.name, self._frames)
        for spec in VIDEO_ARRAYS:
            self._cut(f"video/{spec.name}", self._committed + (spec.name == "offset"))
        self._latest: dict[str, int] = {}
        for row, (video_id, status) in enumerate(zip(index["id"], index["status"], strict=True)):
            if video_id in self._latest:
                # A kill fell between a commit and the mark on the row that it replaced.
                self._supersede(self._latest.pop(video_id))
            if status != SUPERSEDED:
                self._latest[video_id] = row
        self.known = store.videos
        self._provenance: dict[str, Any] = dict(store.provenance)
        corrected = {name: self._settings.options[name] for name in self._settings.corrected}
        self._provenance["options"] = {**self._provenance["options"], **corrected}
        self._session: dict[str, Any] = {
            **self._settings.session,
            "started": _now(),
            "first": self._committed,
        }
        self._sessions = list(self._provenance["sessions"])
        self._last_commit = time.monotonic()

    def _supersede(self, row: int) -> None:
        self._array("video/status")[row] = np.array(SUPERSEDED)

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._root[name]
        assert isinstance(found, zarr.Array)
        return found

    def _cut(self, name: str, rows: int) -> None:
        array = self._array(name)
        if array.shape[0] != rows:
            array.resize((rows, *array.shape[1:]))

    def use_detector(self, detector: Mapping[str, Any]) -> None:
        """Name the detector that made what is appended next; the first one named is the store's.

        Raises
        ------
        StoreMismatchError
            The store's videos were made with another one.
        """
        if self._provenance["detector"] is None:
            self._provenance["detector"] = dict(detector)
        check_part(self.path, "detector", self._provenance["detector"], detector)

    def touch(self, times: Mapping[str, int]) -> None:
        """Note the new modification times of sources whose bytes have not changed.

        Parameters
        ----------
        times : dict of str to int
            ``mtime_ns`` by video id, so that the next run need not hash them again.
        """
        if not times:
            return
        with disk_errors(self._backend):
            self._backend.confirm()
            array = self._array("video/mtime_ns")
            values = np.asarray(array[: self._committed])
            rows = [self._latest[video_id] for video_id in times]
            values[rows] = list(times.values())
            array[: self._committed] = values
            self._backend.flush()

    def refuse_other_detector(self, detector: Mapping[str, Any] | None) -> None:
        """Refuse a detector that is not the store's, if it has one, before it is used.

        Raises
        ------
        StoreMismatchError
            The store's videos were made with another one.
        """
        if detector is not None and self._provenance["detector"] is not None:
            check_part(self.path, "detector", self._provenance["detector"], detector)

    def append(self, *records: VideoRecord, instead_of: Iterable[str] = ()) -> None:
        """Buffer what one source became; a later row of an id replaces the earlier one.

        Parameters
        ----------
        *records : VideoRecord
            Committed together.
        instead_of : iterable of str
            Ids that this source had before and that it has no longer.

        Raises
        ------
        StoreError
            The disk is full or gone; everything committed before is safe.
        """
        self._buffer.extend(records)
        self._retired.update(instead_of)
        self._buffered_bytes += sum(record.nbytes for record in records)
        full = len(self._buffer) >= self._commit_videos or self._buffered_bytes >= _COMMIT_BYTES
        if full:
            self.commit()
        else:
            self.commit_if_due()

    def note(self, video_id: str, words: str) -> None:
        """Keep with this session what is to be known of a video that is appended."""
        videos = self._session.setdefault("notes", {}).setdefault(words, [])
        videos.append(video_id)

    def commit_if_due(self) -> None:
        """Commit if the time for it has come."""
        if time.monotonic() - self._last_commit >= self._commit_seconds:
            self.commit()

    def commit(self) -> None:
        """Write what is buffered: frame arrays, index arrays, then the mark that counts them.

        Ctrl-C waits for its end. After an error the writer is of no more use.
        """
        if self._buffer:
            with _uninterrupted(), disk_errors(self._backend):
                self._in_commit = True
                self._backend.confirm()
                self._write(self._buffer)
                self._buffer = []
                self._buffered_bytes = 0
                self._in_commit = False
        self._last_commit = time.monotonic()

    def _write(self, records: Sequence[VideoRecord]) -> None:
        for spec in frame_arrays(self._settings.schema, self._settings.embedding_dim):
            parts = [getattr(r, spec.name) for r in records if not r.failed]
            if parts:
                self._array(spec.name).append(np.concatenate(parts).astype(spec.dtype, copy=False))
        lengths = [0 if r.failed else len(r.time) for r in records]
        offsets = self._frames + np.cumsum(lengths, dtype=np.int64)
        columns: dict[str, Any] = {
            "offset": offsets,
            "length": lengths,
            "faces": [float(np.mean(r.valid)) if len(r.valid) else 0.0 for r in records],
            "status": [FAILED if r.failed else OK for r in records],
        }
        for spec in VIDEO_ARRAYS:
            column = columns.get(spec.name)
            if column is None:
                column = [getattr(r, spec.name) for r in records]
            dtype = object if spec.dtype is str else spec.dtype
            self._array(f"video/{spec.name}").append(np.array(column, dtype=dtype))
        self._backend.flush()
        self._backend.confirm()
        count = self._committed + len(records)
        session = {**self._session, "ended": _now(), "last": count}
        # put is one atomic write; update would be one a key, the mark before what it vouches for.
        self._root.attrs.put(
            {
                **dict(self._root.attrs),
                "provenance": {**self._provenance, "sessions": [*self._sessions, session]},
                "committed": count,
            }
        )
        self._backend.flush()
        for row, record in enumerate(records, start=self._committed):
            if record.id in self._latest:
                self._supersede(self._latest[record.id])
            self._latest[record.id] = row
        for video_id in self._retired & self._latest.keys():
            self._supersede(self._latest.pop(video_id))
        self._retired.clear()
        self._committed, self._frames = count, int(offsets[-1])


def _is_unfinished(root: bytes) -> bool:
    try:
        return bool(json_object(root)["attributes"] == _UNFINISHED)
    except (ValueError, KeyError):  # opening it will say what is wrong
        return False


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C, and what else asks this process to end, back until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _ENDS}
    asks = {number: handler for number, handler in handlers.items() if callable(handler)}
    held: list[signal.Signals] = []
    for number in asks:
        signal.signal(number, lambda number, _: held.append(signal.Signals(number)))
    try:
        yield
    finally:
        for number, handler in asks.items():
            signal.signal(number, handler)
    for number in held:
        asks[number](number, None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_same(store: Store, settings: StoreSettings) -> None:
    """Refuse to mix numbers of different origin in one store, and say which option differs."""
    if store.schema != settings.schema:
        raise StoreMismatchError(
            f"{store.path} holds {_few(store.schema.columns)}; these are "
            f"{_few(settings.schema.columns)}: choose another --store"
        )
    check_part(store.path, "extractor", store.provenance["extractor"], settings.extractor)
    check_part(
        store.path, "options", store.provenance["options"], settings.options, settings.corrected
    )


def _few(columns: Sequence[str]) -> str:
    more = ", …" if len(columns) > _SHOWN else ""
    return f"{len(columns)} columns ({', '.join(columns[:_SHOWN])}{more})"


def check_part(
    path: str | Path,
    part: str,
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    but: Set[str] = frozenset(),
) -> None:
    """Refuse what differs from a store's provenance, and say in what.

    Raises
    ------
    StoreMismatchError
    """
    for key in sorted({*found, *wanted} - but):
        if found.get(key) != wanted.get(key):
            raise StoreMismatchError(
                f"{path} was made with {part} {key} = {found.get(key)!r}, now it is "
                f"{wanted.get(key)!r}: use the same, or choose another --store"
            )
