"""Report: errors of plugins and of the Python API speak of what the caller never wrote."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_origin

import pytest
from torch.utils.data import DataLoader

import feie
from feie.features.errors import EngineError, UsageError
from feie.features.extractors.plugin import PluginExtractor
from feie.features.plugins import find_plugin
from feie.heads.models.plugin import new_plugin_head
from feie.pipeline.jobs import JOBS, options_model

EXTRACTORS = """
import numpy as np
from feie.features.extractors.base import Extraction, Extractor
from feie.features.schema import Schema

class Base(Extractor):
    name = "base"
    schema = Schema.of({"a": ("x", "y")})
    def __init__(self, device, weights): pass

class NoArguments(Base):
    def __init__(self): pass
class OneMore(Base):
    def __init__(self, device, weights, size): pass
def function(device): return None
class NoCall:
    name, schema = "n", Base.schema
    def __init__(self, device, weights): pass
class Dict(Base):
    def __call__(self, faces): return {"affect": np.zeros((len(faces), 2))}
class Bare(Base):
    def __call__(self, faces): return np.zeros((len(faces), 2))
class NoEmbedding(Base):
    embedding_dim = 4
    def __call__(self, faces): return Extraction(np.zeros((len(faces), 2), np.float32))
"""
HEADS = """
import torch
from feie.heads.models.plugin import HeadModel

class NoArguments(HeadModel):
    def __init__(self): super().__init__()
class NoScore(HeadModel):
    def __init__(self, inputs, targets):
        super().__init__()
        self.read = torch.nn.Linear(inputs, targets)
class Tuple(NoScore):
    def score(self, frames, mask): return self.read(frames.mean(1)), None
"""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoArguments", r"needs `__init__\(self, device, weights\)`; it takes \(\)"),
        ("OneMore", r"needs `__init__\(self, device, weights\)`; it takes .*size"),
        ("function", r"needs `function\(device, weights\)`; it takes \(device\)"),
        ("NoCall", r"needs `__call__\(self, faces\)`, which returns `Extraction`"),
        ("Dict", r"`__call__` must return `Extraction`, not dict"),
        ("Bare", r"`__call__` must return `Extraction`, not ndarray"),
        ("NoEmbedding", r"embedding_dim is 4, and `__call__` returned .* without an embedding"),
    ],
)
def test_an_extractor_that_is_none_is_told_what_it_needs(name, message, tmp_path):
    (tmp_path / "x.py").write_text(EXTRACTORS)
    plugin = find_plugin(f"{tmp_path}/x.py:{name}", "feie.extractors")
    with pytest.raises((UsageError, EngineError), match=message) as raised:
        PluginExtractor(plugin, "cpu", None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoArguments", r"needs `__init__\(self, inputs, targets\)`; it takes \(\)"),
        ("NoScore", r"needs `score\(self, frames, mask\)`, which returns a tensor"),
        ("Tuple", r"`score` must return a tensor, not tuple"),
    ],
)
def test_a_head_that_is_none_is_told_what_it_needs(name, message, tmp_path):
    (tmp_path / "h.py").write_text(HEADS)
    with pytest.raises(UsageError, match=message):
        new_plugin_head(f"{tmp_path}/h.py:{name}", 4, 2, 0)


def test_a_plain_data_loader_is_told_its_collate_function(example_folder):
    data = feie.VideoDataset(example_folder / "features.zarr", example_folder / "labels.csv")
    with pytest.raises(UsageError, match=r"give the DataLoader collate_fn=feie\.collate"):
        next(iter(DataLoader(data, batch_size=2)))
    batch = next(iter(DataLoader(data, batch_size=2, collate_fn=feie.collate)))
    assert (len(batch), batch.labels.shape) == (2, (2, 2))


def several():
    """Options of all jobs that take several texts or paths."""
    for job in sorted(
        set(JOBS) - {"train_fusion", "train_frame_va", "compare"}
    ):  # made of other jobs' options
        for name, field in options_model(job).model_fields.items():
            kinds = [field.annotation, *get_args(field.annotation)]
            tuples = [get_args(k) for k in kinds if get_origin(k) is tuple]
            if any(inner[0] in (str, Path) for inner in tuples):
                yield job, name


@pytest.mark.parametrize(("job", "name"), list(several()))
def test_one_may_be_given_where_an_option_has_several(job, name):
    model = options_model(job)
    required = {n: "x" for n, f in model.model_fields.items() if f.is_required() and n != name}
    required |= {"format": "parquet"} if job == "dump" else {}
    made = model(**required, **{name: "one"})
    assert [str(part) for part in getattr(made, name)] == ["one"]


def test_inspect_takes_one_id(example_folder, tmp_path):
    store = example_folder / "features.zarr"
    done = feie.inspect(store=store, videos="face-001", out=tmp_path / "a.png")
    assert [picture.video for picture in done.pictures] == ["face-001"]


def test_predict_of_videos_by_imported_features_names_the_way(tmp_path):
    """Report: `predict --videos` with a head on imported features speaks of an extractor."""
    rows = {}
    for number in range(6):
        frames = [f"{i / 25},{(i * (number + 3)) % 7},{i % 3}" for i in range(12)]
        rows[f"v{number}"] = "\n".join(["time,a,b", *frames, ""])
    (tmp_path / "f").mkdir()
    for name, text in rows.items():
        (tmp_path / "f" / f"{name}.csv").write_text(text)
    feie.import_features(source=tmp_path / "f", store=tmp_path / "s.zarr")
    splits = ["train", "train", "train", "val", "val", "val"]
    lines = [f"v{i},{split},{(i * 37 % 10) / 10}" for i, split in enumerate(splits)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,split,Joy", *lines, ""]))
    given = {"store": tmp_path / "s.zarr", "labels": tmp_path / "labels.csv"}
    made = feie.train_head(**given, runs=tmp_path / "runs", name="a", epochs=1, width=4)
    with pytest.raises(UsageError, match=r"trained on imported features \(table\).*--store"):
        feie.predict(run=made.run, videos=tmp_path / "f", out=tmp_path / "p.csv")
    done = feie.predict(run=made.run, store=tmp_path / "s.zarr", out=tmp_path / "p.csv")
    assert done.videos == 6
