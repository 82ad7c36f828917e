"""Folds of a cross-validation: no person stands on two sides of one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import LabelError, UsageError
from feie.features.text import counted, suggest
from feie.heads.data.challenges import read_labels_at
from feie.heads.data.labels import SUBJECT_NAMES, VAL_SHARE, Labels, find_column, normalise_id
from feie.heads.data.tables import BLANKS

SPLITS = ("train", "val", "test")
_LEAST = 2
"""Videos of a part: a correlation needs as many."""


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes
    ----------
    name : str
    split : ndarray of str, shape (videos,)
        ``test`` for the videos that are left out, ``val`` for those that the epoch (and options)
        are chosen by, ``train`` for the others.
    """

    name: str
    split: NDArray[np.str_]

    def rows(self, split: str) -> NDArray[np.int64]:
        """Give the videos of a part."""
        return np.flatnonzero(self.split == split)


def persons_of(labels: Labels) -> NDArray[np.str_]:
    """Give the person of each video; without a column of persons each video is one of its own.

    Raises
    ------
    LabelError
        The person of some videos is missing.
    """
    if labels.subjects is None:
        return np.array(labels.ids, dtype=np.str_)
    column = find_column(read_labels_at(labels.path).cells, SUBJECT_NAMES)
    assert column is not None  # the labels were read from it
    cells = _cells(labels, column)
    blank = [video for video, cell in zip(labels.ids, cells, strict=True) if _blank(cell)]
    if blank:
        raise LabelError(
            f"{labels.path}: {column} is blank for {counted(len(blank), 'video')}, the first is "
            f"{blank[0]!r}; name the person of every video, or of none"
        )
    return labels.subjects


def make_folds(labels: Labels, persons: NDArray[np.str_], folds: str, seed: int = 0) -> list[Fold]:
    """Deal videos out to folds, and each fold's training videos to training and validation.

    Parameters
    ----------
    labels : Labels
        Of the videos that can be used.
    persons : ndarray of str, shape (videos,)
    folds : str
        A number: persons are dealt out by their numbers of videos, then by a hash of their name,
        each to the fold with the fewest videos. ``subjects``: a fold a person. Otherwise the
        column of the label file that names the fold of each video.
    seed : int
        Part of the hashes.

    Notes
    -----
    About 15 % of the videos that are not left out are validation, three or more, by person too.

    Raises
    ------
    UsageError, LabelError
        Too few persons, a person in several folds, or a part without two videos or with a target
        that never varies.
    """
    number = int(folds) if folds.isdecimal() else 0
    unique = sorted(set(persons.tolist()))
    what = "person" if labels.subjects is not None else "video"
    if folds.isdecimal():
        if number < 2:
            raise UsageError(f"--folds {folds}: a cross-validation has two folds or more")
        if len(unique) < number:
            raise UsageError(
                f"{labels.path} has {counted(len(unique), f'usable {what}')}: too few for "
                f"--folds {number}"
            )
        names = _dealt(persons, number, seed)
    elif folds == "subjects":
        if labels.subjects is None:
            raise UsageError(f"{labels.path} names no persons (a column `subject`): --folds 5?")
        names = persons
    else:
        names = _of_column(labels, persons, folds)
    order = sorted(set(names.tolist()), key=lambda name: (not name.isdecimal(), name.zfill(9)))
    if len(order) < 2:
        raise UsageError(f"--folds {folds}: all videos are in one fold")
    made = []
    for name in order:
        split = np.where(names == name, "test", "train")
        for person in _validation(persons[names != name], f"{seed}/{name}"):
            split[(persons == person) & (names != name)] = "val"
        made.append(Fold(name, split))
    for fold in made:
        _check(labels, fold, what, alone=folds == "subjects")
    return made


def _rank(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _dealt(persons: NDArray[np.str_], number: int, seed: int) -> NDArray[np.str_]:
    """Give each video the number of its fold, from 1."""
    unique, counts = np.unique(persons, return_counts=True)
    of = dict(zip(unique.tolist(), counts.tolist(), strict=True))
    sizes, fold_of = [0] * number, {}
    for person in sorted(of, key=lambda p: (-of[p], _rank(f"{seed}/{p}"))):
        smallest = sizes.index(min(sizes))
        fold_of[person] = str(smallest + 1)
        sizes[smallest] += of[person]
    return np.array([fold_of[person] for person in persons.tolist()], dtype=np.str_)


def _of_column(labels: Labels, persons: NDArray[np.str_], column: str) -> NDArray[np.str_]:
    cells = _cells(labels, column)
    blank = [video for video, cell in zip(labels.ids, cells, strict=True) if _blank(cell)]
    if blank:
        raise LabelError(
            f"{labels.path}: {column} is blank for {counted(len(blank), 'video')}, the first is "
            f"{blank[0]!r}; every video needs a fold"
        )
    fold_of: dict[str, str] = {}
    for person, cell in zip(persons.tolist(), cells, strict=True):
        if fold_of.setdefault(person, cell) != cell:
            raise LabelError(
                f"{labels.path}: {person!r} stands in the folds {fold_of[person]} and {cell} of "
                f"{column}; a person belongs to one"
            )
    return np.array(cells, dtype=np.str_)


def _cells(labels: Labels, column: str) -> list[str]:
    """Read a column of the label file for the videos of `labels`."""
    table = read_labels_at(labels.path).cells
    if column not in table.columns:
        raise UsageError(f"{labels.path} has no column {column!r}{suggest(column, table.columns)}")
    ids = (normalise_id(str(cell)) for cell in table[labels.id_column])
    found = dict(zip(ids, (str(cell).strip() for cell in table[column]), strict=True))
    return [found[video] for video in labels.ids]


def _blank(cell: str) -> bool:
    return cell.lower() in BLANKS


def _validation(persons: NDArray[np.str_], key: str) -> list[str]:
    """Choose the persons of the validation part: the first by a hash, and not all of them."""
    unique, counts = np.unique(persons, return_counts=True)
    of = dict(zip(unique.tolist(), counts.tolist(), strict=True))
    wanted, chosen, videos = max(_LEAST + 1, VAL_SHARE * len(persons)), list[str](), 0
    for person in sorted(of, key=lambda p: _rank(f"{key}/{p}"))[:-1]:
        if videos >= wanted:
            break
        chosen.append(person)
        videos += of[person]
    return chosen


def _check(labels: Labels, fold: Fold, what: str, *, alone: bool) -> None:
    """Refuse a fold from which nothing could be learnt, or said."""
    parts = {"train": "training", "val": "validation", "test": "left-out"}
    for split in SPLITS[: 2 if alone else 3]:
        rows = fold.rows(split)
        if len(rows) < _LEAST:
            raise UsageError(
                f"fold {fold.name} has {counted(len(rows), 'video')} in its {parts[split]} part; "
                f"each needs {_LEAST}: take fewer folds, or label more {what}s"
            )
        constant = np.ptp(labels.values[rows], axis=0) == 0
        if constant.all() or (constant.any() and split != "val"):  # one is enough to choose by
            name = labels.targets[int(np.argmax(constant))]
            raise LabelError(
                f"{labels.path}: {name} never varies in the {parts[split]} part of fold "
                f"{fold.name} ({counted(len(rows), 'video')}); take fewer folds, another "
                f"--fold-seed, or other --targets"
            )


def fold_file(labels: Labels, persons: Sequence[str], fold: Fold) -> list[list[str]]:
    """Give the rows of a label file whose split is that of a fold, the header first."""
    rows = [["id", "split", "subject", *labels.targets]]
    for i, video in enumerate(labels.ids):
        values = (repr(float(value)) for value in labels.values[i])
        rows.append([video, str(fold.split[i]), str(persons[i]), *values])
    return rows
