"""One Head: a new one is one file and one line in the registry; options load no torch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from feie.features.store.writer import StoreWriter
from feie.heads.config import HEADS, config_of
from feie.heads.head import Head
from feie.heads.models.base import HeadModel
from feie.heads.runs.checkpoint import load_head
from feie.pipeline.grid.command import TrainHeadCommand
from feie.pipeline.options import options_of
from feie.pipeline.train.options import TrainHeadOptions

NEW_HEAD = '''
"""The mean of each column over a video, or the frame itself, and a linear layer."""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from feie.heads.head import HeadConfig, HeadModel, HeadOptions


class MeanConfig(HeadConfig):
    network: ClassVar[str] = "mean_head:Mean"
    kind: Literal["mean"] = "mean"
    scale: float = 1.0


class MeanOptions(HeadOptions):
    config: ClassVar[type[HeadConfig]] = MeanConfig
    kind: Literal["mean"] = "mean"
    scale: Annotated[float, Field(gt=0, description="Of its output.")] = 1.0


class Mean(HeadModel):
    def __init__(self, config, seed=0):
        super().__init__()
        self.config = config
        torch.manual_seed(seed)
        self.read = torch.nn.Linear(config.inputs, config.targets)

    def score(self, frames, mask):
        mean = frames.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return self.config.scale * self.read(mean)
'''

USE = """
import sys
from pathlib import Path
from mean_head import MeanOptions
from feie.heads.config import HEADS
HEADS["mean"] = MeanOptions  # the line in the registry
import feie
from typer.testing import CliRunner
from feie.cli import app
folder = Path(sys.argv[1])
store, labels, runs = str(folder / "s.zarr"), str(folder / "l.csv"), str(folder / "runs")
given = dict(store=store, labels=labels, runs=runs, epochs=20, lr=0.05)
done = feie.train_head(head="mean", scale=2.0, name="one", **given)
found = feie.evaluate(run=f"{runs}/one", report=str(folder / "r.html"))
assert abs(found.mean_pearson - done.mean_pearson) < 1e-6, (found, done)
assert found.mean_pearson > 0.7, found.mean_pearson
assert feie.predict(run=f"{runs}/one", store=store, out=str(folder / "p.csv")).videos == 40
from feie.heads.runs.checkpoint import load_head
head = load_head(Path(runs) / "one")
assert (head.kind, head.unit, head.config.scale) == ("mean", "video", 2.0)

def run(*words):
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output

common = ("--store", store, "--labels", labels, "--runs", runs, "--epochs", "2")
code, said = run("train-head", *common, "--head", "mean", "--scale", "3", "--name", "two")
assert code == 0, said
assert load_head(Path(runs) / "two").config.scale == 3.0
code, said = run("train-head", *common, "--scale", "3")
assert code == 2 and "--scale belongs to --head mean" in said, said
code, said = run("train-head", "--help")
assert "--scale" in said and "Of its output." in said, said
"""


@pytest.fixture
def study(tmp_path, record, settings, detector_named):
    rows = ["id,split,Joy"]
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(40):
            base = record(f"{i:02d}", 8, seed=i)
            affect = base.affect.copy()
            joy = (i * 7 % 40) / 40
            affect[:, 6] = np.where(base.valid, 0.1 + 0.8 * joy, np.nan)
            writer.append(replace(base, affect=affect))
            rows.append(f"{i:02d},{('train', 'train', 'val')[i % 3]},{joy:.4f}")
    (tmp_path / "l.csv").write_text("\n".join(rows))
    (tmp_path / "mean_head.py").write_text(NEW_HEAD)
    return tmp_path


def test_a_new_head_is_one_file_and_one_line(study):
    done = subprocess.run(
        [sys.executable, "-c", USE, str(study)],
        cwd=study, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_options_of_heads_load_neither_torch_nor_zarr():
    code = (
        "import sys; from feie.pipeline.grid.command import TrainHeadCommand; "
        "from feie.pipeline.evaluate.options import EvaluateOptions; "
        "from feie.pipeline.predict.options import PredictOptions; "
        "print([m for m in ('torch', 'zarr', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_head_of_the_registry_is_made_and_read_from_its_config():
    for name, options in HEADS.items():
        if name == "plugin":
            continue
        asked = TrainHeadOptions(head=name).head
        assert isinstance(asked, options)
        model = asked.new(inputs=5, targets=2, t=9, seed=3)
        assert isinstance(model, HeadModel)
        assert config_of(model.config.model_dump(mode="json")) == model.config
        again = model.config.build(3).state_dict()
        assert all((again[k] == v).all() for k, v in model.state_dict().items())


def test_flat_and_nested_options_are_the_same():
    flat = TrainHeadOptions(head="mrnn", width=64, mask=False, lr=0.01)
    assert flat == TrainHeadOptions(head={"kind": "mrnn", "width": 64, "mask": False}, lr=0.01)
    assert flat == TrainHeadOptions.model_validate(flat.model_dump(mode="json"))
    assert flat == TrainHeadOptions.model_validate(flat.flat())
    assert TrainHeadOptions(units=64, fc=3).head == TrainHeadOptions(width=64, dense=3).head
    # What feie 0.1.0 noted: every option of every head, flat.
    noted = {**flat.flat(), "l2": 1 / 512}
    assert TrainHeadOptions.model_validate(noted) == flat
    own = TrainHeadOptions(head="frame-va", box=3)
    assert (own.head.box, own.loss, own.space, own.missing) == (3, "ccc", "logit", "interpolate")
    assert (own.training().batch, own.training().epochs) == (1024, 30)
    assert TrainHeadOptions.model_validate(own.flat()) == own
    code = TrainHeadOptions(head="some/file.py:Net")
    assert code.head.kind == "plugin"
    assert code.head.code.startswith("/")
    assert TrainHeadOptions.model_validate(code.flat()) == code


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "nope"}, "there is no such head: give one of mrnn, stat-linear, .*FILE.py:NAME"),
        ({"box": 3}, "--box belongs to --head frame-va: with --head mrnn leave it out"),
        ({"head": "x.py:Net", "l2": 0.1}, "--l2 belongs to --head stat-linear or stat-mlp"),
        ({"head": "frame-va", "t": 9, "missing": "drop"}, "--t, --missing would do nothing"),
        ({"head": "mrnn", "width": 0}, "greater than or equal to 1"),
    ],
    ids=str,
)
def test_options_of_another_head_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        TrainHeadOptions(**given)


def test_the_command_line_knows_whose_each_option_is():
    options = options_of(TrainHeadCommand)
    assert options["width"].names == ("--width", "--units")
    assert options["dense"].names == ("--dense", "--fc")
    assert options["l2"].kinds == ("stat-linear", "stat-mlp")
    assert options["box"].kinds == ("frame-va",)
    assert "code" not in options


def test_a_trained_head_keeps_the_protocol(study):
    from feie.pipeline.train import job as train_head

    asked = TrainHeadOptions(
        store=str(study / "s.zarr"), labels=study / "l.csv", runs=study / "runs", name="a",
        epochs=1, width=4, dense=2, t=9,
    )  # fmt: skip
    train_head.run(asked)
    head: Head = load_head(study / "runs" / "a")
    assert (head.kind, head.unit, head.targets) == ("mrnn", "video", ("Joy",))
    assert head.config.t == head.inputs.t == 9
