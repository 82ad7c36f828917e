"""The whole of feie on the example clips: a head learns from them, and not from shuffled labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from feie.pipeline import demo, evaluate, train_head
from feie.pipeline.demo import DemoOptions
from feie.pipeline.evaluate import EvaluateOptions
from feie.pipeline.train_head import TrainHeadOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(project, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return demo.run(DemoOptions(data=project / "data.example", out=out)), out


def test_the_demo_learns(shown):
    result, _ = shown
    assert result.extract.failed == 0
    assert result.extract.videos >= 40
    assert result.extract.face_share == 1.0
    assert result.evaluate.split == "test"
    assert result.evaluate.mean_pearson >= 0.5
    assert result.evaluate.mean_pearson >= result.evaluate.length_baseline.mean_pearson + 0.3


def test_shuffled_labels_teach_nothing(project, shown, tmp_path):
    _, out = shown
    labels = pd.read_csv(project / "data.example" / "labels.csv", dtype={"id": str})
    targets = [c for c in labels if c not in ("id", "split")]
    rng = np.random.default_rng(0)
    for _, rows in labels.groupby("split"):
        labels.loc[rows.index, targets] = rng.permutation(rows[targets].to_numpy())
    labels.to_csv(tmp_path / "labels.csv", index=False)
    store = str(out / "features.zarr")
    train_head.run(
        TrainHeadOptions(store=store, labels=tmp_path / "labels.csv", runs=tmp_path / "runs")
    )
    scores = evaluate.run(EvaluateOptions(runs=tmp_path / "runs", split="test"))
    assert abs(scores.mean_pearson) < 0.25
