"""Label files: one row a video, an id, a split, and numeric targets."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError

SplitName = Literal["train", "val", "test"]

_ID_NAMES = ("id", "videoid", "fileid", "filename", "video", "file", "name", "clip")
_SPLIT_NAMES = ("split", "partition", "subset", "fold", "set")
_SUBJECT_NAMES = ("subject", "subjectid", "participant", "participantid", "person", "personid",
                  "identity", "speaker", "speakerid")  # fmt: skip
_OTHER_KNOWN = ("age", "gender", "sex", "country", "fps", "frames", "nframes", "numframes",
                "length", "duration", "seed", "width", "height", "index", "")  # fmt: skip
_SPLITS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "devel": "val",
    "development": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_BLANKS = {"", "nan", "na", "n/a", "none", "null", "?"}
_VIDEO_SUFFIX = re.compile(
    r"\.(mp4|m4v|mkv|avi|mov|webm|mpg|mpeg|flv|gif|ts|mts|wmv|ogv|3gp)$", re.IGNORECASE
)
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
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Labels:
        """Pick some rows, in the given order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
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

    def check_varied(self) -> None:
        """Refuse targets that have one and the same value in every row.

        Raises
        ------
        LabelError
        """
        constant = np.ptp(self.values, axis=0) == 0
        if constant.any():
            names = ", ".join(np.array(self.targets)[constant])
            raise LabelError(
                f"{self.path}: {names} {'is' if constant.sum() == 1 else 'are'} constant over all "
                f"{len(self)} videos of split {str(self.split[0])!r}, so nothing can be learnt or "
                f"correlated; choose other targets (--targets)"
            )


def load_labels(path: str | Path, targets: Sequence[str] = ()) -> Labels:
    """Read a CSV (comma, semicolon or tab) or Parquet file of labels.

    Parameters
    ----------
    path : str or Path
    targets : sequence of str
        Columns to learn; by default every numeric column that is not known to be something else
        (id, split, subject, age, country, length, …).

    Notes
    -----
    The id column is called ``id``, ``video_id``, ``File_ID``, ``Filename``, ``video``, ``file``,
    ``name`` or ``clip``; capitals, blanks and underscores do not matter. The split column is
    ``split`` or ``partition`` with values such as ``train``, ``val``, ``devel``, ``Test``.
    Without one, videos (or subjects, where there is a subject column) are ranked by a hash of
    their name and 70 % go to train, 15 % to val, 15 % to test: the same for the same file.

    Raises
    ------
    LabelError
        A file that cannot be used; the message says what is wrong with it.
    """
    path = Path(path)
    data = _read_bytes(path)
    table = _parse(path, data)
    names = {column: _plain(column) for column in table.columns}
    id_column = _find(names, _ID_NAMES)
    if id_column is None:
        raise LabelError(
            f"{path} has no id column: call it id, File_ID or Filename "
            f"(its columns: {', '.join(table.columns)})"
        )
    ids = _ids(path, table[id_column])
    split_column, subject_column = _find(names, _SPLIT_NAMES), _find(names, _SUBJECT_NAMES)
    taken = {id_column, split_column, subject_column}
    rest = [
        c for c in table.columns
        if c not in taken and names[c] not in (*_OTHER_KNOWN, *_SUBJECT_NAMES)
    ]  # fmt: skip
    values, chosen, notes = _targets(path, table, ids, rest, tuple(targets))
    subjects = None if subject_column is None else [str(s) for s in table[subject_column]]
    if split_column is not None:
        split = _read_split(path, ids, table[split_column])
        notes += _shared_subjects(split, subjects)
    else:
        split = _make_split(ids if subjects is None else subjects)
        by = "video" if subjects is None else "subject"
        counts = ", ".join(f"{name} {(split == name).sum()}" for name in ("train", "val", "test"))
        notes.append(f"{path} has no split column: split by a hash of the {by} ({counts})")
    return Labels(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        targets=chosen,
        ids=tuple(ids),
        split=split,
        values=values,
        split_made=split_column is None,
        notes=tuple(notes),
    )


def normalise_id(text: str) -> str:
    """Bring the ways of writing a video id together.

    Brackets (``[00001]``), quote characters and blanks around it, a video file's suffix, a
    leading ``./`` and backslashes go; what stays is the path below the videos' root, as in the
    store.
    """
    out = text.strip().strip("[]'\"").strip().replace("\\", "/").removeprefix("./")
    return _VIDEO_SUFFIX.sub("", out)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise LabelError(f"there is no label file {path}; name one with --labels") from None
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}") from None


def _parse(path: Path, data: bytes) -> pd.DataFrame:
    """Read every cell as stripped text; a table with unique column names and some rows."""
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            table = pd.read_parquet(io.BytesIO(data))
        except Exception as error:  # pyarrow's errors share no base
            raise LabelError(f"{path} is no readable Parquet file: {error}") from None
        header = [str(c).strip() for c in table.columns]
        table = table.astype(object).where(table.notna(), "").astype(str)
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise LabelError(f"{path} is neither a UTF-8 CSV nor a .parquet file") from None
        first = text.lstrip().partition("\n")[0]
        rows = list(csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count)))
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        if not rows:
            raise LabelError(f"{path} is empty")
        header = [cell.strip() for cell in rows[0]]
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(header):
                raise LabelError(
                    f"{path}: row {number} has {len(row)} cells, the header has {len(header)}"
                )
        table = pd.DataFrame(rows[1:], columns=range(len(header)), dtype=str)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise LabelError(f"{path} has more than one column {repeated[0]!r}")
    if not len(table):
        raise LabelError(f"{path} has a header but no rows")
    table.columns = pd.Index(header)
    return table.apply(lambda column: column.str.strip())


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(names: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    """Find the column whose plain name comes first in `wanted`."""
    there = [column for column, plain in names.items() if plain in wanted]
    return min(there, key=lambda c: wanted.index(names[c])) if there else None


def _ids(path: Path, column: pd.Series) -> list[str]:
    ids = [normalise_id(str(cell)) for cell in column]
    empty = [i for i, video in enumerate(ids) if not video or video.lower() == "nan"]
    if empty:
        raise LabelError(f"{path}: {len(empty)} rows have no id, the first is row {empty[0] + 2}")
    seen: set[str] = set()
    repeated = [video for video in ids if video in seen or seen.add(video)]  # type: ignore[func-returns-value]
    if repeated:
        raise LabelError(
            f"{path}: id {repeated[0]!r} stands in more than one row "
            f"({len(set(repeated))} such ids); keep one row a video"
        )
    return ids


def _targets(
    path: Path, table: pd.DataFrame, ids: Sequence[str], rest: Sequence[str], wanted: Sequence[str]
) -> tuple[NDArray[np.float64], tuple[str, ...], list[str]]:
    unknown = [name for name in wanted if name not in table.columns]
    if unknown:
        raise LabelError(
            f"{path} has no column {', '.join(unknown)} to learn; it has {', '.join(rest)}"
        )
    columns, ignored = {}, []
    for name in wanted or rest:
        cells = table[name]
        blank = cells.str.lower().isin(_BLANKS)
        numbers = pd.to_numeric(cells.where(~blank, ""), errors="coerce").to_numpy(np.float64)
        bad = np.flatnonzero(np.isnan(numbers) & ~blank.to_numpy())
        if len(bad) and not wanted and 2 * len(bad) > int((~blank).sum()):
            ignored.append(name)
        elif len(bad):
            raise LabelError(
                f"{path}: {name} of {ids[bad[0]]!r} is {cells.iloc[bad[0]]!r}, not a number"
            )
        else:
            columns[name] = numbers
    if not columns:
        raise LabelError(f"{path} has no numeric column to learn beside its ids")
    notes = [f"{path}: column {name} holds text and is no target" for name in ignored]
    return np.stack(list(columns.values()), axis=1), tuple(columns), notes


def _read_split(path: Path, ids: Sequence[str], column: pd.Series) -> NDArray[np.str_]:
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


def _make_split(groups: Sequence[str]) -> NDArray[np.str_]:
    """Deal groups out by the rank of a hash: the same for the same groups, whatever their order."""
    ranked = sorted(set(groups), key=lambda g: hashlib.sha256(f"feie {g}".encode()).digest())
    val = max(1, round(VAL_SHARE * len(ranked)))
    test = max(1, round(TEST_SHARE * len(ranked)))
    part = {
        g: "val" if i < val else "test" if i < val + test else "train" for i, g in enumerate(ranked)
    }
    return np.array([part[g] for g in groups], dtype=np.str_)
