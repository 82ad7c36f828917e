"""README and docs/: commands parse with their options, marked ones run, links lead somewhere.

A block is fenced by three backticks and its language. A comment on the line before says what is
done with it:

    <!-- run -->            run it, in a folder that holds data.example (with fewer videos)
    <!-- run: NAME -->      run it after the others of NAME, in the folder they left

Every ``feie`` command, in ``bash`` blocks, in blocks without a language and in inline code, must be
understood by the command line: the command exists and has these options.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
import typer

from feie.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
                     ROOT / "data.example" / "README.md", ROOT / "features" / "SPEC.md")
         if p.is_file()]  # fmt: skip
_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>run[^\n]*?) -->\n)?```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+(?:\([^()]*\))?)\)")


class Block(NamedTuple):
    """A fenced block: where it is, its language and what it says; `mark` is empty for most."""

    place: str
    mark: str
    language: str
    body: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("body"))
        yield Block(f"{page.relative_to(ROOT)}:{line}", found["mark"] or "", found["language"],
                    found["body"])  # fmt: skip


def commands(text: str) -> Iterator[list[str]]:
    """Words of each ``feie`` command in shell text."""
    text = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                while words and re.fullmatch(r"\w+=.*|time|nice|nohup|srun", words[0]):
                    words.pop(0)
                if words and words[0] == "feie":
                    yield words[1:]
                words = []
            else:
                words.append(word)


@cache
def command_line():
    return typer.main.get_command(app)


def misunderstood(words: list[str]) -> str:
    """Parse a command without running it: what is wrong with it, or nothing."""
    words = [w for before, w in pairwise(["", *words]) if w != "…" or before.startswith("--")]
    if any(word in (">", "<", ">>") for word in words):
        words = words[: next(i for i, word in enumerate(words) if word in (">", "<", ">>"))]
    if not words or words[0] in ("--help", "--version"):
        return ""
    command = command_line().get_command(None, words[0])
    if command is None:
        return f"there is no command {words[0]}"
    if "--help" in words:
        return ""
    try:
        command.make_context(words[0], list(words[1:]))
    except Exception as error:  # typer brings a click of its own, of which these are
        if not hasattr(error, "format_message"):
            raise
        named_only = {"MissingParameter", "BadOptionUsage"}  # of a command, or of an option
        return "" if type(error).__name__ in named_only else error.format_message()
    return ""


def inline(page: Path) -> Iterator[tuple[str, str]]:
    text = _BLOCK.sub(lambda m: "\n" * m[0].count("\n"), page.read_text())
    for found in re.finditer(r"`(feie [^`]+)`", text):
        yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_command_is_understood(page):
    wrong, count = [], 0
    shown = [(b.place, b.body) for b in blocks(page) if b.language in ("bash", "sh", "")]
    for place, text in [*shown, *((p, t.replace("\n", " ")) for p, t in inline(page))]:
        for words in commands(text):
            count += 1
            if problem := misunderstood(words):
                wrong.append(f"{place}: feie {shlex.join(words)}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert count or page.parent.name not in (ROOT.name, "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    text = _BLOCK.sub("", page.read_text())
    wrong = []
    for target in _LINK.findall(text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(target)
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            wrong.append(f"{target} (no such heading)")
    assert not wrong, "\n".join(wrong)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", h).strip().lower() for h in headings)
    return {re.sub(r"[^\w\- ]", "", h).replace(" ", "-") for h in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_python_block_compiles(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.body, block.place, "exec")


MARKED = [b for page in PAGES for b in blocks(page) if b.mark]
SERIES: dict[str, list[Block]] = {}
for _block in MARKED:
    _name = _block.mark.partition(":")[2].strip()
    SERIES.setdefault(_name or _block.place, []).append(_block)


@pytest.mark.slow
@pytest.mark.parametrize("series", sorted(SERIES))
def test_marked_blocks_run(series, example, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in ("data.example", "labels.csv", "features.zarr"):
        (tmp_path / name).symlink_to(example / name)
    for block in SERIES[series]:
        words = ["bash", "-euo", "pipefail", "-c", block.body]
        if block.language == "python":
            words = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.body]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with a part of data.example, its labels, and a store of it, as pages assume."""
    root = tmp_path_factory.mktemp("docs")
    source, kept = ROOT / "data.example", root / "data.example"
    (kept / "videos").mkdir(parents=True)
    with (source / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    rows = [r for split in ("train", "val", "test")
            for r in [r for r in table if r["split"] == split][:6]]  # fmt: skip
    for path in (kept / "labels.csv", root / "labels.csv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(rows)
    for row in rows:
        name = f"{row['id']}.mp4"
        (kept / "videos" / name).symlink_to(source / "videos" / name)
    from feie.pipeline.extract.job import ExtractOptions, run

    run(ExtractOptions(videos=kept / "videos", store=str(root / "features.zarr"), isolate=False))
    return root


def test_the_harness_sees_what_is_wrong():
    assert list(commands("feie info a.zarr | head  # feie x\nA=1 feie models && feie doctor")) == [
        ["info", "a.zarr"], ["models"], ["doctor"],
    ]  # fmt: skip
    assert "frobnicate" in misunderstood(["info", "--frobnicate"])
    assert "no command" in misunderstood(["inspekt"])
    assert misunderstood(["extract", "--fps", "many", "--videos", "v"])
    assert misunderstood(["extract", "--videos", "v", "…"]) == ""
    assert misunderstood(["extract"]) == ""  # a page may name a command without its arguments
    assert misunderstood(["evaluate", "--run", "…", "--split", "test"]) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_option_that_is_named_is_one_by_its_present_name(page):
    """In inline code: `--flag` is a name that some command shows in its help."""
    from feie.pipeline.jobs import COMMANDS, command_model
    from feie.pipeline.options import options_of

    known = {"--help", "--version", "--json", "--rounds"}  # the last is of the benches
    for command in COMMANDS:
        for option in options_of(command_model(command)).values():
            known |= set() if option.flag.hidden else {*option.names}
            known |= {f"--no-{name[2:]}" for name in option.names if option.default is True}
    text = _BLOCK.sub("", page.read_text())
    named = {
        flag
        for code in re.findall(r"`([^`]+)`", text)
        if not re.match(r"(?!feie )[\w.-]+ .*--|--\w+[\w-]*\.", code)  # of another program
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
    }
    assert named - known == set()
