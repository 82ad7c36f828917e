"""`feie compound`: the seven compound expressions of [S], from the stored probabilities."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from feie.features.errors import StoreError, UsageError
from feie.features.store.reader import open_store
from feie.features.text import significant
from feie.heads.data.ragged import Ragged
from feie.heads.models.compound import COMPOUNDS, class_frequencies, compound_scores, kl_divergence
from feie.heads.runs.files import write_atomically
from feie.pipeline.predict.options import CompoundOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result, Table

__all__ = ["CompoundOptions", "CompoundResult", "run"]


class CompoundResult(Result):
    """What `feie compound` did.

    Attributes
    ----------
    rows : int
        Of the file: videos, or frames.
    frames : int
        With a face.
    frequencies : dict of str to float
        Share of those frames in which each compound has the highest score.
    divergence : float or None
        KL divergence of the given frequencies from these, in nats.
    """

    store: str
    out: str
    rows: int
    frames: int
    frequencies: dict[str, float]
    divergence: float | None

    def tables(self) -> list[Table]:
        """Give how frequent each compound is."""
        title = f"{self.store}: {self.frames} frames with a face"
        columns = ("compound expression", "share of the frames")
        return [Table(title, columns, [*self.frequencies.items()])]

    def lines(self) -> list[str]:
        """Say what was compared and written."""
        kl = f"KL divergence from the given frequencies: {self.divergence or 0.0:.3f}"
        return [
            *([] if self.divergence is None else [kl]),
            f"{self.rows} rows → {self.out}",
        ]


def run(options: CompoundOptions, progress: ProgressCallback = silent) -> CompoundResult:
    """Write the scores of every video (the mean over its frames with a face) or frame.

    A video, or frame, without a face has blank scores.

    Raises
    ------
    FeieError
        The store lacks an expression or cannot be read; the frequencies cannot be read.
    """
    store = open_store(options.store)
    if not store.ids:
        raise StoreError(f"{options.store} holds no video that was extracted without failure")
    expected = None if options.frequencies is None else _frequencies(options.frequencies)
    groups = [name for name in ("expr",) if name in store.schema.groups]
    columns = store.schema.indices(groups) if groups else []
    rows = store.read(list(store.ids), columns)
    names = [store.schema.columns[i] for i in columns]
    scores = compound_scores(np.where(rows.valid[:, None], rows.values, np.nan), names)
    shares = class_frequencies(scores)
    lines = _lines(Ragged(scores.astype(np.float32), rows.offsets), rows.ids, options.frames)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["id", *(["frame"] if options.frames else []), *COMPOUNDS, "class"])
    table.writerows(lines)
    write_atomically(options.out, text.getvalue().encode())
    progress(Progress("videos", len(rows.ids), len(rows.ids)))
    return CompoundResult(
        store=options.store,
        out=str(options.out),
        rows=len(lines),
        frames=int(np.isfinite(scores).all(axis=1).sum()),
        frequencies=dict(zip(COMPOUNDS, map(float, shares), strict=True)),
        divergence=None if expected is None else kl_divergence(expected, shares),
    )


def _lines(scores: Ragged, ids: list[str], frames: bool) -> list[list[str]]:
    lines = []
    for i, video in enumerate(ids):
        rows = scores[i]
        if not frames:
            faces = rows[np.isfinite(rows).all(axis=1)]
            rows = (faces if len(faces) else np.full((1, len(COMPOUNDS)), np.nan)).mean(
                axis=0, keepdims=True
            )
        for number, row in enumerate(rows):
            known = bool(np.isfinite(row).all())
            cells = [significant(v) if known else "" for v in row]
            name = list(COMPOUNDS)[int(row.argmax())] if known else ""
            lines.append([video, *([str(number)] if frames else []), *cells, name])
    return lines


def _frequencies(path: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            found = {row["class"].strip(): float(row["frequency"]) for row in csv.DictReader(file)}
        shares = np.array([found[name] for name in COMPOUNDS])
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UsageError(
            f"{path} is no CSV with the columns class,frequency and a row for each of "
            f"{', '.join(COMPOUNDS)} ({error!r})"
        ) from None
    if not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise UsageError(f"{path} holds no frequencies: they are at least 0, and not all 0")
    return shares
