"""The whole of feie on the example clips: a head learns from them, and not from shuffled labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.machine import demo
from feie.pipeline.machine.demo import DemoOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.job import TrainHeadOptions

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
    """The mean over three shuffles within splits: one alone has a spread of some 0.1."""
    result, out = shown
    scores = []
    for seed in range(3):
        labels = pd.read_csv(project / "data.example" / "labels.csv", dtype={"id": str})
        targets = [c for c in labels if c not in ("id", "split")]
        rng = np.random.default_rng(seed)
        for _, rows in labels.groupby("split"):
            labels.loc[rows.index, targets] = rng.permutation(rows[targets].to_numpy())
        path = tmp_path / f"labels-{seed}.csv"
        labels.to_csv(path, index=False)
        options = TrainHeadOptions(
            store=str(out / "features.zarr"), labels=path, runs=tmp_path / "runs", name=f"s{seed}"
        )
        trained = train_head.run(options)
        scores.append(evaluate.run(EvaluateOptions(run=Path(trained.run), split="test")))
    mean = np.mean([s.mean_pearson for s in scores])
    assert abs(mean) < 0.2
    assert result.evaluate.mean_pearson > mean + 0.25
