"""What makes a score doubtful: another store or other labels, and videos seen in training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from feie.features.errors import HeadError
from feie.features.store.reader import Store
from feie.heads.config import SplitName
from feie.heads.runs.files import disk_errors
from feie.heads.runs.run import Member, Run
from feie.heads.runs.stores import changed_code, other_extractors
from feie.pipeline.evaluate.truth import Truth
from feie.pipeline.train.run import VIDEOS

TEST_LOG = "test-evaluations.log"


def differences(run: Run, stores: Sequence[Store], truth: Truth) -> list[str]:
    """Say what is not as it was in training."""
    notes = other_extractors(run, stores)
    for member, store in zip(run.members, stores, strict=True):
        if store.fingerprint != member.head.notes["store"]["fingerprint"] and not any(
            note.startswith(f"{store.path} was made by") for note in notes
        ):
            notes.append(
                f"{store.path} is not, or no longer, the store that the head was trained on"
            )
    notes += changed_code(run)
    if truth.sha256 != run.notes["labels"]["sha256"]:
        notes.append(f"{truth.path} is not, or no longer, the file that the head was trained on")
    return list(dict.fromkeys(notes))


def leaks(
    run: Run,
    stores: Sequence[Store],
    labels_sha256: str,
    videos: Sequence[Sequence[str]],
    split: SplitName,
) -> list[str]:
    """Find videos of this split that a head was trained on, or its epoch chosen on.

    Parameters
    ----------
    run : Run
    stores : sequence of Store
        One a head.
    labels_sha256 : str
    videos : sequence of sequence of str
        Those of the split, by the ids of each store.
    split : {"train", "val", "test"}

    Raises
    ------
    HeadError
        There are some, in the same store or by the same labels, and the split should have none.
    """
    notes = [
        note
        for member, store, ids in zip(run.members, stores, videos, strict=True)
        for note in _head_leaks(member, store, labels_sha256, ids, split)
    ]
    if run.fused and split == "val":
        notes.append("the weights of the fusion were chosen on the validation videos too")
    return list(dict.fromkeys(notes))


def _head_leaks(
    member: Member, store: Store, labels_sha256: str, videos: Sequence[str], split: SplitName
) -> list[str]:
    """Do as `leaks` does, for one head and the videos of one store."""
    folder, noted = member.folder, member.head.notes
    if split == "train":
        return ["these are the videos that the head was trained on: the figures flatter"]
    try:
        with (folder / VIDEOS).open(encoding="utf-8", newline="") as file:
            split_of = {row["video"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise HeadError(f"{folder / VIDEOS} cannot be read: {error}") from None
    same = (
        labels_sha256 == noted["labels"]["sha256"]
        or store.fingerprint == noted["store"]["fingerprint"]
    )
    notes = []
    for past, use in (("train", "the head was trained"), ("val", "the head's epoch was chosen")):
        seen = [video for video in videos if split_of.get(video) == past]
        if not seen:
            continue
        text = f"{len(seen)} of {len(videos)} videos of split {split!r}, e.g. {seen[0]!r}"
        if split == past:
            notes.append(f"{use} on these videos ({len(seen)}): the figures flatter a little")
        elif same:
            raise HeadError(
                f"{text}, were in the {'training' if past == 'train' else 'validation'} split of "
                f"{folder}; score it with the split of its training"
            )
        else:
            notes.append(
                f"{text}, have the ids of videos of {folder} that {use} on: if they are the same, "
                f"it flatters"
            )
    return notes


def log_test(
    folder: Path,
    stores: Sequence[Store],
    labels_sha256: str,
    n: int,
    mean: float,
    what: str,
) -> int:
    """Note a look at the test split; gives the number of looks so far."""
    path = folder / TEST_LOG
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    used = "+".join(dict.fromkeys(store.fingerprint for store in stores))
    with disk_errors(path):
        with path.open("a", encoding="utf-8") as file:
            file.write(
                f"{stamp} n={n} {what}={mean:.4f} store={used} labels=sha256:{labels_sha256}\n"
            )
        return len(path.read_bytes().splitlines())
