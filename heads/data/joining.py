"""Which video of the store belongs to which label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feie.features.errors import LabelError
from feie.features.store.reader import Store
from feie.heads.data.labels import Labels, normalise_id


@dataclass(frozen=True)
class Join:
    """Labels that have a video in the store.

    Attributes
    ----------
    labels : Labels
    store_ids : tuple of str
        The store's id of each label.
    missing : tuple of str
        Ids of labels without a video.
    """

    labels: Labels
    store_ids: tuple[str, ...]
    missing: tuple[str, ...]


def join(
    labels: Labels,
    ids: Iterable[str],
    store: str,
    *,
    failed: Mapping[str, str] | None = None,
    tolerance: float = 0.05,
) -> Join:
    """Find the video of every label.

    Ids are compared as text first, then with the store's normalised as the labels' are (a file
    ``[00001].mp4``), then purely numeric ones as numbers (``1`` or ``1.0`` finds ``00001``), the
    last two only where one video alone can be meant.

    Parameters
    ----------
    labels : Labels
    ids : iterable of str
        Videos of the store that can be used.
    store : str
        Its name, for messages.
    failed : mapping of str to str, optional
        Videos that the store lists as failed, with the reason.
    tolerance : float
        Largest share of labels that may lack a video; unless it is 0, one always may.

    Raises
    ------
    LabelError
        No label joins, too many do not, or two labels mean the same video.
    """
    known = set(ids)
    rows, found, missing, owner = [], [], [], dict[str, str]()
    for row, (label, video) in enumerate(
        zip(labels.ids, find_videos(labels.ids, known), strict=True)
    ):
        if video is None:
            missing.append(label)
            continue
        if video in owner:
            raise LabelError(
                f"{labels.path}: {owner[video]!r} and {label!r} both mean video {video!r} "
                f"of {store}"
            )
        owner[video] = label
        rows.append(row)
        found.append(video)
    allowed = max(1.0, tolerance * len(labels)) if tolerance else 0.0
    if len(missing) > allowed or not rows:
        raise LabelError(_no_join(labels, missing, known, store, failed or {}, tolerance))
    return Join(labels.take(np.array(rows, dtype=np.int64)), tuple(found), tuple(missing))


@dataclass(frozen=True)
class JoinAll:
    """Labels that have a video in each of several stores.

    Attributes
    ----------
    labels : Labels
    store_ids : tuple of tuple of str
        Ids of each store, in the order of the labels.
    missing : tuple of str
        Ids of labels that lack a video in one of the stores or more.
    """

    labels: Labels
    store_ids: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...]


def join_all(labels: Labels, stores: Sequence[Store], *, tolerance: float = 0.05) -> JoinAll:
    """Find the video of every label in every store; parameters as in `join`.

    Raises
    ------
    LabelError
        As in `join`, for one of the stores or for what all have in common.
    """
    joins = [join(labels, s.ids, s.path, failed=s.failures, tolerance=tolerance) for s in stores]
    found = [dict(zip(j.labels.ids, j.store_ids, strict=True)) for j in joins]
    rows = [i for i, label in enumerate(labels.ids) if all(label in videos for videos in found)]
    missing = tuple(label for label in labels.ids if any(label not in v for v in found))
    allowed = max(1.0, tolerance * len(labels)) if tolerance else 0.0
    if len(missing) > allowed or not rows:
        lacks = "; ".join(
            f"{s.path} lacks {len(j.missing)}, e.g. {j.missing[0]!r}"
            for s, j in zip(stores, joins, strict=True)
            if j.missing
        )
        raise LabelError(
            f"only {len(rows)} of the {len(labels)} labels of {labels.path} that are needed here "
            f"have a video in all {len(stores)} stores: {lacks}; at most {tolerance:.0%} may be "
            f"missing (--unmatched)"
        )
    part = labels.take(np.array(rows, dtype=np.int64))
    return JoinAll(part, tuple(tuple(videos[i] for i in part.ids) for videos in found), missing)


def find_videos(wanted: Sequence[str], ids: Iterable[str]) -> list[str | None]:
    """Find the video that each id means, by the rules of `join`; None where there is none."""
    known = set(ids)
    loosely = not known.issuperset(wanted)
    by_name, by_number = _by_other_names(known) if loosely else ({}, {})
    found: list[str | None] = []
    for label in wanted:
        if label in known:
            found.append(label)
        elif len(same_name := by_name.get(label, [])) == 1:
            found.append(same_name[0])
        elif len(same_number := by_number.get(_number(label), [])) == 1:
            found.append(same_number[0])
        else:
            found.append(None)
    return found


def _by_other_names(known: set[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Give the videos of each normalised id, and of each number."""
    by_name: dict[str, list[str]] = {}
    by_number: dict[str, list[str]] = {}
    for video in known:
        name = normalise_id(video)
        by_name.setdefault(name, []).append(video)
        if number := _number(name):
            by_number.setdefault(number, []).append(video)
    return by_name, by_number


def _number(text: str) -> str:
    """Give the digits of a whole number without leading zeros; empty for anything else."""
    whole = re.fullmatch(r"([0-9]+)(\.0+)?", text)
    return whole[1].lstrip("0") or "0" if whole else ""


def _no_join(
    labels: Labels,
    missing: Sequence[str],
    known: set[str],
    store: str,
    failed: Mapping[str, str],
    tolerance: float,
) -> str:
    share = "none" if len(missing) == len(labels) else f"only {len(labels) - len(missing)}"
    text = (
        f"{share} of the {len(labels)} labels of {labels.path} that are needed here "
        f"have a video in {store}"
    )
    if broken := [label for label in missing if label in failed]:
        text += f"; {len(broken)} of them failed in extraction, e.g. {broken[0]!r}"
    if lost := [label for label in missing if label not in failed]:
        text += f"; it lacks {', '.join(map(repr, lost[:3]))}{', …' if len(lost) > 3 else ''}"
    if known:
        text += f"; ids in the store look like {', '.join(map(repr, sorted(known)[:2]))}"
    if len(missing) < len(labels):
        text += f"; at most {tolerance:.0%} may be missing (--unmatched)"
    return text
