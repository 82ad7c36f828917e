"""Label files: one row a video, an id, a split, and numeric targets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError
from feie.features.table_text import NUMBER, cure_of
from feie.heads.config import SplitName
from feie.heads.data.challenges import read_labels_at
from feie.heads.data.tables import BLANKS, Table

ID_NAMES = ("id", "videoid", "fileid", "filename", "video", "file", "name", "clip")
SPLIT_NAMES = ("split", "partition", "subset", "set", "fold")
SUBJECT_NAMES = ("subject", "subjectid", "participant", "participantid", "person", "personid",
                 "identity", "speaker", "speakerid")  # fmt: skip
_OTHER_KNOWN = ("age", "gender", "sex", "country", "fps", "frames", "nframes", "numframes",
                "length", "duration", "seed", "width", "height", "index", "")  # fmt: skip
_LEFT_BY_PANDAS = re.compile(r"(unnamed|level)[0-9]+")
_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "development": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_VIDEO_SUFFIX = re.compile(
    r"\.(mp4|m4v|mkv|avi|mov|webm|mpg|mpeg|flv|gif|ts|mts|wmv|ogv|3gp)$", re.IGNORECASE
)
_WRAPPED = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]|'(.*)'|\"(.*)\"", re.DOTALL)
_MISSING_CODES = (-1.0, -5.0, -9.0, -99.0, -999.0, 99.0, 999.0, 9999.0)
VAL_SHARE = TEST_SHARE = 0.15


@dataclass(frozen=True)
class Labels:
    """What a label file says.

    Attributes
    ----------
    path : Path
    sha256 : str
        Hex digest of the file's bytes.
    targets : tuple of str
    ids : tuple of str
        Normalised, see `normalise_id`; no two alike.
    split : ndarray of str, shape (videos,)
        ``train``, ``val`` or ``test``.
    values : ndarray of float64, shape (videos, targets)
        NaN where the file is blank.
    split_made : bool
        Whether the split is ours because the file has none.
    subjects : ndarray of str, shape (videos,), or None
        Who is seen; the id itself where the cell is blank. None without such a column.
    id_column : str
        What the file calls its ids.
    written : tuple of str, shape (videos,)
        Ids as the file writes them, e.g. ``[00001]``.
    notes : tuple of str
        What a user should know about how the file was read.
    """

    path: Path
    sha256: str
    targets: tuple[str, ...]
    ids: tuple[str, ...]
    split: NDArray[np.str_]
    values: NDArray[np.float64]
    split_made: bool
    subjects: NDArray[np.str_] | None
    id_column: str
    written: tuple[str, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Labels:
        """Pick some rows, in the given order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            written=tuple(self.written[i] for i in rows),
            subjects=None if self.subjects is None else self.subjects[rows],
            split=self.split[rows],
            values=self.values[rows],
        )

    def of_split(self, split: SplitName) -> Labels:
        """Rows of one split, checked: not empty, every label a finite number.

        Raises
        ------
        LabelError
        """
        part = self.take(np.flatnonzero(self.split == split))
        if not len(part):
            counts = {name: int((self.split == name).sum()) for name in ("train", "val", "test")}
            has = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise LabelError(f"{self.path} has no video in split {split!r} (it has {has})")
        bad = ~np.isfinite(part.values)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise LabelError(
                f"{self.path}: {int(bad.sum())} labels of split {split!r} are missing or not "
                f"finite, the first is {self.targets[column]} of {part.ids[row]!r}; fill them in "
                f"or remove these videos"
            )
        return part

    def check_varied(self, which: str = "") -> None:
        """Refuse targets that have one and the same value in every row.

        Parameters
        ----------
        which : str
            What these rows have in common, for the message.

        Raises
        ------
        LabelError
        """
        constant = np.ptp(self.values, axis=0) == 0
        if constant.any():
            names = ", ".join(np.array(self.targets)[constant])
            rows = "the only video" if len(self) == 1 else f"all {len(self)} videos"
            raise LabelError(
                f"{self.path}: {names} {'is' if constant.sum() == 1 else 'are'} constant over "
                f"{rows} of split {str(self.split[0])!r}{which}, so nothing can be learnt "
                f"or correlated; choose other targets (--targets)"
            )


def load_labels(
    path: str | Path, targets: Sequence[str] = (), missing: Sequence[float] = ()
) -> Labels:
    """Read a file of labels: CSV, Parquet, Excel or JSON, see `feie.heads.data.tables.read_table`.

    Parameters
    ----------
    path : str or Path
        A file, or a folder of a challenge's files; see
        `feie.heads.data.challenges.read_labels_at`.
    targets : sequence of str
        Columns to learn; by default every numeric column that is not known to be something else
        (id, split, subject, age, country, length, …), and a note says which these are.
    missing : sequence of float
        Numbers that stand for no label, as -1, -5 or 999 do in some data sets. Without them, a
        note says where such a number stands beside labels of another range.

    Notes
    -----
    The id column is called ``id``, ``video_id``, ``File_ID``, ``Filename``, ``video``, ``file``,
    ``name`` or ``clip``; capitals, blanks and underscores do not matter. The split column is
    ``split`` or ``partition`` with values such as ``train``, ``val``, ``devel``, ``Test``.
    Without one, videos (or subjects, where there is a subject column) are ranked by a hash of
    their name and 70 % go to train, 15 % to val, 15 % to test: the same for the same file.
    Where commas do not separate the cells, a column of numbers may have decimal commas.

    Raises
    ------
    LabelError
        A file that cannot be used; the message says what is wrong with it.
    """
    path = Path(path)
    read = read_labels_at(path)
    table = read.cells
    names = {column: _plain(column) for column in table.columns}
    id_column = _find(names, ID_NAMES)
    if id_column is None:
        raise LabelError(
            f"{path} has no id column: call it id, File_ID or Filename "
            f"(its columns: {', '.join(table.columns)}{_headless(list(table.columns))})"
        )
    ids = _ids(read, table[id_column])
    split_column, subject_column = _find(names, SPLIT_NAMES), _find(names, SUBJECT_NAMES)
    if split_column is not None and names[split_column] == "fold":
        cells = {str(cell).lower() for cell in table[split_column]}
        if not cells <= set(_SPLITS):  # the folds of a cross-validation, which are no split
            split_column = None
    taken = {id_column, split_column, subject_column}
    known = {*ID_NAMES, *SPLIT_NAMES, *SUBJECT_NAMES, *_OTHER_KNOWN}
    rest = [
        c for c in table.columns
        if c not in taken and names[c] not in known and not _LEFT_BY_PANDAS.fullmatch(names[c])
    ]  # fmt: skip
    values, chosen, notes = _targets(read, ids, rest, tuple(targets), tuple(missing))
    passed = [c for c in table.columns if c not in taken and names[c] in _OTHER_KNOWN and names[c]]
    if passed and not targets:
        notes.append(
            f"{path}: no targets by their names: {', '.join(passed)} (--targets names others)"
        )
    subjects = None
    if subject_column is not None:
        named = zip(table[subject_column], ids, strict=True)
        subjects = [video if str(s).lower() in BLANKS else str(s) for s, video in named]
    if split_column is not None:
        split = read_split(path, ids, table[split_column])
        notes += _shared_subjects(split, subjects)
    else:
        split = make_split(ids if subjects is None else subjects)
        by = "video" if subjects is None else "subject"
        counts = ", ".join(f"{name} {(split == name).sum()}" for name in ("train", "val", "test"))
        notes.append(f"{path} has no split column: split by a hash of the {by} ({counts})")
    return Labels(
        path=path,
        sha256=read.sha256,
        targets=chosen,
        ids=tuple(ids),
        split=split,
        values=values,
        split_made=split_column is None,
        subjects=None if subjects is None else np.array(subjects, dtype=np.str_),
        id_column=id_column,
        written=tuple(str(cell) for cell in table[id_column]),
        notes=tuple(notes),
    )


def normalise_id(text: str) -> str:
    """Bring the ways of writing a video id together.

    A pair of brackets (``[00001]``) or quotes around the whole, blanks, a video file's suffix, a
    leading ``./`` and backslashes go; what stays is the path below the videos' root, as in the
    store.
    """
    out = text.strip()
    while pair := _WRAPPED.fullmatch(out):
        out = pair[pair.lastindex or 0].strip()
    return _VIDEO_SUFFIX.sub("", out.replace("\\", "/").removeprefix("./"))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(names: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    """Find the column whose plain name comes first in `wanted`."""
    there = [column for column, plain in names.items() if plain in wanted]
    return min(there, key=lambda c: wanted.index(names[c])) if there else None


def find_column(table: pd.DataFrame, wanted: Sequence[str]) -> str | None:
    """Find the column of a table whose plain name (small letters, digits) is wanted first."""
    return _find({str(column): _plain(str(column)) for column in table.columns}, wanted)


def _headless(names: Sequence[str]) -> str:
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    return "; are these values? Its first line must name the columns" if numbers else ""


def _ids(table: Table, column: pd.Series) -> list[str]:
    path = table.path
    ids = [normalise_id(str(cell)) for cell in column]
    empty = [i for i, video in enumerate(ids) if not video or video.lower() == "nan"]
    if empty:
        raise LabelError(
            f"{path}: {len(empty)} rows have no id, the first is row {table.line(empty[0])}"
        )
    seen: set[str] = set()
    repeated = [video for video in ids if video in seen or seen.add(video)]  # type: ignore[func-returns-value]
    if repeated:
        raise LabelError(
            f"{path}: id {repeated[0]!r} stands in more than one row "
            f"({len(set(repeated))} such ids); keep one row a video"
        )
    return ids


def _targets(
    table: Table,
    ids: Sequence[str],
    rest: Sequence[str],
    wanted: Sequence[str],
    missing: Sequence[float],
) -> tuple[NDArray[np.float64], tuple[str, ...], list[str]]:
    path = table.path
    unknown = [name for name in wanted if name not in table.cells.columns]
    if unknown:
        raise LabelError(
            f"{path} has no column {', '.join(unknown)} to learn; it has {', '.join(rest)}"
        )
    read = {name: table.numbers(name) for name in wanted or rest}
    _refuse_second_header(table, read)
    columns, text, notes = {}, [], []
    for name, (numbers, blank) in read.items():
        bad = np.flatnonzero(np.isnan(numbers) & ~blank)
        cell = table.cells[name].iloc[bad[0]] if len(bad) else ""
        if blank.all() and not wanted:
            notes.append(f"{path}: column {name} is blank and is no target")
        elif len(bad) and not wanted and not cure_of(cell) and 2 * len(bad) > (~blank).sum():
            text.append(f"{name} holds text such as {cell!r}")
            notes.append(f"{path}: column {name} holds text and is no target")
        elif len(bad):
            raise LabelError(
                f"{path}: {name} of {ids[bad[0]]!r} is {cell!r}, not a number{cure_of(cell)}"
            )
        else:
            columns[name] = np.where(np.isin(numbers, missing), np.nan, numbers)
    if not columns:
        why = "".join(f"; {column}" for column in text[:3])
        raise LabelError(f"{path} has no numeric column to learn beside its ids{why}")
    if not wanted:
        notes.append(f"{path}: learning {', '.join(columns)} (--targets chooses others)")
    return np.stack(list(columns.values()), axis=1), tuple(columns), notes + _codes(path, columns)


def _refuse_second_header(
    table: Table, read: Mapping[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]
) -> None:
    """Refuse rows below the header that hold text over columns of numbers, as surveys write."""
    text = {name: np.isnan(numbers) & ~blank for name, (numbers, blank) in read.items()}
    if any(np.isfinite(numbers[0]) for numbers, _ in read.values()):
        return
    leading = {name: int(np.argmin(column)) for name, column in text.items() if not column.all()}
    headed = {n: rows for n, rows in leading.items() if rows and not text[n][rows:].any()}
    # One column may have a slip of the pen in its first row.
    if len(headed) > 1:
        name, rows = max(headed.items(), key=lambda pair: pair[1])
        said = " and ".join(str(table.line(row)) for row in range(rows))
        raise LabelError(
            f"{table.path}: row {said} holds text over numbers, such as "
            f"{table.cells[name].iloc[0]!r} in {name}; if it is a second header, delete it"
        )


def _codes(path: Path, columns: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Speak of numbers that may stand for a missing label: far from all others, or below 0."""
    found: dict[float, list[str]] = {}
    for name, numbers in columns.items():
        known = numbers[np.isfinite(numbers)]
        others = known[~np.isin(known, _MISSING_CODES)]
        if not len(others):
            continue
        far = 5 * np.abs(others).max()
        for code in _MISSING_CODES:
            count = int((known == code).sum())
            if count and (abs(code) >= far > 0 or (code < 0 <= others.min())):
                said = f"{name} ({count} of {len(known)})"
                found.setdefault(code, []).append(said)
    return [
        f"{path}: {code:g} stands in {', '.join(names)}, far from the other labels; if it means "
        f"that there is none, say --missing-label {code:g}"
        for code, names in found.items()
    ]


def read_split(path: Path, ids: Sequence[str], column: pd.Series) -> NDArray[np.str_]:
    """Read a column of splits by any of their names; raises `LabelError`."""
    out = [_SPLITS.get(str(cell).lower()) for cell in column]
    for video, cell, split in zip(ids, column, out, strict=True):
        if split is None:
            raise LabelError(
                f"{path}: split of {video!r} is {cell!r}; known are train, val and test"
            )
    return np.array(out, dtype=np.str_)


def _shared_subjects(split: NDArray[np.str_], subjects: Sequence[str] | None) -> list[str]:
    if subjects is None:
        return []
    pairs = {(s, str(part)) for s, part in zip(subjects, split, strict=True) if s}
    count = len(pairs) - len({s for s, _ in pairs})
    return [f"{count} subjects stand in more than one split: results flatter"] if count else []


def make_split(groups: Sequence[str]) -> NDArray[np.str_]:
    """Deal groups out by the rank of a hash: the same for the same groups, whatever their order."""
    ranked = sorted(set(groups), key=lambda g: hashlib.sha256(f"feie {g}".encode()).digest())
    val = max(1, round(VAL_SHARE * len(ranked)))
    test = max(1, round(TEST_SHARE * len(ranked)))
    part = {
        g: "val" if i < val else "test" if i < val + test else "train" for i, g in enumerate(ranked)
    }
    return np.array([part[g] for g in groups], dtype=np.str_)
