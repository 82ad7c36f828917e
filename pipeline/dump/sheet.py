"""The data sheet of a dump: what its numbers are, in what units, whose, and what they are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from feie.features.catalogue import CATALOGUE, find_model
from feie.features.formats.writing.format import DumpFormat
from feie.features.formats.writing.plan import DumpPlan
from feie.features.schema import ACTION_UNITS, VA_EXPR8, VALENCE_AROUSAL

_LISTED = 20
_EXPRESSIONS = VA_EXPR8.group("expr")
_MISSING = {
    "keep": "Frames without a face keep their row; their numbers are blank (NaN, null or empty).",
    "zero": "**Frames without a face were filled with zeros: they cannot be told apart any more.**",
    "hold": "**Frames without a face repeat the last frame with one (before it, the first one; "
    "zeros where there is none): they cannot be told apart any more.**",
    "drop": "**Frames without a face were left out: rows are not evenly spaced in time.**",
}
_NOT = """\
Expressions are not feelings. These numbers describe what a face shows as far as a small network can
see it. They are wrong more often for faces, lights and poses unlike its training pictures, and say
nothing reliable about one person at one moment. They are for research, not for decisions about
people. Some uses of emotion recognition are unlawful in places: the EU's AI Act forbids it at work
and at school but for medical or safety reasons."""


def data_sheet(plan: DumpPlan, known: DumpFormat) -> str:
    """Write the data sheet of a dump.

    Parameters
    ----------
    plan : DumpPlan
    known : DumpFormat
        The format it is written in.

    Returns
    -------
    str
        Markdown; the same for the same plan.
    """
    faces = sum(video.with_face for video in plan.videos)
    share = f", {faces / plan.frames:.1%} with a face" if plan.frames else ""
    lines = [
        f"# Affect vectors, dumped by feie as {known.name}",
        "",
        f"{len(plan.videos)} videos, {plan.frames} frames{share}.",
        "",
        "## How it lies here",
        "",
        *known.layout,
        *_extras(plan),
        "",
        f"`feie import` reads it back (format feie-{known.name}).",
        "",
        "## Columns",
        "",
        *_columns(plan, known.names(plan.schema)),
        "",
        "## Missing values and time",
        "",
        _MISSING[plan.missing],
        "",
        "Times are presentation time stamps of the source, from its own zero; frames need not be",
        "evenly spaced.",
        "",
        "## Where the numbers come from",
        "",
        *_origin(plan.store["provenance"]),
        "",
        "All of it, with versions and options, stands in the provenance.",
        "",
        "## What these numbers are not",
        "",
        _NOT,
        "",
        *_failures(plan.failed),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _extras(plan: DumpPlan) -> Iterator[str]:
    if plan.geometry:
        yield "- the detector's score; the face's box x0, y0, x1, y1 and the left eye, right eye,"
        yield "  nose, left and right corner of the mouth (x, y) in pixels of the displayed frame,"
        yield "  left and right as seen in the image"
    if plan.embedding:
        yield f"- the extractor's embedding of the face: {plan.embedding} numbers, exact as float16"


def _columns(plan: DumpPlan, names: Sequence[str]) -> Iterator[str]:
    groups = {
        plan.schema.columns[i]: name
        for name, span in plan.schema.groups.items()
        for i in range(*span)
    }
    columns = plan.schema.columns
    if not set(columns) <= {*VALENCE_AROUSAL, *_EXPRESSIONS, *ACTION_UNITS}:
        yield f"{len(columns)} columns, float32, as their maker gives them: feie does not know"
        yield "their units. " + ", ".join(
            f"`{name}`: {stop - start}" for name, (start, stop) in plan.schema.groups.items()
        )
        return
    yield "| column | group | range | what it is |"
    yield "|---|---|---|---|"
    for name, column in zip(names, columns, strict=True):
        yield f"| {name} | {groups.get(column, '')} | {_meaning(column)} |"
    notes = []
    if set(_EXPRESSIONS) & set(columns):
        notes.append("The expressions of a frame sum to one.")
    if set(ACTION_UNITS) & set(columns):
        notes.append("Action units are probabilities of presence, not intensities.")
    if notes:
        yield ""
        yield " ".join(notes)


def _meaning(name: str) -> str:
    if name == "valence":
        return "-1 to 1 | how unpleasant or pleasant the face looks"
    if name == "arousal":
        return "-1 to 1 | how calm or excited the face looks"
    if name in _EXPRESSIONS:
        return "0 to 1 | probability of this expression, among all of them"
    return "0 to 1 | probability that this facial action unit is present"


def _origin(made: Mapping[str, Any]) -> Iterator[str]:
    extractor, detector = made["extractor"], made["detector"] or {}
    yield f"- extractor `{extractor.get('name')}`, weights sha256 `{extractor.get('sha256')}`"
    yield f"  - {_extractor_licence(str(extractor.get('name')))}"
    if detector:
        yield f"- detector `{detector.get('name')}`, weights sha256 `{detector.get('sha256')}`"
        yield f"  - {_detector_licence(str(detector.get('name')))}"
    else:
        yield "- no detector: the sources were aligned faces, or features of another tool"


def _extractor_licence(name: str) -> str:
    if name == "mma-lite":
        return (
            "comes with feie (Apache-2.0); some of its training pictures were gathered from the "
            "web without asking the people in them: see its model card"
        )
    model = find_model(name)
    if model is not None:
        return f"licence: {model.licence}"
    return (
        "licence: that of whoever made these weights; weights trained on AffectNet, Aff-Wild2 or "
        "EmotioNet are for non-commercial research only"
    )


def _detector_licence(name: str) -> str:
    known = {"yunet": "yunet", "onet": "onet", "scrfd": "buffalo_l"}
    parts = dict.fromkeys(part.split(":")[0] for one in name.split(",") for part in one.split("+"))
    if not parts or not set(parts) <= set(known):
        return "licence: that of whoever made these weights"
    said = [f"{part}: {CATALOGUE[known[part]].licence}" for part in parts]
    return f"licence: {'; '.join(said) if len(said) > 1 else said[0].partition(': ')[2]}"


def _failures(failed: Mapping[str, str]) -> Iterator[str]:
    if not failed:
        return
    yield "## Videos without numbers"
    yield ""
    yield f"{len(failed)} videos failed and are not in here"
    yield from (f"- `{video_id}`: {_line(why)}" for video_id, why in _first(failed))
    if len(failed) > _LISTED:
        yield f"- and {len(failed) - _LISTED} more, which the provenance names"


def _first(failed: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    return [*failed.items()][:_LISTED]


def _line(text: str) -> str:
    return " ".join(text.split())
