"""The stores that a run reads: found, opened, and predicted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError, StoreError, UsageError
from feie.features.store.backends.location import is_url
from feie.features.store.reader import Store, open_store
from feie.features.text import counted
from feie.heads.config import PluginConfig
from feie.heads.data.inputs import Prepared, find_columns, prepare
from feie.heads.models.plugin import code_changed
from feie.heads.runs.checkpoint import find_again
from feie.heads.runs.run import Member, Run


@dataclass(frozen=True)
class Predicted:
    """What a run says of videos.

    Attributes
    ----------
    prepared : tuple of Prepared
        Frames as each head read them, before standardisation.
    parts : tuple of ndarray of float64, shape (units, targets)
        Each head's intensities.
    fused : ndarray of float64, shape (units, targets)
        The run's: those of its only head, or their weighted mean.
    """

    prepared: tuple[Prepared, ...]
    parts: tuple[NDArray[np.float64], ...]
    fused: NDArray[np.float64]

    def faceless(self) -> NDArray[np.bool_]:
        """Say which videos lack a usable frame in one of the stores or more."""
        lacking: NDArray[np.bool_] = np.any([~p.seen for p in self.prepared], axis=0)
        return lacking


def stores_of(run: Run, named: Sequence[str]) -> tuple[Store, ...]:
    """Open the store of each head of a run.

    Parameters
    ----------
    run : Run
    named : sequence of str
        One a head, in their order, or one for all; none for those of the training.

    Raises
    ------
    FeieError
        A wrong number, or a store cannot be read by its head.
    """
    own = [find_again(member.head.notes["store"], member.folder) for member in run.members]
    if not named:
        for member, path in zip(run.members, own, strict=True):
            refuse_noted_address(member.folder, path)
    if named and len(named) not in (1, len(own)):
        raise UsageError(
            f"{run.folder} fuses {len(own)} heads and {len(named)} stores are named: give one for "
            f"each, in the order of {', '.join(own)}, or one that serves all"
        )
    paths = own if not named else list(named) * len(own) if len(named) == 1 else list(named)
    opened = {path: open_store(path) for path in dict.fromkeys(paths)}
    for member, path in zip(run.members, paths, strict=True):
        find_columns(opened[path].schema, member.head.inputs, path)
        if not opened[path].ids:
            raise StoreError(f"{path} holds no video that was extracted without failure")
    return tuple(opened[path] for path in paths)


def stores_among(run: Run, opened: Sequence[Store]) -> tuple[Store, ...]:
    """Give each head of another run one of the stores that are open, where it can read one.

    The store of its training is preferred, then one with its columns; a head that can read none
    gets the store of its training.
    """
    return tuple(_store_among(member, opened) for member in run.members)


def _store_among(member: Member, opened: Sequence[Store]) -> Store:
    fits = [store for store in opened if _reads(member, store)]
    own = [s for s in fits if s.fingerprint == member.head.notes["store"]["fingerprint"]]
    if fits:
        return (own or fits)[0]
    path = find_again(member.head.notes["store"], member.folder)
    refuse_noted_address(member.folder, path)
    store = open_store(path)
    find_columns(store.schema, member.head.inputs, store.path)
    return store


def refuse_noted_address(folder: Path, path: str) -> None:
    """Refuse to contact an address because a file says so, which may be somebody else's.

    Raises
    ------
    UsageError
    """
    if is_url(path):
        raise UsageError(
            f"{folder} was trained on the store {path}; an address that stands in a file is "
            f"contacted only when you name it yourself: add --store {path}"
        )


def _reads(member: Member, store: Store) -> bool:
    try:
        find_columns(store.schema, member.head.inputs, store.path)
    except HeadError:
        return False
    return True


def predict_videos(run: Run, stores: Sequence[Store], videos: Sequence[Sequence[str]]) -> Predicted:
    """Read videos as each head of a run does, and predict them.

    Parameters
    ----------
    run : Run
    stores : sequence of Store
        One a head.
    videos : sequence of sequence of str
        The same videos, by the ids of each store.

    Raises
    ------
    HeadError
        A store has other columns, or what is predicted is not finite.
    """
    prepared, found = [], []
    for member, store, ids in zip(run.members, stores, videos, strict=True):
        columns = find_columns(store.schema, member.head.inputs, store.path)
        ready = prepare(store.read(ids, columns), member.head.inputs)
        prediction = member.head.predict(ready.frames)
        if not np.isfinite(prediction).all():
            raise HeadError(
                f"{member.folder} predicts what is not finite for {store.path}: its weights are "
                f"damaged, or the store's columns lie far outside those of its training"
            )
        prepared.append(ready)
        found.append(prediction)
    return Predicted(tuple(prepared), tuple(found), run.fuse(found))


def other_extractors(run: Run, stores: Sequence[Store]) -> list[str]:
    """Say where a store was made by other weights than the head was trained on."""
    notes = []
    for member, store in zip(run.members, stores, strict=True):
        now = dict(store.provenance).get("extractor") or {}
        before = member.head.notes["store"].get("extractor") or {}
        if now.get("sha256") != before.get("sha256"):
            notes.append(
                f"{store.path} was made by extractor {now.get('name')}, the head was trained on "
                f"{before.get('name')} (other weights): its figures may mean little"
            )
    return list(dict.fromkeys(notes))


def changed_code(run: Run) -> list[str]:
    """Say whose code is not, or no longer, the code that it was trained with."""
    configs = [member.head.config for member in run.members]
    return [
        f"the code of {config.name} has changed since the head was trained: its figures may mean "
        f"little"
        for config in configs
        if isinstance(config, PluginConfig) and code_changed(config)
    ]


def faceless_notes(run: Run, stores: Sequence[Store], found: Predicted) -> list[str]:
    """Say how many videos have no usable frame, store by store."""
    return [
        f"{counted(ready.faceless, 'video', 'shows', 'show')} no face"
        f"{f' in {store.path}' if len(stores) > 1 else ''}: predicted "
        f"as the training {run.unit}s' mean label"
        for store, ready in zip(stores, found.prepared, strict=True)
        if ready.faceless
    ]
