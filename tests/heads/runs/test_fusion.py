"""Late fusion: the weights, the runs it makes, and that nothing leaks into it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import HeadError, LabelError, UsageError
from feie.features.schema import Schema
from feie.features.store.records import StoreSettings
from feie.features.store.writer import StoreWriter
from feie.heads.measures.metrics import pearson
from feie.heads.runs.checkpoint import load_head
from feie.heads.runs.fusion import choose_weights, fuse, weight_grid
from feie.heads.runs.run import load_run
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.predict import job as predict
from feie.pipeline.predict.job import PredictOptions
from feie.pipeline.train import fusion as train_fusion
from feie.pipeline.train import job as train_head
from feie.pipeline.train.fusion import TrainFusionOptions
from feie.pipeline.train.options import TrainHeadOptions

SPLITS = ["train"] * 5 + ["val"] * 3 + ["test"] * 2
VOICE = Schema.of({"wav2vec": [f"w{i}" for i in range(5)], "pitch": ["f0"]})
SMALL = {"head": "stat-linear", "preset": "stat", "lr": 0.05, "epochs": 12}


# The weights.


def slow_best(predictions, truth, grid):
    """Mean rho of every point, by mixing the predictions themselves; undefined counts as 0."""
    out = []
    for point in grid:
        mixed = sum(w * p for w, p in zip(point, predictions, strict=True))
        out.append(np.nan_to_num(pearson(mixed, truth)))
    return np.array(out)


@pytest.mark.parametrize("heads", [2, 3])
@settings(deadline=None, max_examples=15)
@given(st.data())
def test_the_weights_are_the_best_of_the_grid(heads, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    videos, targets = data.draw(st.integers(3, 30)), data.draw(st.integers(1, 4))
    truth = rng.random((videos, targets))
    predictions = [truth * rng.random() + rng.normal(size=truth.shape) for _ in range(heads)]
    if data.draw(st.booleans()):
        predictions[0][:, 0] = 0.5  # a head that knows nothing of a target
    grid = weight_grid(heads)
    rho = slow_best(predictions, truth, grid[:: 7 if heads == 3 else 1])
    common = choose_weights(predictions, truth)
    assert (common == common[:, :1]).all()
    found = slow_best(predictions, truth, common.T[:1])[0]
    assert found.mean() >= rho.mean(1).max() - 1e-8
    own = choose_weights(predictions, truth, "target")
    for i in range(targets):
        reached = slow_best(predictions, truth, own.T[i : i + 1])[0, i]
        assert reached >= rho[:, i].max() - 1e-8
    for weights in (common, own):
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(0), 1, atol=1e-12)


@pytest.mark.parametrize("heads", range(2, 9))
def test_the_grid_holds_each_head_alone_and_no_point_twice(heads):
    grid = weight_grid(heads)
    assert len(grid) == len(np.unique(grid, axis=0)) <= 200_000
    np.testing.assert_allclose(grid.sum(1), 1, atol=1e-12)
    for alone in np.eye(heads):
        assert (grid == alone).all(1).any()
    assert heads > 3 or np.unique(grid).size == 101


def test_a_wrong_number_of_heads_is_refused():
    with pytest.raises(UsageError, match="2 to 8 heads can be fused, not 9"):
        weight_grid(9)


@given(st.integers(0, 1000), st.integers(2, 4))
@settings(deadline=None, max_examples=15)
def test_fusing_a_head_with_itself_changes_nothing(seed, times):
    rng = np.random.default_rng(seed)
    prediction, truth = rng.normal(size=(2, 20, 3))
    weights = choose_weights([prediction] * times, truth)
    np.testing.assert_allclose(fuse([prediction] * times, weights), prediction, rtol=1e-14)
    np.testing.assert_allclose(weights, 1 / times, atol=0.01)


def test_a_weight_of_one_is_that_head_bit_for_bit_and_of_none_is_no_say():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 20, 3))
    other[0] = np.nan
    weights = np.zeros((2, 3))
    weights[0] = 1
    assert (fuse([one, other], weights) == one).all()
    # A head that says the truth gets all of the weight, a noisy one none.
    truth, noise = rng.random((60, 2)), rng.normal(size=(60, 2))
    np.testing.assert_array_equal(choose_weights([truth * 2 - 5, noise], truth), [[1, 1], [0, 0]])


# The runs.


@pytest.fixture(scope="module")
def study(tmp_path_factory, record, settings, detector_named):
    """Faces that show Joy, a voice that tells Fear; two videos lack a voice, one its faces."""
    folder = tmp_path_factory.mktemp("fusion")
    rng = np.random.default_rng(1)
    truth = rng.random((80, 2))
    voice_settings = StoreSettings(
        schema=VOICE, extractor={"name": "wav2vec2", "sha256": "a" * 64}, options={}
    )
    with StoreWriter(folder / "face.zarr", settings) as faces:
        faces.use_detector(detector_named)
        for i in range(80):
            base = record(f"{i:05d}", int(rng.integers(6, 14)), seed=i)
            affect, valid = base.affect.copy(), base.valid.copy()
            affect[:, 18] = np.where(valid, truth[i, 0] * 0.8 + rng.normal(0, 0.1), np.nan)
            if i == 7:
                affect[:], valid = np.nan, np.zeros(len(valid), np.bool_)
            faces.append(replace(base, affect=affect, valid=valid))
    with StoreWriter(folder / "voice.zarr", voice_settings) as voices:
        for i in range(78):
            n = int(rng.integers(20, 40))
            values = rng.normal(0, 1, (n, 6)).astype(np.float32)
            values[:, 2] += 4 * truth[i, 1]
            base = record(f"{i:05d}", n, seed=i)
            ones = np.ones(n, np.bool_)
            voices.append(replace(base, affect=values, valid=ones))
    rows = [f"{i:05d},{SPLITS[i % 10]},{joy:.4f},{fear:.4f}" for i, (joy, fear) in enumerate(truth)]
    (folder / "labels.csv").write_text("\n".join(["id,split,Joy,Fear", *rows]))
    return folder


def asked(study, runs, **given):
    base = {"labels": given.pop("labels", study / "labels.csv"), "runs": runs, **SMALL}
    names = ("name", "epochs", "unmatched", "seed", "checkpoint_seconds", "patience")
    base |= {name: given.pop(name) for name in names if name in given}
    stores = (str(study / "face.zarr"), str(study / "voice.zarr"))
    return TrainFusionOptions(**{"base": TrainHeadOptions(**base), "stores": stores, **given})


@pytest.fixture(scope="module")
def fused(study, tmp_path_factory):
    runs = tmp_path_factory.mktemp("fused") / "runs"
    return runs, train_fusion.run(asked(study, runs, name="both"))


def test_two_stores_are_worth_more_than_one(study, fused):
    runs, result = fused
    alone = [head.mean_pearson for head in result.heads]
    assert result.mean_pearson > max(alone) + 0.05
    assert [head.subset for head in result.heads] == [["va", "expr", "au"], ["wav2vec", "pitch"]]
    for head in result.heads:
        assert 0 < head.weights["Joy"] < 1
        assert head.weights["Joy"] == head.weights["Fear"]
    scored = evaluate.run(EvaluateOptions(run=runs / "both"))
    assert scored.mean_pearson == pytest.approx(result.mean_pearson, abs=1e-12)
    assert [row.mean_pearson for row in scored.heads] == alone
    assert [row.store for row in scored.heads] == [
        str(study / "face.zarr"), str(study / "voice.zarr"),
    ]  # fmt: skip
    assert "the weights of the fusion were chosen on the validation videos too" in scored.notes
    assert "1 video shows no face in" in " ".join(scored.notes)
    assert scored.faceless == 1


def test_each_head_of_it_is_the_run_that_its_store_alone_gives(study, fused, tmp_path):
    runs, result = fused
    for number, name in ((0, "1-face"), (1, "2-voice")):
        alone = TrainHeadOptions(
            store=result.heads[number].store, labels=study / "labels.csv", runs=tmp_path,
            name=name, **SMALL,
        )  # fmt: skip
        train_head.run(alone)
        one, other = load_head(tmp_path / name), load_head(runs / "both" / "members" / name)
        for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
            assert (p == q).all()
    found = evaluate.run(EvaluateOptions(run=runs / "both" / "members" / "2-voice"))
    assert found.heads == []


def test_each_target_may_have_weights_of_its_own(study, tmp_path):
    result = train_fusion.run(asked(study, tmp_path, weighting="target", name="own"))
    faces, voice = (head.weights for head in result.heads)
    assert faces["Joy"] > 0.8 > 0.2 > faces["Fear"]
    assert voice["Joy"] + faces["Joy"] == pytest.approx(1)
    assert load_run(tmp_path / "own").notes["weighting"] == "target"


def test_a_store_with_itself_is_that_store(study, tmp_path):
    voice = str(study / "voice.zarr")
    result = train_fusion.run(asked(study, tmp_path, stores=(voice, voice), name="twice"))
    assert result.mean_pearson == pytest.approx(result.heads[0].mean_pearson, abs=1e-14)
    assert [head.weights["Joy"] for head in result.heads] == [0.5, 0.5]
    evaluate.run(EvaluateOptions(run=tmp_path / "twice"))
    evaluate.run(EvaluateOptions(run=tmp_path / "twice" / "members" / "1-voice"))
    ours, own = (
        (folder / "predictions-val.csv").read_text()
        for folder in (tmp_path / "twice", tmp_path / "twice" / "members" / "1-voice")
    )
    assert ours == own


def test_the_test_split_never_matters(study, tmp_path):
    hidden = tmp_path / "labels.csv"
    lines = (study / "labels.csv").read_text().splitlines()
    hidden.write_text("\n".join(
        ",".join([*line.split(",")[:2], "", ""]) if ",test," in line else line for line in lines
    ))  # fmt: skip
    weights = []
    for name, labels in (("seen", study / "labels.csv"), ("hidden", hidden)):
        result = train_fusion.run(asked(study, tmp_path, name=name, labels=labels, epochs=3))
        weights.append([head.weights for head in result.heads])
        with (tmp_path / name / "members" / "1-face" / "videos.csv").open() as file:
            assert {row["split"] for row in csv.DictReader(file)} == {"train", "val"}
    assert weights[0] == weights[1]


def test_videos_that_one_store_lacks_are_counted_and_tolerated_like_labels(study, fused, tmp_path):
    scored = evaluate.run(EvaluateOptions(run=fused[0] / "both", split="test", unmatched=0.2))
    assert (scored.n, scored.missing) == (14, 2)
    assert "2 labels have no usable video in every store, not scored: 00078, 00079" in " ".join(
        scored.notes
    )
    with pytest.raises(LabelError, match=r"only 14 of the 16 labels .* \(--unmatched\)"):
        evaluate.run(EvaluateOptions(run=fused[0] / "both", split="test"))


def test_what_no_single_store_lacks_too_much_of_they_may_lack_together(
    study, tmp_path, record, settings, detector_named
):
    """Of 24 validation videos each store lacks one, and not the same."""
    stores = []
    for name, lost in (("a", ("00005",)), ("b", ("00006",))):
        path = tmp_path / f"{name}.zarr"
        with StoreWriter(path, settings) as writer:
            writer.use_detector(detector_named)
            for i in range(80):
                if f"{i:05d}" not in lost:
                    writer.append(record(f"{i:05d}", 6, seed=i))
        stores.append(str(path))
    options = asked(study, tmp_path / "runs", stores=tuple(stores), epochs=1, unmatched=0.05)
    with pytest.raises(
        LabelError, match=r"only 22 of the 24 labels .*/a\.zarr lacks 1, e\.g\. '00005'"
    ):
        train_fusion.run(options)
    wrong = asked(study, tmp_path / "runs", subsets=(("va",), ("mfcc",)))
    with pytest.raises(UsageError, match="unknown group mfcc; this store has wav2vec, pitch"):
        train_fusion.run(wrong)
    assert not (tmp_path / "runs").exists()  # found out before anything was trained


def test_predict_wants_a_store_a_head_and_names_what_is_left_out(study, fused, tmp_path):
    out = tmp_path / "p.csv"
    stores = (str(study / "face.zarr"), str(study / "voice.zarr"))
    run = fused[0] / "both"
    with pytest.raises(UsageError, match=r"fuses 2 heads, trained on .*face\.zarr, .*voice\.zarr"):
        predict.run(PredictOptions(run=run, out=out))
    result = predict.run(PredictOptions(run=run, out=out, store=stores, clip=True))
    assert result.videos == 78
    assert "2 videos of" in " ".join(result.notes)
    assert "not in every store, left out: 00078, 00079" in " ".join(result.notes)
    evaluate.run(EvaluateOptions(run=run))
    rows = {row["id"]: row for row in csv.DictReader(out.open())}
    for row in csv.DictReader((run / "predictions-val.csv").open()):
        assert float(rows[row["id"]]["Joy"]) == np.clip(float(row["Joy"]), 0, 1)
    with pytest.raises(UsageError, match=r"fuses 2 heads and 3 stores are named"):
        predict.run(PredictOptions(run=run, out=out, store=(*stores, stores[0])))
    with pytest.raises(HeadError, match="lacks valence"):
        predict.run(PredictOptions(run=run, out=out, store=stores[::-1]))
    with pytest.raises(UsageError, match="fuses heads on what mma-test, wav2vec2 made"):
        predict.run(PredictOptions(run=run, out=out, videos=tmp_path))


def test_against_a_head_of_another_store(study, fused):
    run = fused[0] / "both"
    found = evaluate.run(EvaluateOptions(run=run, against=run / "members" / "2-voice"))
    alone = {last_part(head.run): head.mean_pearson for head in found.heads}["2-voice"]
    assert found.against.mean_pearson == pytest.approx(alone, abs=1e-12)
    back = evaluate.run(EvaluateOptions(run=run / "members" / "1-face", against=run))
    assert back.against.mean_pearson == pytest.approx(found.mean_pearson, abs=1e-12)
    assert back.against.difference["mean"] < 0


def last_part(text):
    return text.rsplit("/", 1)[-1]


def test_the_report_has_a_row_for_each_store_and_the_fusion(fused, tmp_path):
    page = tmp_path / "report.html"
    evaluate.run(EvaluateOptions(run=fused[0] / "both", report=page))
    text = page.read_text()
    for words in ("Each store alone, and fused", "1-face: ", "2-voice: ", "<th>fused</th>"):
        assert words in text
    assert text.count("training curves") == 2


def test_finished_runs_of_any_options_are_fused(study, fused, tmp_path):
    for name, store, own in (
        ("face", "face.zarr", {"width": 4, "dense": 4, "epochs": 2, "subset": ("au",)}),
        ("voice", "voice.zarr", SMALL),
    ):
        train_head.run(TrainHeadOptions(store=str(study / store), labels=study / "labels.csv",
                                        runs=tmp_path, name=name, **own))  # fmt: skip
    base = TrainHeadOptions(runs=tmp_path, name="both")
    both = (tmp_path / "face", tmp_path / "voice")
    result = train_fusion.run(TrainFusionOptions(base=base, fuse=both))
    shutil.rmtree(tmp_path / "face")  # the fusion holds its own copy
    found = evaluate.run(EvaluateOptions(run=tmp_path / "both"))
    assert found.mean_pearson == pytest.approx(result.mean_pearson, abs=1e-12)
    assert found.heads[0].pearson["Joy"] == pytest.approx(result.heads[0].pearson["Joy"])
    for wrong, message in (
        ({"base": TrainHeadOptions(lr=0.1)}, "--fuse trains nothing, so --lr would do nothing"),
        ({"stores": ("a", "b")}, "give one of the two"),
        ({"fuse": both[1:]}, "2 to 8 heads can be fused, not 1"),
    ):
        with pytest.raises(UsageError, match=message):
            train_fusion.run(TrainFusionOptions(**{"fuse": (both[1], both[1]), **wrong}))
    with pytest.raises(HeadError, match="is a fusion: fuse the heads below its members"):
        train_fusion.run(TrainFusionOptions(fuse=(both[1], tmp_path / "both")))
    other = tmp_path / "other.csv"
    other.write_text((study / "labels.csv").read_text() + "\n")
    train_head.run(TrainHeadOptions(store=str(study / "voice.zarr"), labels=other, runs=tmp_path,
                                    name="other", **SMALL))  # fmt: skip
    with pytest.raises(HeadError, match="were trained on different label files"):
        train_fusion.run(TrainFusionOptions(fuse=(both[1], tmp_path / "other")))


WORKER = """
import sys
from pathlib import Path
from feie.pipeline.train import fusion as train_fusion
from feie.pipeline.train.options import TrainHeadOptions
study, runs = Path(sys.argv[1]), Path(sys.argv[2])
base = TrainHeadOptions(labels=study / "labels.csv", runs=runs, name="killed", head="stat-linear",
                        preset="stat", lr=0.05, epochs=80, patience=80, checkpoint_seconds=0.02)
stores = (str(study / "face.zarr"), str(study / "voice.zarr"))
train_fusion.run(train_fusion.TrainFusionOptions(base=base, stores=stores))
"""


def test_killed_and_resumed_it_ends_as_an_undisturbed_one(study, tmp_path):
    given = {"epochs": 80, "patience": 80, "checkpoint_seconds": 0.02}
    whole = train_fusion.run(asked(study, tmp_path, name="whole", **given))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(study), str(tmp_path)], env=environment
    )
    second = tmp_path / "killed" / "members" / "2-voice" / "training.csv"
    deadline = time.monotonic() + 120
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "head.json").exists()
    again = train_fusion.run(TrainFusionOptions(resume=tmp_path / "killed"))
    assert [h.weights for h in again.heads] == [h.weights for h in whole.heads]
    assert again.pearson == whole.pearson
    with pytest.raises(HeadError, match="is finished, there is nothing to resume"):
        train_fusion.run(TrainFusionOptions(resume=tmp_path / "killed"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: n["members"][0].update(name="../1-face"), "is no name of a folder"),
        (lambda n: n["members"][0].update(weights_sha256="0" * 64), "is not the head that was"),
        (lambda n: n["members"][0].update(weights=[2.0, 2.0]), "negative or do not sum to 1"),
        (lambda n: n["members"][0].update(weights=[1.0]), "damaged fusion"),
        (lambda n: n.update(targets=["Joy"]), "do not predict the same targets"),
        (lambda n: n.pop("members"), "it lacks 'members'"),
    ],
)
def test_a_damaged_fusion_is_one_clear_error(fused, tmp_path, change, message):
    folder = tmp_path / "both"
    shutil.copytree(fused[0] / "both", folder)
    notes = json.loads((folder / "head.json").read_text())
    change(notes)
    (folder / "head.json").write_text(json.dumps(notes))
    with pytest.raises(HeadError, match=message):
        load_run(folder)


def test_the_command_line(study, tmp_path):
    def feie(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.output

    faces, voice = study / "face.zarr", study / "voice.zarr"
    common = ("--labels", study / "labels.csv", "--runs", tmp_path, "--head", "stat-linear",
              "--preset", "stat", "--epochs", 2)  # fmt: skip
    two = ("--store", faces, "--store", voice)
    said = feie(
        "train-head", *two, "--subset", "va,au", "--subset", "wav2vec", "--name", "b", *common
    )
    assert "1-face" in said
    assert "fused" in said
    said = feie("evaluate", "--run", tmp_path / "b", *two)
    assert "each store alone, and fused" in said
    feie("predict", "--run", tmp_path / "b", *two, "--out", tmp_path / "p.csv")
    said = feie("train-head", *two, "--subset", "va", *common, code=2)
    assert "1 subset for 2 stores: give --subset once a store" in said
    said = feie("train-head", *two, "--layers", 2, *common, code=2)
    assert "--layers belongs to --head mrnn" in said
    assert "base" not in said
    feie("train-head", "--store", voice, "--subset", "pitch", "--subset", "wav2vec", code=2)
    feie("train-head", "--store", voice, "--fusion-weights", "target", code=2)
