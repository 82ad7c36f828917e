"""Runs that feie 0.1.0 made: loaded, they predict and score what they did then.

The stores and runs beside this file were made by 0.1.0 (commit f0eb666) from `data.example` with
its commands `extract`, `import`, `train-head`; ``expected/`` is what its `predict` and `evaluate`
gave. Where a run notes its store as ``/mnt/…`` it is found by the place noted beside it.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.options import EvaluateOptions
from feie.pipeline.grid import sweep
from feie.pipeline.grid.sweep import SweepOptions
from feie.pipeline.predict import job as predict
from feie.pipeline.predict.options import PredictOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.options import TrainHeadOptions

HERE = Path(__file__).parent
WRITTEN = 6e-7  # 0.1.0 wrote six decimals
STORES = {"fusion": ("store.zarr", "voice.zarr")}
RUNS = ("mrnn", "stat-linear", "stat-mlp", "attention", "fusion", "fused", "frame-va")


@pytest.fixture
def then(tmp_path):
    """The project as 0.1.0 left it, elsewhere."""
    shutil.copytree(HERE, tmp_path / "then")
    return tmp_path / "then"


def code_of(run, then):
    return (f"{then}/inputs/attention.py:Attention",) if run == "attention" else ()


def rows_of(path):
    """Figures by the cells that name them; videos that failed have none."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    keys = [name for name in ("id", "frame") if name in table[0]]
    names = [name for name in table[0] if name not in ("id", "frame", "time")]
    return {
        tuple(row[k] for k in keys): np.array([float(row[n]) for n in names])
        for row in table
        if row[names[0]]
    }


def assert_alike(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=0, atol=tolerance, err_msg=str(key))


@pytest.mark.parametrize("run", RUNS)
def test_a_run_predicts_what_it_did(then, run):
    stores = STORES.get(run, ("store.zarr",))
    options = {
        "run": then / "runs" / run,
        "store": tuple(str(then / s) for s in stores),
        "out": then / "found.csv",
        "head": code_of(run, then),
    }
    predict.run(PredictOptions(**options))
    # A head of frames computed in float64 then.
    tolerance = 2e-6 if run == "frame-va" else WRITTEN
    expected = rows_of(then / "expected" / f"predict-{run}.csv")
    assert_alike(rows_of(then / "found.csv"), expected, tolerance)


@pytest.mark.parametrize("run", ["mrnn", "frame-va"])
def test_gaps_are_read_as_they_were(then, run):
    store, out = str(then / "gaps.zarr"), then / "found.csv"
    predict.run(PredictOptions(run=then / "runs" / run, store=store, out=out))
    assert_alike(rows_of(out), rows_of(then / "expected" / f"predict-{run}-gaps.csv"), 2e-6)


def assert_same_figures(found, expected, path=""):
    """Every figure that 0.1.0 gave is there, and the same."""
    for name, value in expected.items():
        place = f"{path}.{name}"
        if isinstance(value, dict):
            assert_same_figures(found[name], value, place)
        elif isinstance(value, float) or (
            isinstance(value, list) and value and isinstance(value[0], float)
        ):
            assert found[name] == pytest.approx(value, abs=2e-6), place
        elif isinstance(value, int):
            assert found[name] == value, place
        elif value is None and name not in ("report", "submission"):
            assert found[name] is None, place


@pytest.mark.parametrize("run", RUNS)
def test_a_run_scores_what_it_did(then, run):
    options = {"run": then / "runs" / run, "unmatched": 0.1, "head": code_of(run, then)}
    found = evaluate.run(EvaluateOptions(**options)).model_dump(mode="json")
    expected = json.loads((then / "expected" / f"evaluate-{run}.json").read_text())
    assert expected.keys() <= found.keys()
    assert_same_figures(found, expected)
    assert not any("is not, or no longer" in note for note in found["notes"])


def test_a_killed_training_goes_on_to_the_same_end(then):
    found = train_head.run(TrainHeadOptions(resume=then / "runs" / "killed"))
    expected = json.loads((then / "expected" / "resume-killed.json").read_text())
    assert (found.epochs, found.best_epoch) == (expected["epochs"], expected["best_epoch"])
    # Of a machine with other instructions the last bits differ.
    assert found.mean_pearson == pytest.approx(expected["mean_pearson"], abs=1e-3)
    predict.run(
        PredictOptions(
            run=then / "runs" / "killed", store=str(then / "store.zarr"), out=then / "found.csv"
        )
    )
    expected_rows = rows_of(then / "expected" / "predict-killed-resumed.csv")
    assert_alike(rows_of(then / "found.csv"), expected_rows, 1e-4)


def test_a_sweep_is_known_again_and_goes_on(then):
    base = TrainHeadOptions(
        store=str(then / "store.zarr"), labels=then / "inputs" / "labels.csv", subset=("va",),
        runs=then / "runs", name="sweep", epochs=2, width=4, dense=2, t=32, unmatched=0.1,
    )  # fmt: skip
    done = sweep.run(SweepOptions(grid=then / "inputs" / "grid.yaml", base=base))
    assert (done.kept, done.trained) == (4, 0)
    assert done.rows[0].mean == pytest.approx(0.3365994814258444, abs=1e-9)
    shutil.rmtree(then / "runs" / "sweep" / "lr-0.01_seed-1")
    again = sweep.run(SweepOptions(grid=then / "inputs" / "grid.yaml", base=base))
    assert (again.kept, again.trained) == (3, 1)
    assert again.rows[0].mean == pytest.approx(0.3365994814258444, abs=1e-4)
