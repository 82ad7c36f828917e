"""The challenges' own forms: folders of label files, and submission files."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import LabelError
from feie.features.text import significant
from feie.heads.config import SubmissionForm
from feie.heads.data.tables import Table, read_table

_EMI = {"train": "train_split.csv", "val": "valid_split.csv", "test": "test_split.csv"}


def read_labels_at(path: Path) -> Table:
    """Read a label file, or a folder as a challenge hands it out, as one table.

    Parameters
    ----------
    path : Path
        A file (see `feie.heads.data.tables.read_table`), or a folder, itself or its
        ``metadata``, with

        - ``data_info.csv`` (ABAW5 ERI);
        - ``partition.csv`` and ``labels.csv`` (MuSe 2022 and 2023): the first column of the
          partition is the id and the last one the split, whatever they are called; videos
          without a row of labels, those of the test split, have blank ones;
        - ``train_split.csv``, ``valid_split.csv`` and perhaps ``test_split.csv`` (ABAW6-8 EMI):
          the file is the split.

    Raises
    ------
    LabelError
        A file cannot be read, or the folder is none of these.
    """
    if not path.is_dir():
        return read_table(path)
    for folder in (path, path / "metadata"):
        if (folder / "data_info.csv").is_file():
            return read_table(folder / "data_info.csv")
        if (folder / "partition.csv").is_file() and (folder / "labels.csv").is_file():
            return _muse(path, folder)
        if (folder / _EMI["train"]).is_file():
            return _emi(path, folder)
    raise LabelError(
        f"{path} is a folder without labels that feie knows: it wants data_info.csv (ERI), "
        f"partition.csv and labels.csv (MuSe), or train_split.csv and valid_split.csv (EMI); "
        f"or name a file with --labels"
    )


def _muse(path: Path, folder: Path) -> Table:
    partition, labels = read_table(folder / "partition.csv"), read_table(folder / "labels.csv")
    if partition.cells.shape[1] < 2:
        raise LabelError(f"{partition.path} needs an id column and a split column")
    ids, split = partition.cells.iloc[:, 0], partition.cells.iloc[:, -1]
    rows = labels.cells.set_index(labels.cells.columns[0])
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise LabelError(f"{labels.path}: id {twice!r} stands in more than one row")
    if strangers := sorted(set(rows.index) - set(ids)):
        raise LabelError(
            f"{labels.path} has {len(strangers)} ids that {partition.path} lacks, the first is "
            f"{strangers[0]!r}"
        )
    values = rows.reindex(ids).fillna("").reset_index(drop=True)
    cells = pd.concat(
        [
            ids.rename("File_ID").reset_index(drop=True),
            split.rename("split").reset_index(drop=True),
            values.drop(columns=["File_ID", "split"], errors="ignore"),
        ],
        axis=1,
    )
    return _joined(path, cells, [partition, labels])


def _emi(path: Path, folder: Path) -> Table:
    there = {split: folder / name for split, name in _EMI.items() if (folder / name).is_file()}
    tables = {split: read_table(file) for split, file in there.items()}
    parts = [table.cells.assign(split=split) for split, table in tables.items()]
    header = list(parts[0].columns)
    for split, part in zip(tables, parts, strict=True):
        lacking = [name for name in header if name not in part.columns]
        if lacking and split != "test":
            raise LabelError(f"{there[split]} lacks the columns {', '.join(lacking)} of the others")
    cells = pd.concat(parts, ignore_index=True)[header].fillna("")
    return _joined(path, cells, list(tables.values()))


def _joined(path: Path, cells: pd.DataFrame, sources: Sequence[Table]) -> Table:
    digest = hashlib.sha256("".join(t.sha256 for t in sources).encode()).hexdigest()
    return Table(path, digest, cells.astype(str), all(t.decimal_comma for t in sources))


def submission(
    ids: Sequence[str],
    targets: Sequence[str],
    prediction: NDArray[np.float64],
    form: SubmissionForm,
    written: tuple[str, Sequence[str]] | None = None,
) -> bytes:
    """Write predictions as a challenge wants them.

    Parameters
    ----------
    ids : sequence of str, shape (videos,)
        As normalised by `feie.heads.data.labels.normalise_id`, or the store's.
    targets : sequence of str
    prediction : ndarray of float64, shape (videos, targets)
    form : {"labels", "plain", "eri", "emi"}
        ``eri``: ``File_ID,<names>`` with ids in brackets (MuSe 2022, ABAW5); ``emi``:
        ``Filename,<names>``, whole numbers filled up to five digits (ABAW6-8); ``plain``:
        ``id,<names>``; ``labels``: as the label file writes its ids.
    written : (str, sequence of str), optional
        The label file's name of the id column, and its ids as they stand there; `plain` without.

    Returns
    -------
    bytes
        CSV, UTF-8.
    """
    if form == "labels" and written is not None:
        header, names = written[0], list(written[1])
    elif form == "eri":
        header, names = "File_ID", [f"[{video}]" for video in ids]
    elif form == "emi":
        header, names = "Filename", [v.zfill(5) if v.isdecimal() else v for v in ids]
    else:
        header, names = "id", list(ids)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([header, *targets])
    for name, row in zip(names, prediction, strict=True):
        table.writerow([name, *map(significant, row)])
    return text.getvalue().encode()
