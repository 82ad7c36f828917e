"""The tables of mma-lite's card: several weights side by side on the same pictures.

    python tests/bench/mma_card.py --data ../shared/data --made MADE \
        --detector scrfd:det_500m.onnx --weights OLD.safetensors --weights NEW.safetensors \
        --pictures FOLDER

Figures come from `feie evaluate-mma`; a line on standard error says which set is being measured.
`--made` holds synthetic_val.h5, `--pictures` gets a confusion matrix a set and weights. Sets whose
file is not there are named and left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mma_groups import cell, print_thirds

from feie.features.faces.detectors import load_detector
from feie.features.mma.data.crops import CROP_SEARCH
from feie.features.schema import ACTION_UNITS, EXPRESSIONS
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaOptions, EvaluateMmaResult, run

EXPRESSION = ("accuracy", "balanced_accuracy", "macro_f1", "recall_rare", "ece", "ece_votes")
AFFECT = ("au_f1_mean", "ccc_valence", "ccc_arousal")


def sets(given: argparse.Namespace) -> dict[str, EvaluateMmaOptions]:
    """Say what is measured, by the title of its rows."""
    ferplus = given.data / "ferplus_val.h5"
    wanted = {
        "FER+ validation, fixed crop": {"data": ferplus},
        "the fifth of it that no choice was made by": {"data": ferplus, "held_out": 0.2},
        "FER+ validation, equalised copies": {"data": ferplus, "equalised": True},
        "muxspace, held-out fifth": {
            "data": given.data / "muxspace_aligned112.h5",
            "held_out": 0.2,
        },
        "renders, held-out persons": {"data": given.made / "synthetic_val.h5"},
    }
    if given.detector:
        aligned = {"data": ferplus, "detector": given.detector}
        wanted[f"FER+ validation, aligned by {Path(given.detector).stem}"] = aligned
    found = {}
    for title, options in wanted.items():
        if not options["data"].is_file():
            print(f"left out: {title}: no file {options['data']}", file=sys.stderr)
            continue
        found[title] = EvaluateMmaOptions(**options, repeats=given.repeats, device="cpu")
    return found


def print_table(
    results: dict[tuple[str, str], EvaluateMmaResult], title: str, figures: Sequence[str]
) -> None:
    """Print a Markdown table: a row per set and weights that have any of the figures."""
    print(f"\n| {title} | weights | images | " + " | ".join(figures) + " |")
    print("|---" * (3 + len(figures)) + "|")
    for (name, weights), result in results.items():
        cells = [cell(result, figure) for figure in figures]
        if set(cells) != {"–"}:
            images = f"{result.n}" + (
                f" ({result.n_expression} labelled)" if result.n_expression < result.n else ""
            )
            print(f"| {name} | {weights} | {images} | " + " | ".join(cells) + " |")


def print_each(
    results: dict[tuple[str, str], EvaluateMmaResult], field: str, names: Sequence[str]
) -> None:
    """Print a Markdown table of one figure by expression or unit; a dash where it never occurs."""
    print(f"\n| {field} | weights | " + " | ".join(names) + " |")
    print("|---" * (2 + len(names)) + "|")
    for (name, weights), result in results.items():
        values = getattr(result, field)
        cells = [f"{values[n]:.2f}" if n in values else "–" for n in names]
        if values:
            print(f"| {name} | {weights} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print all tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", action="append", help="names or .safetensors files")
    parser.add_argument("--data", type=Path, required=True, help="ferplus_val.h5, muxspace_…")
    parser.add_argument("--made", type=Path, required=True, help="folder of synthetic_val.h5")
    parser.add_argument("--detector", help="aligns FER+'s pictures, e.g. scrfd:det_500m.onnx")
    parser.add_argument("--pictures", type=Path, help="folder for confusion matrices")
    parser.add_argument("--repeats", type=int, default=1000, help="bootstrap resamples")
    given = parser.parse_args()
    all_weights = given.weights or ["mma-lite"]
    stems = [Path(weights).stem for weights in all_weights]
    names = stems if len(set(stems)) == len(stems) else all_weights
    labels = dict(zip(all_weights, names, strict=True))
    if given.pictures:
        given.pictures.mkdir(parents=True, exist_ok=True)
    results = {}
    for title, options in sets(given).items():
        for weights in all_weights:
            print(f"{title}: {weights}", file=sys.stderr)
            changes: dict[str, object] = {"extractor": weights}
            if given.pictures:
                name = re.sub(r"\W+", "-", f"{title} {labels[weights]}")
                changes["picture"] = given.pictures / f"{name}.png"
            results[title, labels[weights]] = run(options.model_copy(update=changes))
    for (title, label), result in results.items():
        outside = ", ".join(f"{k} {n}" for k, n in result.outside.items()) or "none"
        counts = f"fixed crop {result.fixed}, detected {result.detected}, aligned {result.aligned}"
        print(f"{title}, {label} (sha256 {result.sha256[:12]}): {counts}; outside: {outside}")
    print_table(results, "expressions", EXPRESSION)
    print_each(results, "recall", EXPRESSIONS)
    print_table(results, "units, valence, arousal", AFFECT)
    print_each(results, "au_f1", ACTION_UNITS)
    detector = load_detector(given.detector, CROP_SEARCH) if given.detector else None
    for path in (given.made / "synthetic_val.h5", given.data / "ferplus_val.h5"):
        if path.is_file():
            print(f"thirds of {path.name}", file=sys.stderr)
            print_thirds(path, all_weights, detector, given.repeats)


if __name__ == "__main__":
    main()
