"""One page about all videos of a store: a file that asks no network and runs no stranger's code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from feie.features.errors import UsageError
from feie.features.files import write_whole
from feie.features.store.layout import FAILED, OK
from feie.features.store.reader import Store
from feie.pipeline.inspect.summary import Courses, courses_of
from feie.pipeline.inspect.words import made_by
from feie.pipeline.progress import ProgressCallback
from feie.pipeline.stores.info import face_shares, length_classes

MOST_VIDEOS = 300_000
"""A browser still opens a page of that many (some 100 bytes a video, and its id)."""

_PARTS = ((50_000, 40), (MOST_VIDEOS, 16))  # up to so many videos, so many parts of a course


def write_page(path: Path, store: Store, ids: Sequence[str], progress: ProgressCallback) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    store : Store
    ids : sequence of str
        Videos, failed ones included.

    Raises
    ------
    UsageError
        More videos than a page can bear.
    OSError
        It cannot be written.
    """
    if len(ids) > MOST_VIDEOS:
        raise UsageError(
            f"{len(ids)} videos are too many for one page ({MOST_VIDEOS}): name some, "
            "as in `feie inspect STORE 'session1/*' --html FILE`"
        )
    videos = store.videos.loc[list(ids)]
    names, drawn, classes = _columns(store)
    parts = next(parts for most, parts in _PARTS if len(ids) <= most)
    indices = [store.schema.columns.index(name) for name in (*names, *classes)]
    courses = courses_of(
        store, videos, indices, drawn, parts, progress, signed=names[0] in ("valence", "arousal")
    )
    data = _data(videos, names, drawn, classes, courses, parts)
    script = _resource("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = Template(_resource("page.html")).substitute(
        title=escape(Path(store.path).name),
        body=_body(store, videos),
        legend=_legend(names[:drawn], courses, parts),
        data=_inert(data),
        script=script,
        script_hash=f"sha256-{digest}",
    )
    write_whole(path, page.encode())


def _columns(store: Store) -> tuple[list[str], int, list[str]]:
    """Choose columns to show as means, how many of them as courses, and classes to compare."""
    columns = list(store.schema.columns)
    names = [name for name in columns if name in ("valence", "arousal")]
    if not names:  # a smile and a frown say more than what happens to come first
        units = (next((c for c in columns if c.startswith(au)), None) for au in ("AU12", "AU04"))
        names = [name for name in units if name] or columns[:2]
    return names, len(names), list(store.schema.group("expr"))


def _data(
    videos: pd.DataFrame, names: list[str], drawn: int, classes: list[str], courses: Courses,
    parts: int,
) -> dict[str, Any]:  # fmt: skip
    length, fps = videos["length"].to_numpy(np.int64), videos["fps"].to_numpy(np.float64)
    timed = np.isfinite(fps) & (fps > 0)
    seconds = np.divide(length, fps, out=np.full(len(fps), np.nan), where=timed)
    means = courses.mean[:, len(names) :]
    top = np.full(len(videos), -1)
    seen = np.isfinite(means).all(axis=1)
    if classes and seen.any():
        top[seen] = means[seen].argmax(axis=1)
    return {
        "id": videos.index.to_list(),
        "message": videos["message"].where(videos["status"] == FAILED, "").to_list(),
        "frames": length.tolist(),
        "seconds": _rounded(seconds, 2),
        "face": _rounded(videos["faces"].to_numpy(np.float64), 4),
        "means": names,
        "mean": [_rounded(courses.mean[:, c], 3) for c in range(len(names))],
        "parts": parts,
        "low": courses.low.tolist(),
        "high": courses.high.tolist(),
        "courses": [base64.b64encode(courses.codes[:, c].tobytes()).decode() for c in range(drawn)],
        "classes": classes,
        "top": top.tolist() if classes else [],
    }


def _rounded(values: np.ndarray, digits: int) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), digits) for v in values]


def _inert(data: dict[str, Any]) -> str:
    """Write JSON that cannot end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return files("feie.pipeline.inspect").joinpath(name).read_text(encoding="utf-8")


def _body(store: Store, videos: pd.DataFrame) -> str:
    good = videos[videos["status"] == OK]
    lengths, faces = good["length"].to_numpy(np.int64), good["faces"].to_numpy(np.float64)
    rates = good["fps"].to_numpy(np.float64)
    timed = np.isfinite(rates) & (rates > 0)
    hours = float((lengths[timed] / rates[timed]).sum() / 3600)
    share = float((faces * lengths).sum() / lengths.sum()) if lengths.sum() else 0.0
    failed = videos.loc[videos["status"] == FAILED, "message"]
    totals = {
        "videos": f"{len(videos):,}", "failed": f"{len(failed):,}",
        "frames": f"{lengths.sum():,}", "hours": f"{hours:,.2f}",
        "of the frames show a face": f"{share:.1%}",
        "videos without any face": f"{int((faces == 0).sum()):,}",
    }  # fmt: skip
    made = store.provenance
    return "".join(
        [
            f'<p class="note">{escape(_maker(made))}</p><div class="totals">',
            *(f"<div><b>{value}</b>{name}</div>" for name, value in totals.items()),
            '</div><div class="charts"><div><h2>Frames a video</h2>',
            _bars((f"{low:,} – {high:,}", count) for low, high, count in length_classes(lengths)),
            "</div><div><h2>Share of a video’s frames with a face</h2>",
            _bars(face_shares(faces).items()),
            "</div></div>",
            _failures({str(name): str(message) for name, message in failed.items()}),
            "<h2>Where this comes from</h2>",
            _table((("fingerprint", store.fingerprint), ("specification", _version(store)))),
            "<details><summary>weights, options, sessions</summary><pre>",
            escape(json.dumps(dict(made), indent=1, ensure_ascii=False, default=str)),
            "</pre></details>",
        ]
    )


def _version(store: Store) -> str:
    return str(store.attributes["spec_version"])


def _maker(made: Any) -> str:
    parts = [made_by(made[part]) for part in ("extractor", "detector") if made.get(part)]
    return "From " + " with faces of ".join(parts)


def _bars(classes: Iterable[tuple[str, int]]) -> str:
    rows = list(classes)
    most = max((count for _, count in rows), default=1) or 1
    cells = "".join(
        f'<tr><td>{escape(name)}</td><td><i style="width:{100 * count / most:.2f}%'
        f'{";visibility:hidden" if not count else ""}"></i></td><td>{count:,}</td></tr>'
        for name, count in rows
    )
    return f'<table class="bars">{cells}</table>'


def _failures(failed: dict[str, str]) -> str:
    if not failed:
        return "<h2>Failures</h2><p>None.</p>"
    reasons = Counter(message.partition(":")[0] for message in failed.values())
    return (
        f"<h2>Failures</h2>{_table((r, f'{n:,}') for r, n in reasons.most_common())}"
        f'<details open><summary>all {len(failed):,}, by name</summary><div class="scroll">'
        f"{_table(failed.items())}</div></details>"
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<table class="list">{cells}</table>'


def _legend(drawn: Sequence[str], courses: Courses, parts: int) -> str:
    ranges = ", ".join(
        f"{escape(name)} from {courses.low[c]:.3g} to {courses.high[c]:.3g}"
        for c, name in enumerate(drawn)
    )
    return (
        f"Click a heading to sort. Curves run over each video’s whole length, as means of {parts} "
        f"equal parts: {ranges}; a grey part shows no face."
    )
