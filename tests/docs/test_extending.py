"""docs/extending.md, followed to the letter: its files are written, its commands run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import EngineError, HeadError, UsageError
from feie.features.extractors.load import load_extractor
from feie.features.store.reader import open_store
from feie.heads.data.packing import Packing
from feie.heads.models import plugin as plugin_module
from feie.heads.models.plugin import HeadModel, check_named, new_plugin_head, use_heads
from feie.heads.runs.checkpoint import load_head
from feie.pipeline.train import job as train_head
from feie.pipeline.train.job import TrainHeadOptions

FER = "facial_expression_recognition_mobilefacenet_2022july_int8.onnx"
_BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(page: str, title: str) -> tuple[dict[str, str], list[list[str]]]:
    """Files and commands of a section of the page."""
    text = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    files, commands = {}, []
    for language, name, body in _BLOCK.findall(text):
        if name:
            files[name] = body
        elif language == "bash":
            commands += [shlex.split(line) for line in body.splitlines()]
    assert commands
    return files, commands


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    return (project / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(project: Path, tmp_path_factory) -> Path:
    """Where a reader of the page stands; a few videos of the example are enough."""
    root = tmp_path_factory.mktemp("reader")
    lines = (project / "data.example" / "labels.csv").read_text().splitlines()
    kept = [lines[0]]
    for split, count in (("train", 4), ("val", 2)):
        kept += [line for line in lines if line.split(",")[1] == split][:count]
    (root / "data.example" / "videos").mkdir(parents=True)
    (root / "data.example" / "labels.csv").write_text("\n".join(kept))
    for line in kept[1:]:
        name = f"videos/{line.split(',')[0]}.mp4"
        shutil.copy(project / "data.example" / name, root / "data.example" / name)
    return root


@pytest.fixture(autouse=True)
def fresh(monkeypatch, folder):
    """Each test stands in the folder, and nothing has been named before, as in a new process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(plugin_module, "_named", {})


def follow(files: dict[str, str], commands: list[list[str]], monkeypatch) -> list[str]:
    for name, body in files.items():
        Path(name).write_text(body, encoding="utf-8")
    said = []
    for command in commands:
        assert command[0] == "feie"
        monkeypatch.setattr(plugin_module, "_named", {})  # every command is a process of its own
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, (command, result.output)
        said.append(result.output)
    return said


@pytest.fixture(scope="module")
def light(page, folder) -> tuple[dict[str, str], list[list[str]]]:
    return section(page, "An extractor in one file")


@pytest.fixture
def followed(light, monkeypatch, folder) -> Path:
    """The folder once the section on extractors has been followed."""
    if not (folder / "runs" / "light").exists():
        follow(*light, monkeypatch)
    return folder


def test_an_extractor_in_one_file(followed):
    store = open_store("light.zarr")
    assert dict(store.schema.groups) == {"light": (0, 2), "colour": (2, 5)}
    made = store.provenance["extractor"]
    assert made["code"]["name"] == "light.py:Light"
    assert made["sha256"] == made["code"]["sha256"]
    assert len(store.ids) == 6
    # Another file, another store: what it was made by is part of it.
    other = Path("light.py").read_text().replace("/ 255", "/ 256")
    Path("elsewhere").mkdir()
    (Path("elsewhere") / "light.py").write_text(other)
    again = ["--extractor", "elsewhere/light.py:Light", "--store", "light.zarr", "--no-isolate"]
    result = CliRunner().invoke(app, ["extract", "--videos", "data.example/videos", *again])
    assert result.exit_code == 2
    assert "was made with extractor code" in result.stderr


def test_a_head_in_one_file(page, followed, monkeypatch):
    files, commands = section(page, "A head in one file")
    said = follow(files, commands, monkeypatch)
    assert len(Path("predictions.csv").read_text().splitlines()) == 7
    notes = json.loads(Path("runs/attention/head.json").read_text())
    assert notes["model"]["name"] == notes["code"]["path"] == "attention.py:Attention"
    assert "changed" not in said[1]
    monkeypatch.setattr(plugin_module, "_named", {})
    # Without its code the run is data, and says what it needs.
    result = CliRunner().invoke(app, ["evaluate", "--run", "runs/attention"])
    assert result.exit_code == 2
    assert "its head is attention.py:Attention" in result.stderr
    assert "--head FOLDER/attention.py:Attention" in result.stderr
    # With other code it runs, and says so.
    Path("changed").mkdir()
    (Path("changed") / "attention.py").write_text(files["attention.py"] + "\n# since then\n")
    named = ["--run", "runs/attention", "--head", "changed/attention.py:Attention"]
    result = CliRunner().invoke(app, ["evaluate", *named])
    assert result.exit_code == 0, result.output
    assert "the code of attention.py:Attention has changed" in result.output


def test_a_package_offers_both_under_short_names(page, folder, monkeypatch, tmp_path):
    files, commands = section(page, "As a package")
    extractor, _ = section(page, "An extractor in one file")
    head, _ = section(page, "A head in one file")
    for name, body in {**extractor, **head}.items():
        (tmp_path / name).write_text(body)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = tmp_path / "our_lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-lab\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(folder / "data.example", tmp_path / "work" / "data.example")
    monkeypatch.chdir(tmp_path / "work")
    try:
        follow({}, commands, monkeypatch)
        made = open_store("light.zarr").provenance["extractor"]
        assert made["code"]["name"] == "light"
        assert (
            json.loads(Path("runs/packaged/head.json").read_text())["model"]["name"] == "attention"
        )
    finally:
        for name in ("light", "attention"):
            sys.modules.pop(name, None)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match="no such head: give one of mrnn, stat-linear, stat-mlp, frame-va, or"
    ):
        TrainHeadOptions(head="attention")


@pytest.mark.shared
def test_an_onnx_file(page, shared, folder, monkeypatch):
    shutil.copy(shared / "models" / FER, folder / FER)
    files, commands = section(page, "An ONNX file")
    follow(files, commands, monkeypatch)
    assert open_store("fer.zarr").schema.group("expr")[3] == "happiness"
    scored = json.loads(Path("runs/fer/evaluation-val.json").read_text())
    trained = json.loads(Path("runs/fer/head.json").read_text())["training"]
    assert scored["n"] == 2
    assert scored["mean_pearson"] == pytest.approx(trained["val_pearson"], abs=1e-6)


HEAD = """
import torch
from torch import nn
from feie.heads.models.plugin import HeadModel

class Mean(HeadModel):
    def __init__(self, inputs, targets):
        super().__init__()
        self.read = nn.Sequential(nn.Dropout(0.3), nn.Linear(inputs, targets))

    def score(self, frames, mask):
        return self.read(frames.sum(1) / mask.sum(1, keepdim=True))

class Whole(Mean):
    def score(self, frames, mask):
        return self.read(frames.mean(1))

class Wide(Mean):
    def score(self, frames, mask):
        return frames.sum(1)

class Buffered(Mean):
    def __init__(self, inputs, targets):
        super().__init__(inputs, targets)
        self.norm = nn.BatchNorm1d(targets)

class Failing(Mean):
    def score(self, frames, mask):
        raise KeyError("oops")

class Empty(HeadModel):
    def __init__(self, inputs, targets):
        super().__init__()

    def score(self, frames, mask):
        return frames.sum(1)

class Picky(Mean):
    def __init__(self, inputs):
        super().__init__(inputs, 1)

class Other:
    def __init__(self, inputs, targets): pass
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Whole", "scores a video differently in other company: mind the mask"),
        ("Wide", r"scores 3 videos as \(3, 4\); it should be \(3, 2\)"),
        ("Buffered", r"keeps norm\.running_mean in a buffer"),
        ("Failing", "fails: KeyError: 'oops'"),
        ("Empty", "has no parameter"),
        ("Picky", r"needs `__init__\(self, inputs, targets\)`; it takes"),
        ("Other", r"makes no head: it should inherit feie\.heads\.head\.HeadModel"),
        ("Nobody", "defines no Nobody"),
    ],
)
def test_what_is_no_head_is_one_clear_error(name, message, tmp_path):
    (tmp_path / "h.py").write_text(HEAD)
    with pytest.raises(UsageError, match=message) as raised:
        new_plugin_head(f"{tmp_path}/h.py:{name}", 4, 2, 0)
    assert "\n" not in str(raised.value)


def test_a_head_sees_its_videos_padded_and_in_order(tmp_path):
    (tmp_path / "h.py").write_text(HEAD)
    head = new_plugin_head(f"{tmp_path}/h.py:Mean", 4, 2, seed=3).eval()
    assert isinstance(head, HeadModel)
    lengths, rng = [2, 5, 1, 5], torch.Generator().manual_seed(0)
    rows = torch.randn(13, 4, generator=rng)
    packing = Packing.of(lengths)
    videos = rows.split(lengths)
    first = torch.tensor([0, 2, 7, 8]).numpy()
    got = head(rows[packing.gather(first)], packing)
    want = torch.stack([head.read(video.mean(0)) for video in videos])
    torch.testing.assert_close(got, want)
    same = new_plugin_head(f"{tmp_path}/h.py:Mean", 4, 2, seed=3)
    assert torch.equal(same.read[1].weight, head.read[1].weight)
    other = new_plugin_head(f"{tmp_path}/h.py:Mean", 4, 2, seed=4)
    assert not torch.equal(other.read[1].weight, head.read[1].weight)


def test_a_head_with_dropout_resumes_to_the_same_weights(followed, tmp_path, monkeypatch):
    (tmp_path / "h.py").write_text(HEAD)
    spec = f"{tmp_path}/h.py:Mean"
    given = {"store": "light.zarr", "labels": Path("data.example/labels.csv"), "head": spec}
    given |= {"runs": tmp_path / "runs", "epochs": 6, "patience": 6, "checkpoint_seconds": 0.0}
    train_head.run(TrainHeadOptions(**given, name="whole"))

    def stop(report):
        if report.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head.run(TrainHeadOptions(**given, name="cut"), stop)
    monkeypatch.setattr(plugin_module, "_named", {})
    resume = TrainHeadOptions(resume=tmp_path / "runs" / "cut")
    with pytest.raises(HeadError, match=f"to run it again, add --head {spec}"):
        train_head.run(resume)
    torch.manual_seed(99)  # another process has drawn other numbers
    train_head.run(TrainHeadOptions(resume=tmp_path / "runs" / "cut", head=spec))
    whole, cut = (load_head(tmp_path / "runs" / name).model for name in ("whole", "cut"))
    for one, other in zip(whole.parameters(), cut.parameters(), strict=True):
        assert torch.equal(one, other)
    logs = [(tmp_path / "runs" / n / "training.csv").read_text() for n in ("whole", "cut")]
    losses = [[row.split(",")[:3] for row in log.splitlines()] for log in logs]
    assert losses[0] == losses[1]  # the best epoch may be one before the cut
    # Nobody resumes with other code.
    with pytest.raises(KeyboardInterrupt):
        train_head.run(TrainHeadOptions(**given, name="third"), stop)
    (tmp_path / "h.py").write_text(HEAD + "\n# since then\n")
    third = TrainHeadOptions(resume=tmp_path / "runs" / "third", head=spec)
    with pytest.raises(HeadError, match=r"h\.py:Mean has changed since .*third was started"):
        train_head.run(third)


def test_what_lies_on_the_disk_runs_no_code(tmp_path):
    (tmp_path / "h.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + HEAD)
    spec = f"{tmp_path}/h.py:Mean"
    with pytest.raises(HeadError, match="to run it again"):
        check_named(spec)
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"head: [mrnn, '{spec}']\n")
    sweep = ["train-head", "--sweep", str(grid), "--store", "none.zarr", "--labels", "none.csv"]
    result = CliRunner().invoke(app, sweep)
    assert result.exit_code == 2
    assert "a grid" in result.stderr or "command line" in result.stderr
    assert not (tmp_path / "ran").exists()
    use_heads([spec, "mrnn"])
    check_named(spec)
    assert (tmp_path / "ran").exists()


EXTRACTOR = """
import numpy as np
from feie.features.extractors.base import Extraction, Extractor
from feie.features.schema import Schema

class Good(Extractor):
    name = "good"
    schema = Schema.of({"g": ("a", "b")})
    def __init__(self, device, weights): self.weights = weights
    def __call__(self, faces):
        return Extraction(faces.reshape(len(faces), -1)[:, :2].astype(np.float64))

class Bad(Good):
    def __call__(self, faces): return Extraction(super().__call__(faces).affect[:, :1])

class Nan(Good):
    def __call__(self, faces):
        affect = super().__call__(faces).affect
        return Extraction(np.where(affect > 200, np.nan, affect))

class Nameless(Good):
    name = None

class Odd(Good):
    extra = {"path": object()}

class Failing(Good):
    def __init__(self, device, weights): raise ValueError("no weights\\nat all")
"""


def test_extractors_of_others_are_held_to_their_word(tmp_path):
    file = tmp_path / "e.py"
    file.write_text(EXTRACTOR)
    good = load_extractor(f"{file}:Good", weights=tmp_path / "w.bin")
    assert good(np.full((3, 112, 112, 3), 7, np.uint8)).affect.dtype == np.float32
    for name, message in (
        ("Bad", r"gives affect of shape \(2, 1\) for 2 faces; it should be \(2, 2\)"),
        ("Nameless", "makes no extractor: its name is None, not a str"),
        ("Odd", "its extra is no dict in JSON types"),
        ("Failing", "cannot be made: ValueError: no weights$"),
        ("Missing", "defines no Missing"),
    ):
        with pytest.raises(UsageError, match=message):
            load_extractor(f"{file}:{name}")
    with pytest.raises(EngineError, match="gives affect that is not finite"):
        load_extractor(f"{file}:Nan")(np.full((3, 112, 112, 3), 255, np.uint8))
    for content, message in (
        ("import sys\nsys.exit(0)", "does not run: SystemExit: 0"),
        ("def broken(:", "does not run: SyntaxError"),
        ("Good = 5", "defines no Good"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=message):
            load_extractor(f"{file}:Good")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_extractor(f"{tmp_path}/none.py:Good")
