"""What `feie train-head` gives back."""

from __future__ import annotations

from feie.heads.config import MEASURE_NAMES, Measure, Unit
from feie.pipeline.result import Result, figure


class TrainHeadResult(Result):
    """What `feie train-head` did.

    Attributes
    ----------
    run : str
        Folder of the head.
    unit : {"video", "frame"}
    n_train, n_val : int
        Videos, or labelled frames.
    epochs, best_epoch : int
        Trained; the one whose weights were kept.
    headline : {"pearson", "ccc"}
        What the epoch was chosen by.
    mean_pearson, mean_ccc : float or None
        Over the targets, on the validation split, of the kept weights.
    pearson, ccc : dict of str to (float or None)
        None where a constant column leaves it undefined.
    seconds : float
    notes : list of str
        What a user should know.
    """

    run: str
    subset: list[str]
    unit: Unit
    n_train: int
    n_val: int
    epochs: int
    best_epoch: int
    headline: Measure
    mean_pearson: float | None
    pearson: dict[str, float | None]
    mean_ccc: float | None
    ccc: dict[str, float | None]
    seconds: float
    notes: list[str]

    def lines(self) -> list[str]:
        """Say how long it took, what came of it, and where it lies."""
        mean = self.mean_pearson if self.headline == "pearson" else self.mean_ccc
        by_target = self.pearson if self.headline == "pearson" else self.ccc
        said = ""
        if self.unit == "frame":
            said = f" ({', '.join(f'{k} {figure(v)}' for k, v in by_target.items())})"
        return [
            f"{self.n_train} training and {self.n_val} validation {self.unit}s, {self.epochs} "
            f"epochs in {self.seconds:g} s; best was {self.best_epoch}: mean "
            f"{MEASURE_NAMES[self.headline]} {figure(mean)} on val{said} → {self.run}"
        ]
