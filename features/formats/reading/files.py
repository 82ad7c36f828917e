"""Files of features below a root: finding them, naming their videos, a first look at one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

from feie.features.errors import UsageError, VideoError
from feie.features.formats.reading.columns import SUFFIXES as TABLES
from feie.features.formats.reading.columns import read_header
from feie.features.formats.reading.imported import Sample
from feie.features.video.sources import Source, file_source, files_below

ARRAYS = frozenset({".h5", ".hdf5", ".csd", ".npy", ".npz", ".safetensors"})
# What lies beside features and holds none: papers' tables of labels and splits, our own notes.
_BESIDE = frozenset({"labels.csv", "partition.csv", "data_info.csv", "train_split.csv"}) | {
    "valid_split.csv",
    "test_split.csv",
}


def find_files(
    root: Path, suffixes: Collection[str], *, but: Collection[str] = ()
) -> tuple[list[Source], list[str]]:
    """Find the files of some suffixes at or below a root.

    Parameters
    ----------
    root : Path
        A folder, or one file, of which then the suffix does not matter.
    suffixes : collection of str
        In small letters, with the dot.
    but : collection of str
        Names that are passed over, in small letters.

    Returns
    -------
    files : list of Source
        Sorted by id. Hidden files are passed over.
    ignored : list of str
        The others, below the root.

    Raises
    ------
    UsageError
        There is no such place or no such file, or two files have one id.
    """
    if not root.exists():
        raise UsageError(f"{root} does not exist; give a file or a folder of features")
    if not root.is_dir():
        return [file_source(root, root.name)], []
    passed_over = _BESIDE | set(but)
    files, ignored = [], []
    for path, relative in files_below(root):
        name = path.name.lower()
        if name.startswith(".") or path.suffix.lower() not in suffixes or name in passed_over:
            ignored.append(relative)
        else:
            files.append(file_source(path, relative))
    if not files:
        raise UsageError(
            f"no files with suffix {' '.join(sorted(suffixes))} below {root} "
            f"({len(ignored)} others)"
        )
    count = Counter(file.video_id for file in files)
    twice = [file.relative for file in files if count[file.video_id] > 1]
    if twice:
        raise UsageError(
            f"{twice[0]} and {twice[1]} have the same video id; rename or move one of them"
        )
    return sorted(files, key=lambda file: file.video_id), sorted(ignored)


def look_at(root: Path) -> Sample:
    """Look at a root's first data file.

    Raises
    ------
    UsageError
        There is none, or it is no table and no file of arrays.
    """
    files, _ = find_files(root, TABLES | ARRAYS)
    first, fault = files[0].path, ""
    # The first table may be the broken one of thousands.
    for file in files[:20]:
        if file.path.suffix.lower() in TABLES:
            try:
                header = read_header(file.path)
            except VideoError as error:
                fault = fault or error.message
                continue
            return Sample(file.path, header.names)
    return Sample(first, fault=fault)
