"""Joining stores: whether they may be, which row of a video counts, and reading it in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from feie.features.errors import StoreMismatchError
from feie.features.store.layout import FAILED, frame_arrays
from feie.features.store.reader import Store
from feie.features.store.records import StoreSettings, VideoRecord
from feie.features.store.row_blocks import RowBlocks

_CACHE_BYTES = 256 << 20  # of rows, all stores together
_INDEX = ("source", "size", "mtime_ns", "fingerprint", "fps", "width", "height", "message")


@dataclass(frozen=True)
class Choice:
    """The row of a store that counts for a video."""

    video_id: str
    store: int
    failed: bool


def joint_settings(stores: Sequence[Store]) -> StoreSettings:
    """Give what made the numbers of all these stores.

    Raises
    ------
    StoreMismatchError
        They differ in something that changes numbers; the message names it.
    """
    first = stores[0]
    detector = next((s for s in stores if s.provenance["detector"] is not None), first)
    for store in stores:
        if store.schema != first.schema:
            _refuse(first, "columns", first.schema.columns, store, store.schema.columns)
        for part in ("extractor", "options"):
            _compare(part, first, store)
        if store.provenance["detector"] is not None:
            _compare("detector", detector, store)
    sessions = [session for store in stores for session in store.provenance["sessions"]]
    embedding = first.array("embedding").shape[1] if first.has_embedding else 0
    return StoreSettings(
        schema=first.schema,
        extractor=first.provenance["extractor"],
        options=first.provenance["options"],
        embedding_dim=embedding,
        session={
            "versions": _all_said([s.get("versions", {}) for s in sessions]),
            **_all_said([{k: s[k] for k in ("device", "batch_size") if k in s} for s in sessions]),
            "merged": [
                {
                    "store": store.path,
                    "fingerprint": store.fingerprint,
                    "sessions": store.provenance["sessions"],
                }
                for store in stores
            ],
        },
    )


def joint_detector(stores: Sequence[Store]) -> dict[str, Any] | None:
    """Give the detector of the stores that needed one; None where no store did."""
    found = (store.provenance["detector"] for store in stores)
    return next((dict(detector) for detector in found if detector is not None), None)


def choose(stores: Sequence[Store], *, last_counts: bool = False) -> list[Choice]:
    """Choose one row a video, sorted by id.

    Of a video that stands in several stores, a row with frames counts before a failure; of two
    rows from the same bytes the first counts, of two failures the last.

    Parameters
    ----------
    stores : sequence of Store
    last_counts : bool
        Of two rows from different bytes, take that of the later store instead of refusing.

    Raises
    ------
    StoreMismatchError
        Two stores hold a video from different bytes.
    """
    chosen: dict[str, Choice] = {}
    hashes: dict[str, str] = {}
    for number, store in enumerate(stores):
        rows = store.videos[["status", "fingerprint"]]
        for video_id, status, digest in rows.itertuples(name=None):
            new = Choice(str(video_id), number, status == FAILED)
            old = chosen.get(new.video_id)
            if old is not None and not old.failed:
                if new.failed or digest == hashes[new.video_id]:
                    continue
                if not last_counts:
                    raise StoreMismatchError(
                        f"{stores[old.store].path} and {store.path} hold {new.video_id} from "
                        "different bytes; --duplicates last takes that of the store named last"
                    )
            chosen[new.video_id], hashes[new.video_id] = new, digest
    return [chosen[video_id] for video_id in sorted(chosen)]


def chosen_records(stores: Sequence[Store], choices: Sequence[Choice]) -> Iterator[VideoRecord]:
    """Read the chosen videos, one at a time; memory holds a block of rows a store.

    Raises
    ------
    StoreError
        A store is damaged.
    """
    tables: list[dict[str, dict[str, Any]]] = [
        store.videos.to_dict("index")  # type: ignore[misc]
        for store in stores
    ]
    readers = [
        RowBlocks(store, _frame_names(store), _CACHE_BYTES // len(stores)) for store in stores
    ]
    for choice in choices:
        row = tables[choice.store].pop(choice.video_id)
        start = int(row["offset"])
        arrays: dict[str, Any] = readers[choice.store].read(start, start + int(row["length"]))
        index: dict[str, Any] = {name: row[name] for name in _INDEX}
        yield VideoRecord(id=choice.video_id, **index, **arrays)


def _frame_names(store: Store) -> list[str]:
    names = [spec.name for spec in frame_arrays(store.schema)]
    return [*names, "embedding"] if store.has_embedding else names


def _compare(part: str, one: Store, other: Store) -> None:
    ours, theirs = one.provenance[part], other.provenance[part]
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            _refuse(one, f"{part} {key}", ours.get(key), other, theirs.get(key))


def _refuse(one: Store, what: str, ours: object, other: Store, theirs: object) -> None:
    raise StoreMismatchError(
        f"{one.path} was made with {what} = {ours!r}, {other.path} with {theirs!r}: "
        "such numbers do not belong in one store"
    )


def _all_said(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join what several runs say of themselves; where they differ, name every answer."""
    said: dict[str, list[Any]] = {}
    for entry in entries:
        for key, value in entry.items():
            if value not in said.setdefault(key, []):
                said[key].append(value)
    return {
        key: values[0] if len(values) == 1 else ", ".join(map(str, values))
        for key, values in said.items()
    }
