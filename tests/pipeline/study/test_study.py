"""feie cross-validate and feie compare: persons apart, resumed exactly, and honest differences."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feie.features.errors import FeieError, LabelError, UsageError
from feie.features.schema import AFFECT
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.data.labels import load_labels
from feie.heads.measures.metrics import holm, pearson
from feie.heads.runs.run import load_run
from feie.heads.runs.stores import predict_videos
from feie.pipeline.study import compare, cross_validate
from feie.pipeline.study.folds import make_folds, persons_of
from feie.pipeline.study.options import CompareOptions, CrossValidateOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.options import TrainHeadOptions

VIDEOS, PERSONS = 48, 12
SMALL = {"t": 16, "batch": 8, "epochs": 3, "width": 8, "dense": 4, "checkpoint_seconds": 0.0}


@pytest.fixture(scope="session")
def material(tmp_path_factory, record, settings, detector_named):
    """A store of short videos of 12 persons, whose AU12 shows their label."""
    folder = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(0)
    joy = rng.random(VIDEOS)
    with StoreWriter(folder / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(VIDEOS):
            affect = rng.uniform(0.2, 0.4, (int(rng.integers(4, 16)), 26)).astype(np.float32)
            affect[:, AFFECT.columns.index("AU12")] += np.float32(0.5 * joy[i])
            valid = np.ones(len(affect), np.bool_)
            writer.append(replace(record(f"{i:03d}", len(affect)), affect=affect, valid=valid))
    lines = [
        f"{i:03d},p{i % PERSONS},{i % PERSONS % 4},{joy[i]:.4f},{1 - joy[i] ** 2:.4f}"
        for i in range(VIDEOS)
    ]
    (folder / "labels.csv").write_text("\n".join(["id,subject,fold,Joy,Gloom", *lines]) + "\n")
    return folder


def options(material, out, **given):
    base = {"store": str(material / "s.zarr"), "labels": material / "labels.csv", "out": out}
    return CrossValidateOptions.model_validate({**base, **SMALL, "folds": "3", "jobs": 1, **given})


@pytest.fixture(scope="session")
def study(material, tmp_path_factory):
    given = options(material, tmp_path_factory.mktemp("cv") / "out", seeds=2, stack="off")
    return given, cross_validate.run(given)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_no_person_stands_on_two_sides_and_every_video_is_left_out_once(study):
    given, result = study
    assert (result.trained, result.kept, result.failed) == (6, 0, {})
    assert (result.videos, result.persons, result.by_person) == (VIDEOS, PERSONS, True)
    assigned = {row["id"]: row for row in rows_of(result.assignment)}
    assert len(assigned) == VIDEOS
    for fold in ("1", "2", "3"):
        sides = defaultdict(set)
        for row in rows_of(given.out / "folds" / f"fold-{fold}.csv"):
            sides[row["split"]].add(row["subject"])
            assert (row["split"] == "test") == (assigned[row["id"]]["fold"] == fold)
        train, val, test = (sides[split] for split in ("train", "val", "test"))
        assert not train & val
        assert not train & test
        assert not val & test
        assert len(test) == 4


def test_its_figures_are_those_of_runs_of_train_head(material, study):
    given, result = study
    store, labels = open_store(given.store), load_labels(given.labels)
    predicted = {row["id"]: [float(row[n]) for n in labels.targets]
                 for row in rows_of(result.predictions)}  # fmt: skip
    left_out = [r["id"] for r in rows_of(result.assignment) if r["fold"] == "2"]
    heads = []
    for seed in (0, 1):
        run = load_run(given.out / "runs" / f"fold-2-s{seed}")
        assert run.notes["videos"]["train"] + run.notes["videos"]["val"] == VIDEOS - 16
        heads.append(predict_videos(run, [store], [left_out]).fused)
    np.testing.assert_allclose([predicted[v] for v in left_out], np.mean(heads, 0), rtol=1e-6)
    truth = dict(zip(labels.ids, labels.values, strict=True))
    p = np.array([predicted[video] for video in labels.ids])
    rho = pearson(p, np.array([truth[video] for video in labels.ids]))
    assert list(result.pearson.values()) == pytest.approx(rho, abs=1e-6)
    by_fold = [fold.pearson["Joy"] for fold in result.folds]
    assert result.fold_mean["Joy"] == pytest.approx(np.mean(by_fold))
    assert result.fold_sd["Joy"] == pytest.approx(np.std(by_fold, ddof=1))
    alone = TrainHeadOptions(
        store=given.store, labels=given.out / "folds" / "fold-2.csv", runs=material / "alone",
        name="x", seed=1, **SMALL,
    )  # fmt: skip
    train_head.run(alone)
    again = predict_videos(load_run(material / "alone" / "x"), [store], [left_out]).fused
    np.testing.assert_array_equal(again, heads[1])


def test_the_tables_say_pooled_and_over_folds(study):
    _, result = study
    pooled, folds = result.tables()
    assert pooled.columns[-1] == "Pearson over folds"
    assert " ± " in pooled.rows[0][-1]
    assert [row[0] for row in folds.rows] == ["1", "2", "3"]
    assert result.mean_interval is not None
    assert json.loads((Path(result.out) / "cross-validation.json").read_text())["videos"] == VIDEOS
    assert not any("names no persons" in note for note in result.notes)


def test_again_it_trains_nothing_more_seeds_only_those_and_other_options_are_refused(study):
    given, result = study
    predictions = Path(result.predictions).read_bytes()
    again = cross_validate.run(given)
    assert (again.trained, again.kept) == (0, 6)
    assert Path(result.predictions).read_bytes() == predictions
    with pytest.raises(UsageError, match="another cross-validation, which differs in --epochs"):
        cross_validate.run(given.model_copy(update={"epochs": 4}))
    with pytest.raises(UsageError, match="which differs in the folds"):
        cross_validate.run(given.model_copy(update={"folds": "4"}))


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_killed_it_goes_on_to_the_same_predictions(study, tmp_path):
    given = study[0].model_copy(update={"out": tmp_path / "out"})
    script = tmp_path / "job.py"
    script.write_text(
        "import sys; from feie.pipeline.study import cross_validate as c\n"
        "from feie.pipeline.study.options import CrossValidateOptions as O\n"
        "if __name__ == '__main__': c.run(O.model_validate_json(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, script, given.model_dump_json()])
    while len(list((given.out / "runs").glob("*/head.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (given.out / "predictions.csv").exists()
    result = cross_validate.run(given)
    assert result.kept >= 2
    assert result.trained + result.kept == 6
    assert Path(result.predictions).read_bytes() == Path(study[1].predictions).read_bytes()


def test_stacked_it_is_the_same(study, tmp_path):
    given = study[0].model_copy(update={"out": tmp_path / "out", "stack": "on"})
    result = cross_validate.run(given)
    assert result.pearson == pytest.approx(study[1].pearson, abs=1e-3)


def test_a_column_of_folds_is_understood_and_options_are_chosen_inside(material, tmp_path):
    given = options(material, tmp_path / "out", folds="fold", epochs=2, choose=("lr=1e-30,0.03",))
    result = cross_validate.run(given)
    assert [fold.name for fold in result.folds] == ["0", "1", "2", "3"]
    assert {row["id"]: row["fold"] for row in rows_of(result.assignment)} == {
        f"{i:03d}": str(i % PERSONS % 4) for i in range(VIDEOS)
    }
    assert result.trained == 8
    for fold in result.folds:
        noted = [
            json.loads((given.out / "runs" / f"fold-{fold.name}-c{c}-s0" / "head.json").read_text())
            for c in (0, 1)
        ]
        best = int(np.argmax([n["training"]["val_pearson"] for n in noted]))
        assert float(fold.chosen["lr"]) == (1e-30, 0.03)[best]
    assert "chosen" in result.tables()[1].columns


def test_one_person_is_left_out_at_a_time(material):
    labels = load_labels(material / "labels.csv")
    folds = make_folds(labels, persons_of(labels), "subjects")
    assert [len(fold.rows("test")) for fold in folds] == [VIDEOS // PERSONS] * PERSONS
    other = make_folds(labels, persons_of(labels), "4", seed=1)
    assert sorted(len(fold.rows("test")) for fold in other) == [12, 12, 12, 12]
    same = make_folds(labels, persons_of(labels), "4")
    assert any((a.split != b.split).any() for a, b in zip(same, other, strict=True))


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({}, {"folds": "13"}, "has 12 usable persons: too few for --folds 13"),
        ({}, {"folds": "1"}, "has two folds or more"),
        ({}, {"folds": "site"}, "has no column 'site'"),
        ({}, {"choose": ("speed=1,2",)}, "no option of train-head that can be chosen"),
        ({}, {"choose": ("lr=1",)}, "give two values or more"),
        ({}, {"choose": ("lr=-1,1",)}, "lr: Input should be greater than 0"),
        ({}, {"choose": ("head=stat-linear,mrnn",)}, "--units belongs to --head mrnn"),
        ({"subject": lambda i: "" if i == 5 else f"p{i % 12}"}, {}, "blank for 1 video, .* '005'"),
        ({"fold": lambda i: str(i % 5)}, {"folds": "fold"}, "'p0' stands in the folds 0 and"),
        ({"Joy": lambda i: "1" if i % 12 else str(i / 60)}, {}, "Joy never varies in the"),
    ],
)
def test_what_cannot_be_is_one_sentence(material, tmp_path, change, given, message):
    rows = rows_of(material / "labels.csv")
    for i, row in enumerate(rows):
        row |= {name: cell(i) for name, cell in change.items()}
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(FeieError, match=message) as caught:
        cross_validate.run(options(material, tmp_path / "out", **{"labels": path, **given}))
    assert isinstance(caught.value, UsageError | LabelError)
    assert not list(tmp_path.glob("out/runs/*"))


@pytest.mark.parametrize("given", [{"seed": 3}, {"name": "x"}, {"tensorboard": True}])
def test_what_only_a_single_run_has_is_refused_in_python_too(given):
    import feie

    with pytest.raises(UsageError, match=f"{next(iter(given))} belongs to a single run"):
        feie.cross_validate(**given)


def test_heads_of_frames_are_refused(material, tmp_path):
    given = {"store": str(material / "s.zarr"), "labels": material / "labels.csv"}
    with pytest.raises(UsageError, match="not cross-validated yet"):
        cross_validate.run(CrossValidateOptions(head="frame-va", out=tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def predictions(path, values, ids=None):
    """Write a file of predictions."""
    ids = [f"{i:03d}" for i in range(VIDEOS)] if ids is None else ids
    lines = [f"{video},{joy},{gloom}" for video, (joy, gloom) in zip(ids, values, strict=True)]
    path.write_text("id,Joy,Gloom\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def files(material, tmp_path):
    """Predictions: good ones, as good ones, and bad ones."""
    rng = np.random.default_rng(1)
    truth = load_labels(material / "labels.csv").values
    noise = {"good": 0.1, "alike": 0.1, "bad": 2.0}
    return {
        name: predictions(tmp_path / f"{name}.csv", truth + rng.normal(0, sd, truth.shape))
        for name, sd in noise.items()
    }


def test_what_differs_is_told_apart_and_what_does_not_is_not(material, files, tmp_path):
    given = {"labels": material / "labels.csv", "out": tmp_path / "out"}
    result = compare.run(CompareOptions(runs=list(files.values()), **given))
    assert (result.videos, result.persons) == (VIDEOS, PERSONS)
    alike, bad = result.others
    assert not alike.mean.told_apart
    assert bad.mean.told_apart
    assert bad.mean.difference < 0
    assert bad.mean.interval[1] < 0
    assert bad.mean.p_value <= bad.mean.corrected
    assert bad.mean.difference == pytest.approx(bad.mean_pearson - result.first_pearson)
    said = "\n".join(result.lines())
    assert f"{files['bad']} is worse than {files['good']}" in said
    assert f"{files['alike']} cannot be told from {files['good']}" in said
    written = rows_of(tmp_path / "out" / "comparison.csv")
    assert len(written) == 6
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_cross_validations_say_in_which_options_they_differ(study, material, tmp_path):
    other = study[0].model_copy(update={"out": tmp_path / "other", "lr": 0.02, "seeds": 1})
    cross_validate.run(other)
    result = compare.run(CompareOptions(runs=[study[0].out, other.out]))
    assert (result.videos, result.persons) == (VIDEOS, PERSONS)
    assert result.others[0].options == ["lr 0.02 (not None)"]


def test_runs_are_evaluated_and_compared(study, material, tmp_path):
    runs = []
    for name, width in (("a", 8), ("b", 16)):
        given = {**SMALL, "width": width, "epochs": 1}
        train_head.run(
            TrainHeadOptions(
                store=str(material / "s.zarr"), labels=study[0].out / "folds" / "fold-1.csv",
                runs=tmp_path, name=name, **given,
            )
        )  # fmt: skip
        runs.append(tmp_path / name)
    result = compare.run(CompareOptions(runs=runs, split="test"))
    assert (result.videos, result.persons) == (16, 4)
    assert result.others[0].options == ["width 16 (not 8)"]
    with pytest.raises(UsageError, match=r"other labels: .* only what has the same labels"):
        compare.run(CompareOptions(runs=[*runs, study[0].out], split="test"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, m: {"runs": [f["good"], f["good"]]}, "named twice"),
        (lambda f, m: {"runs": [f["good"], f["bad"]]}, "give --labels"),
        (lambda f, m: {"runs": [f["good"], m / "no.csv"], "labels": m / "labels.csv"},
         "does not exist"),
        (lambda f, m: {"runs": [f["good"], m], "labels": m / "labels.csv"}, "neither a run"),
        (lambda f, m: {"runs": [f["good"], predictions(f["bad"], [(0, 1), (1, 2)], ["000", "001"])],
                       "labels": m / "labels.csv"}, "predicts other videos: it lacks 46 videos"),
        (lambda f, m: {"runs": [predictions(f["good"], [(0, 1), (1, 2)], ["x", "y"]),
                                predictions(f["bad"], [(0, 1), (1, 3)], ["x", "y"])],
                       "labels": m / "labels.csv"}, "has no row for 2 videos"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(material, files, spoil, message):
    with pytest.raises(FeieError, match=message):
        compare.run(CompareOptions(**spoil(files, material)))


def test_holm_is_that_of_the_book():
    # Holm (1979): ordered p-values times m, m - 1, …, never falling, at most 1.
    p = np.array([[0.01, 0.04], [0.03, np.nan], [0.005, 0.9]])
    expected = [[0.04, 0.09], [0.09, np.nan], [0.025, 0.9]]
    np.testing.assert_allclose(holm(p), expected)
