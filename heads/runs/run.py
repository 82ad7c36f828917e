"""A finished run of `feie train-head`, whichever it is: one head, or several that are fused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import HeadError
from feie.heads.config import Unit
from feie.heads.runs.checkpoint import FUSION_FORMAT, HEAD_JSON, load_head
from feie.heads.runs.files import read_json, write_json
from feie.heads.runs.fusion import Weighting, fuse
from feie.heads.runs.trained import TrainedHead

MEMBERS = "members"


@dataclass(frozen=True)
class Member:
    """One head of a run.

    Attributes
    ----------
    folder : Path
    head : TrainedHead
    weights : ndarray of float64, shape (targets,)
        Of its predictions in those of the run; 1 where it is alone.
    """

    folder: Path
    head: TrainedHead
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    folder : Path
    members : tuple of Member
        More than one in a fusion.
    notes : dict
        Of its `head.json`: training, labels, versions.
    """

    folder: Path
    members: tuple[Member, ...]
    notes: dict[str, Any]

    @property
    def targets(self) -> tuple[str, ...]:
        """What it predicts."""
        return self.members[0].head.targets

    @property
    def unit(self) -> Unit:
        """What one prediction is about."""
        return self.members[0].head.unit

    @property
    def fused(self) -> bool:
        """Whether it is a fusion."""
        return len(self.members) > 1

    def fuse(self, predictions: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Give the run's intensities from those of its members, shape (units, targets)."""
        return fuse(predictions, np.stack([m.weights for m in self.members]))


def save_fusion(
    folder: Path, names: list[str], weights: NDArray[np.float64], how: Weighting,
    notes: dict[str, Any],
) -> None:  # fmt: skip
    """Write the `head.json` that makes finished heads below a folder one run.

    Parameters
    ----------
    folder : Path
    names : list of str
        Of the heads' folders below ``members``.
    weights : ndarray, shape (heads, targets)
    how : Weighting
    notes : dict
        ``labels`` (see `feie.heads.runs.checkpoint.place`), training, versions.
    """
    members = [
        {
            "name": name,
            "weights_sha256": read_json(folder / MEMBERS / name / HEAD_JSON)["weights_sha256"],
            "weights": row.tolist(),
        }
        for name, row in zip(names, weights, strict=True)
    ]
    targets = list(load_head(folder / MEMBERS / names[0]).targets)
    write_json(
        folder / HEAD_JSON,
        {
            "format": FUSION_FORMAT,
            "targets": targets,
            "weighting": how,
            "members": members,
            **notes,
        },
    )


def load_run(folder: Path) -> Run:
    """Read a finished run.

    Raises
    ------
    HeadError
        It is not finished, damaged, or of another format.
    """
    path = folder / HEAD_JSON
    notes = read_json(path) if path.exists() else {}
    if notes.get("format") != FUSION_FORMAT:
        head = load_head(folder)
        return Run(folder, (Member(folder, head, np.ones(len(head.targets))),), head.notes)
    try:
        members = tuple(_member(folder, member) for member in notes["members"])
        _check(members, notes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise HeadError(f"{folder} holds a damaged fusion: {what}") from None
    return Run(folder, members, notes)


def _member(folder: Path, noted: dict[str, Any]) -> Member:
    name = str(noted["name"])
    if name in (".", "..") or Path(name).name != name:
        raise ValueError(f"member {name!r} is no name of a folder")
    own = folder / MEMBERS / name
    head = load_head(own)
    if read_json(own / HEAD_JSON)["weights_sha256"] != noted["weights_sha256"]:
        raise ValueError(f"{own} is not the head that was fused")
    return Member(own, head, np.array(noted["weights"], dtype=np.float64))


def _check(members: tuple[Member, ...], notes: dict[str, Any]) -> None:
    targets = tuple(notes["targets"])
    weights = np.stack([m.weights for m in members])
    if len(members) < 2 or any(m.head.targets != targets for m in members):
        raise ValueError("its members do not predict the same targets")
    if any(m.head.unit == "frame" for m in members):
        raise ValueError("frame-level heads are not fused")
    if weights.shape != (len(members), len(targets)) or not np.isfinite(weights).all():
        raise ValueError("its weights are no numbers, one a member and target")
    if (weights < 0).any() or not np.allclose(weights.sum(0), 1, rtol=0, atol=1e-9):
        raise ValueError("its weights are negative or do not sum to 1")
    for key in ("path", "sha256"):
        if not isinstance(notes["labels"][key], str):
            raise ValueError(f"labels {key} is no text")
