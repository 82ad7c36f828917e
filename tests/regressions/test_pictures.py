"""Reports: no picture where a notebook set MPLBACKEND; `$` in a name ends in a formula or an error.

And: an expression has another colour in every picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feie.features.mma.training.curves import draw_curves
from feie.features.pictures import colours, literal
from feie.features.schema import AFFECT, Schema
from feie.heads.data.inputs import InputConfig
from feie.pipeline.evaluate import figures
from feie.pipeline.grid.picture import draw_table
from feie.pipeline.inspect.cells import cells_of
from feie.pipeline.inspect.panels import panels_of
from feie.pipeline.inspect.picture import draw, encode

# isort: split
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

NAMES = ("$a^{b$", "cost in $", "_hidden", r"$\frac$ \$", "a$b$c$d$")


def drawing_modules(project):
    """Every module of feie that imports matplotlib when it runs."""
    found = []
    for folder in ("features", "heads", "pipeline"):
        for path in sorted((project / folder).rglob("*.py")):
            lines = path.read_text().splitlines()
            if any(line.startswith(("import matplotlib", "from matplotlib")) for line in lines):
                parts = path.relative_to(project).with_suffix("").parts
                found.append(".".join(("feie", *parts)))
    return found


@pytest.mark.parametrize("backend", ["module://of_a_notebook.inline", "widget", "agg"])
def test_every_module_that_draws_can_be_imported_first(project, backend):
    modules = drawing_modules(project)
    assert len(modules) >= 5
    code = """
import importlib, io, os, sys
import numpy, pandas
for name in sys.argv[1:]:
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            sys.exit(name)
        continue
    importlib.import_module(name)
    from matplotlib.figure import Figure
    Figure().savefig(io.BytesIO(), format="png")
    os._exit(os.environ["MPLBACKEND"] != NAMED)
""".replace("NAMED", repr(backend))
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def texts_of(figure):
    """Every text as it is drawn, and whether any of it is taken for mathematics."""
    figure.savefig(os.devnull, format="png")  # a formula that is none raises here
    shown = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text()]
    drawn = [t._preprocess_math(t.get_text()) for t in shown]
    return {text.strip() for text, _ in drawn}, any(mathematics for _, mathematics in drawn)


@pytest.fixture
def caught(monkeypatch):
    """Figures that a function saves."""
    found, save = [], Figure.savefig

    def keep(self, *arguments, **named):
        found.append(self)
        save(self, *arguments, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def bars():
    numbers = dict.fromkeys(NAMES, 0.5)
    pairs = dict.fromkeys(NAMES, (0.4, 0.6))
    return figures.bars(numbers, pairs, numbers, "pearson", "length alone")


def scatter():
    values = np.random.default_rng(0).random((2, 9, len(NAMES)))
    return figures.scatter(NAMES, *values)


def timeline():
    inputs = InputConfig(columns=NAMES, groups={"$g$": (0, len(NAMES))}, space="prob")
    return figures.timeline(np.random.default_rng(0).random((9, len(NAMES)), np.float32), inputs)


@pytest.mark.parametrize("make", [bars, scatter, timeline])
def test_names_are_letters_in_the_report(make):
    drawn, mathematics = texts_of(make())
    assert set(NAMES) <= drawn
    assert not mathematics


def test_names_are_letters_in_the_pictures_of_tables(caught, tmp_path):
    draw_table(NAMES, [[0.1, 0.2]] * len(NAMES), NAMES[::-1], "$t$", tmp_path / "t.png")
    drawn, mathematics = texts_of(caught[0])
    assert {*NAMES, "$t$"} <= drawn
    assert not mathematics


def test_names_are_letters_in_the_curves_of_a_training(caught, tmp_path):
    rows = [f'{step},"{name}",0.5' for step in (1, 2) for name in NAMES]
    rows += [f'{step},"$set$/{name}",0.5' for step in (1, 2) for name in NAMES]
    (tmp_path / "log.csv").write_text("\n".join(["step,name,value", *rows, ""]))
    draw_curves(tmp_path / "log.csv", tmp_path / "c.png")
    drawn, _ = texts_of(caught[0])  # the axis of losses is logarithmic: its ticks are formulas
    assert {*NAMES, "$set$"} <= drawn


@pytest.mark.parametrize("wide", [False, True])
def test_names_are_letters_in_the_picture_of_a_video(wide):
    names = [*NAMES, *(f"${i}$" for i in range(12 if wide else 0))]
    names = [name[:10] for name in names]
    values = np.random.default_rng(0).random((40, len(names)), np.float32)
    time = np.arange(40) / 25
    cells = cells_of(time, np.ones(40, np.bool_), values, 25.0)
    panels = panels_of(Schema.of({"$g$": names}), values)
    figure = draw("$id$", "$sub$", "$foot$", cells, panels)
    drawn, mathematics = texts_of(figure)
    assert {*names, "$g$", "$id$", "$sub$", "$foot$"} <= drawn
    assert not mathematics
    for kind in ("png", "svg", "pdf"):
        assert encode(figure, kind)


def test_an_expression_has_one_colour_in_all_pictures():
    names = AFFECT.group("expr")
    values = np.random.default_rng(0).dirichlet(np.ones(7), 40).astype(np.float32)
    inputs = InputConfig(columns=names, groups={"expr": (0, 7)}, space="prob")
    (axes,) = figures.timeline(values, inputs).axes
    lines = {line.get_label(): to_hex(line.get_color()).lower() for line in axes.lines}
    cells = cells_of(np.arange(40) / 25, np.ones(40, np.bool_), values, 25.0)
    figure = draw("a", "", "", cells, panels_of(Schema.of({"expr": names}), values))
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    keys = zip(legend.get_texts(), legend.get_patches(), strict=True)
    stacks = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in keys}
    assert len(lines) == 6  # those that move most
    assert lines.items() <= stacks.items()
    assert colours(["Sad", "expression=Happiness"]) == colours(["sadness", "happiness"])


def test_names_in_a_group_have_colours_of_their_own():
    for names in (AFFECT.columns, AFFECT.group("au"), [f"c{i}" for i in range(20)], "abcdefgh"):
        chosen = colours([name for name in names if name not in ("valence", "arousal")])
        assert len(set(chosen)) == len(chosen)
    assert literal("a_b") == "a_b"


def test_pages_show_dollars_too(tmp_path, settings, record, detector_named):
    from feie.features.store.writer import StoreWriter
    from feie.pipeline.inspect.job import InspectOptions, run

    with StoreWriter(tmp_path / "$s$.zarr", settings) as writer:
        writer.use_detector(detector_named)
        writer.append(record("$body", 9), record("${title}", 9))
    page = tmp_path / "p.html"
    run(InspectOptions(store=str(tmp_path / "$s$.zarr"), html=page))
    text = Path(page).read_text()
    for part in ('"$body"', '"${title}"', "<h1>$s$.zarr</h1>"):
        assert part in text
