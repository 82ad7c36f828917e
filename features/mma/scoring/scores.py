"""Scores of predictions on labelled faces: every figure that its labels allow."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from feie.features.mma.data.labelled import Labelled
from feie.features.mma.data.targets import relabel
from feie.features.mma.data.votes import vote_targets
from feie.features.mma.scoring import metrics
from feie.features.schema import ACTION_UNITS, AFFECT, Schema

Interval = tuple[float, float] | None

RARE = ("anger", "disgust", "fear")
"""Expressions that photographs show seldom, and networks miss."""


class Scores(BaseModel):
    """Figures of an extractor on some data; None where these lack the labels.

    Attributes
    ----------
    n : int
        Images that were scored.
    n_expression : int
        Images whose expression is one that the extractor gives (of the seven, for `AFFECT`); the
        expression figures are over these.
    outside : dict of str to int
        Other labels, left out of the expression figures.
    accuracy, balanced_accuracy, macro_f1, ece : float or None
        Of the expressions; ECE is the expected calibration error over 15 bins.
    ece_votes : float or None
        Of data with votes: ECE against the share of the votes (see `vote_targets`) that the
        predicted expression has, instead of against whether it is the label.
    recall_rare : float or None
        Mean recall of those of `RARE` that occur.
    ccc_valence, ccc_arousal, ccc_va : float or None
        Concordance over the images that carry each, and the mean of the two where there are
        both.
    au_f1_mean : float or None
        Mean F1 at 0.5 over the action units that occur among the annotated.
    au_f1 : dict of str to float
        F1 of each of them.
    intervals : dict of str to (float, float)
        Bootstrap 95 % intervals over images, or over persons or videos where a reader of image
        files knows them.
    recall : dict of str to float
        Of each expression that occurs.
    confusion : dict of str to dict of str to int
        True expression to predicted expression to count.
    """

    n: int
    n_expression: int
    outside: dict[str, int]
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    ece: float | None = None
    ece_votes: float | None = None
    recall_rare: float | None = None
    ccc_valence: float | None = None
    ccc_arousal: float | None = None
    ccc_va: float | None = None
    au_f1_mean: float | None = None
    au_f1: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    recall: dict[str, float] = {}
    confusion: dict[str, dict[str, int]] = {}

    def headline(self) -> dict[str, float]:
        """Give the figures worth a line of a log."""
        names = ("accuracy", "balanced_accuracy", "macro_f1", "recall_rare", "ece", "ece_votes",
                 "ccc_valence", "ccc_arousal", "ccc_va", "au_f1_mean")  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def score_pack(
    data: Labelled, affect: NDArray[np.float32], repeats: int = 1000, schema: Schema = AFFECT
) -> Scores:
    """Score affect vectors against labels.

    Parameters
    ----------
    data : Labelled
        Labels.
    affect : ndarray (n, columns)
        Predictions, one row an image.
    repeats : int
        Bootstrap resamples; 0 for no intervals.
    schema : Schema
        What the columns are; there are figures for the groups that it has.
    """
    data = relabel(data, schema)
    values = affect.astype(np.float64)
    fields: dict[str, object] = {
        "n": len(data),
        "n_expression": int((data.expression >= 0).sum()),
        "outside": data.outside,
    }
    intervals: dict[str, Interval] = {}
    for name, span in schema.groups.items():
        part = values[:, slice(*span)]
        if name == "expr":
            figures, ranges = _expression(data, schema.group(name), part, repeats)
        elif name == "va":
            figures, ranges = _valence_arousal(data, part, repeats)
        elif schema.group(name) == ACTION_UNITS:
            figures, ranges = _units(data, part, repeats)
        else:
            continue
        fields |= figures
        intervals |= ranges
    return Scores.model_validate(fields | {"intervals": intervals})


_Part = tuple[dict[str, object], dict[str, Interval]]


def _expression(
    data: Labelled, names: tuple[str, ...], probability: metrics.Array, repeats: int
) -> _Part:
    known = data.expression >= 0
    if not known.any():
        return {}, {}
    shares = None
    if data.votes is not None:
        shares = vote_targets(data.votes, data.vote_classes, names)[known]
    probability, target = probability[known], data.expression[known]
    predicted = probability.argmax(axis=1).astype(np.int64)
    classes = len(names)
    counts = metrics.confusion(predicted, target, classes)
    figures: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
    }
    rare = [names.index(name) for name in RARE if name in names]
    if np.isin(target, rare).any():
        figures["recall_rare"] = lambda counts: _mean(metrics.recalls(counts)[rare])
    recall = metrics.recalls(counts)
    fields: dict[str, object] = {name: figure(counts) for name, figure in figures.items()}
    if shares is not None:
        voted = ~np.isnan(shares).any(axis=1)
        error = metrics.calibration_error(probability[voted], shares[voted])
        fields["ece_votes"] = error if voted.any() else None
    fields |= {
        "ece": metrics.calibration_error(probability, target),
        "recall": {
            name: float(value)
            for name, value in zip(names, recall, strict=True)
            if not math.isnan(value)
        },
        "confusion": {
            name: dict(zip(names, map(int, row), strict=True))
            for name, row in zip(names, counts, strict=True)
        },
    }
    if not repeats:
        return fields, {}
    intervals = {
        name: metrics.bootstrap(
            lambda rows, figure=figure: figure(  # type: ignore[misc]
                metrics.confusion(predicted[rows], target[rows], classes)
            ),
            len(target),
            repeats,
            clusters=_of(data, known),
        )
        for name, figure in figures.items()
    }
    return fields, intervals


def _valence_arousal(data: Labelled, prediction: metrics.Array, repeats: int) -> _Part:
    target = data.valence_arousal.astype(np.float64)
    known = ~np.isnan(target)

    def concordance(rows: NDArray[np.int64], columns: list[int]) -> float:
        values = []
        for column in columns:
            labelled = rows[known[rows, column]]
            values.append(
                metrics.concordance(prediction[labelled, column], target[labelled, column])
            )
        return sum(values) / len(values)

    fields: dict[str, object] = {}
    intervals: dict[str, Interval] = {}
    for name, columns in {"valence": [0], "arousal": [1], "va": [0, 1]}.items():
        if (known[:, columns].sum(axis=0) < 2).any():
            continue
        rows = np.flatnonzero(known[:, columns].any(axis=1))
        fields[f"ccc_{name}"] = concordance(rows, columns)
        if repeats:
            intervals[f"ccc_{name}"] = metrics.bootstrap(
                lambda draw, rows=rows, columns=columns: concordance(rows[draw], columns),  # type: ignore[misc]
                len(rows),
                repeats,
                clusters=_of(data, rows),
            )
    return fields, intervals


def _units(data: Labelled, probability: metrics.Array, repeats: int) -> _Part:
    target = data.units.astype(np.float64)
    scores = metrics.unit_f1(probability, target)
    if np.isnan(scores).all():
        return {}, {}
    annotated = np.flatnonzero((~np.isnan(target)).any(axis=1))
    fields: dict[str, object] = {
        "au_f1_mean": float(np.nanmean(scores)),
        "au_f1": {
            name: float(value)
            for name, value in zip(ACTION_UNITS, scores, strict=True)
            if not math.isnan(value)
        },
    }
    if not repeats:
        return fields, {}

    def resampled(rows: NDArray[np.int64]) -> float:
        values = metrics.unit_f1(probability[annotated[rows]], target[annotated[rows]])
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    interval = metrics.bootstrap(resampled, len(annotated), repeats, clusters=_of(data, annotated))
    return fields, {"au_f1_mean": interval}


def _mean(values: metrics.Array) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))


def _of(data: Labelled, rows: NDArray[np.generic]) -> NDArray[np.int64] | None:
    return None if data.clusters is None else data.clusters[rows]
