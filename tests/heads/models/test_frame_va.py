"""Frame-level valence and arousal: labels of frames, training, scores, and the command line."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import HeadError, LabelError, UsageError
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.data.frame_labels import lay_over, load_frame_labels
from feie.heads.data.inputs import to_logits
from feie.heads.measures.metrics import bootstrap_ccc, compare, score
from feie.heads.runs.checkpoint import load_head
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.predict import job as predict
from feie.pipeline.predict.job import PredictOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.options import TrainHeadOptions

SPLITS = ("train", "train", "train", "val", "test")


def slow_ccc(p, y):
    return 2 * np.cov(p, y, bias=True)[0, 1] / (p.var() + y.var() + (p.mean() - y.mean()) ** 2)


# Scores.


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=15)
def test_the_bootstrap_equals_one_that_copies_the_frames_of_drawn_videos(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 5)
    video = np.repeat(np.arange(5), lengths)
    target = rng.uniform(-1, 1, (len(video), 2)) + 3 * rng.random()
    prediction = target + rng.normal(0, 0.5, target.shape)
    found = bootstrap_ccc(prediction, target, samples=20, seed=3, groups=video)
    drawn = np.random.default_rng(3).integers(5, size=(20, 5))
    for row, videos in zip(found, drawn, strict=True):
        rows = np.concatenate([np.flatnonzero(video == v) for v in videos])
        for i in range(2):
            expected = slow_ccc(prediction[rows, i], target[rows, i])
            if len(rows) > 1:
                assert row[i] == pytest.approx(expected, abs=1e-7)


def test_scores_are_over_all_frames_and_a_comparison_is_paired():
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(12), 30)
    target = rng.uniform(-1, 1, (360, 2))
    good, bad = (target + rng.normal(0, sd, target.shape) for sd in (0.2, 0.6))
    scores = score(good, target, groups=video, headline="ccc")
    np.testing.assert_allclose(scores.ccc, [slow_ccc(good[:, i], target[:, i]) for i in (0, 1)])
    assert scores.mean_interval[0] < scores.mean < scores.mean_interval[1]
    found = compare(good, bad, target, groups=video, headline="ccc")
    assert (found.interval[:, 0] > 0).all()
    assert (found.p_value < 0.01).all()
    same = compare(good, good, target, groups=video, headline="ccc")
    assert (same.difference == 0).all()
    assert (same.p_value == 1).all()


# Labels of frames.


def slow_nearest(places, values, times):
    half = 0.5 * np.median(np.diff(times)) if len(times) > 1 else 0.02
    out = np.full((len(times), 2), np.nan)
    for i, time in enumerate(times):
        j = int(np.argmin(np.abs(places - time)))
        if abs(places[j] - time) <= half + 1e-9:
            out[i] = values[j]
    return out


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_labels_by_time_are_the_nearest_within_half_a_frame(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    n, m = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 15))
    times = np.cumsum(rng.uniform(0.02, 0.06, n))
    places = np.unique(rng.uniform(0, times[-1] + 0.2, m))
    values = rng.uniform(-1, 1, (len(places), 2))
    found, behind = lay_over(places, values, times)
    np.testing.assert_array_equal(found, slow_nearest(places, values, times))
    half = 0.5 * np.median(np.diff(times)) if n > 1 else 0.02
    assert behind == sum(place > times[-1] + half for place in places)


def test_labels_by_number_stand_at_their_row_and_those_behind_the_end_are_counted():
    values = np.array([[0.1, 0.2], [np.nan, np.nan], [0.3, 0.4], [0.5, 0.6]])
    found, behind = lay_over(np.array([0.0, 1.0, 3.0, 4.0]), values, 4)
    np.testing.assert_array_equal(found[[0, 3]], values[[0, 2]])
    assert np.isnan(found[[1, 2]]).all()
    assert behind == 1


def write_abaw(folder, labels):
    """ABAW's folders: line k after the header is about frame k."""
    for split, videos in labels.items():
        (folder / split).mkdir(parents=True)
        for video, values in videos.items():
            lines = [f"{v:.4f},{a:.4f}" for v, a in values]
            (folder / split / f"{video}.txt").write_text("\n".join(["valence,arousal", *lines]))
    return folder


def test_abaws_folders_are_read(tmp_path):
    values = np.array([[0.5, -0.25], [-5, -5], [-5, 0.5], [1, -1]])
    root = tmp_path / "VA_Estimation_Challenge"
    write_abaw(root, {"Train_Set": {"1-30-1280x720": values}, "Validation_Set": {"a_left": values}})
    for path in (tmp_path, root):
        labels = load_frame_labels(path)
        assert labels.ids == ("1-30-1280x720", "a_left")
        assert labels.split.tolist() == ["train", "val"]
        assert labels.by == "frame"
        np.testing.assert_array_equal(labels.places[0], [0, 1, 2, 3])
        assert np.isnan(labels.values[0][1:3]).all()  # one of two is no label
        np.testing.assert_array_equal(labels.values[1][[0, 3]], values[[0, 3]])
    before = labels.sha256
    (root / "Train_Set" / "1-30-1280x720.txt").write_text("valence,arousal\n0.5,0.25\n")
    assert load_frame_labels(root).sha256 != before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arousal,valence\n0,0\n", "does not begin with the line valence,arousal"),
        ("valence,arousal\n0,0\n0;1\n", "line 3 is '0;1', not two numbers"),
        ("valence,arousal\n0,0\n1.5,0\n", r"row 3 has valence, arousal 1\.5, 0: they lie in"),
        ("valence,arousal\n0,0\nnan,inf\n", "they lie in"),
        ("", "does not begin"),
    ],
)
def test_wrong_text_files_are_one_clear_error(tmp_path, text, message):
    (tmp_path / "Train_Set").mkdir()
    (tmp_path / "Train_Set" / "a.txt").write_text(text)
    with pytest.raises(LabelError, match=message):
        load_frame_labels(tmp_path)


def test_tables_are_read_by_frame_or_time_from_csv_or_parquet(tmp_path):
    frame = pd.DataFrame({
        "video": ["b.mp4", "a.mp4", "a.mp4", "b.mp4"], "frame": [1, 2, 0, 0],
        "valence": [0.1, 0.2, -5, 0.4], "arousal": [0, 0.5, -5, 1], "split": ["val", "train"] * 2,
    })  # fmt: skip
    frame["split"] = ["val", "train", "train", "val"]
    frame.to_csv(tmp_path / "l.csv", index=False)
    frame.to_parquet(tmp_path / "l.parquet")
    for name in ("l.csv", "l.parquet"):
        labels = load_frame_labels(tmp_path / name)
        assert labels.ids == ("a", "b")
        assert labels.split.tolist() == ["train", "val"]
        np.testing.assert_array_equal(labels.places[0], [0, 2])
        np.testing.assert_array_equal(labels.values[0], [[np.nan, np.nan], [0.2, 0.5]])
        np.testing.assert_array_equal(labels.values[1], [[0.4, 1], [0.1, 0]])
    frame.rename(columns={"frame": "Time"}).drop(columns="split").to_csv(tmp_path / "t.csv")
    timed = load_frame_labels(tmp_path / "t.csv")
    assert timed.by == "time"
    assert "no split column" in timed.notes[0]
    for change, message in (
        ({"split": ["val", "train", "val", "val"]}, "'a' stands in two splits"),
        ({"frame": [0, 2, 0, 0]}, "'b' has two rows of one frame"),
        ({"frame": [1, 2, 0.5, 0]}, "frame holds what is no frame"),
        ({"valence": ["x", 0, 0, 0]}, "valence of row 2 is 'x', not a number"),
        ({"valence": [2, 0, 0, 0]}, "they lie in"),
    ):
        frame.assign(**change).to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(LabelError, match=message):
            load_frame_labels(tmp_path / "bad.csv")
    frame.drop(columns="frame").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(LabelError, match=r"needs the columns id, frame .* or time"):
        load_frame_labels(tmp_path / "bad.csv")
    with pytest.raises(LabelError, match="holds no labels of frames"):
        load_frame_labels(tmp_path)


# Runs.


@pytest.fixture(scope="module")
def study(tmp_path_factory, record, settings, detector_named):
    """25 videos whose valence shows in happiness and arousal in AU25; one has no face."""
    folder = tmp_path_factory.mktemp("frames")
    rng, labels = np.random.default_rng(0), {}
    with StoreWriter(folder / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(25):
            n, name = int(rng.integers(60, 90)), f"v{i:02d}"
            va = 0.8 * np.sin(np.arange(n)[:, None] / 15 + rng.uniform(0, 6, 2))
            base = record(name, n, seed=i)
            affect, valid = base.affect.copy(), base.valid
            for column, value in ((6, va[:, 0]), (24, va[:, 1])):
                noisy = 1 / (1 + np.exp(-3 * value - rng.normal(0, 0.5, n)))
                affect[:, column] = np.where(valid, noisy, np.nan)
            if i == 3:
                affect[:], valid = np.nan, np.zeros(n, np.bool_)
            writer.append(replace(base, affect=affect, valid=valid))
            va[7] = -5
            labels.setdefault(SPLITS[i % 5], {})[name] = va
    names = {"train": "Train_Set", "val": "Validation_Set", "test": "Test_Set"}
    write_abaw(folder / "labels", {names[k]: v for k, v in labels.items()})
    return folder, {k: v for videos in labels.values() for k, v in videos.items()}


def asked(study, runs, **given):
    base = {"store": str(study[0] / "s.zarr"), "labels": study[0] / "labels", "runs": runs}
    own = {"head": "frame-va", "epochs": 8, "lr": 0.02, "batch": 256, "box": 2}
    return TrainHeadOptions(**{**base, **own, **given})


@pytest.fixture(scope="module")
def trained(study, tmp_path_factory):
    runs = tmp_path_factory.mktemp("frame-runs")
    return runs, train_head.run(asked(study, runs, name="one"))


def test_it_learns_and_evaluation_says_the_same(study, trained):
    runs, result = trained
    assert result.mean_ccc > 0.5
    assert result.subset == ["va", "expr", "au"]
    found = evaluate.run(EvaluateOptions(runs=runs))
    assert found.mean_ccc == pytest.approx(result.mean_ccc, abs=1e-12)
    assert found.ccc == pytest.approx(result.ccc)
    assert (found.videos, found.faceless) == (5, 1)
    low, high = found.mean_interval
    assert low < found.mean_ccc < high
    # The extractor's own columns are noise here.
    assert abs(found.stored_ccc["valence"]) < 0.3
    said = " | ".join(found.notes)
    assert "1 video shows no face" in said
    assert "epoch was chosen on these videos (5)" in said
    stored = json.loads((runs / "one" / "evaluation-val.json").read_text())
    assert stored == found.model_dump(mode="json")


def test_every_frame_is_predicted_as_the_formula_says(study, trained):
    """Video by video, frame by frame: gaps interpolated, linear, tanh, mean over the window."""
    runs, _ = trained
    evaluate.run(EvaluateOptions(runs=runs))
    head, store = load_head(runs / "one"), open_store(study[0] / "s.zarr")
    rows = list(csv.DictReader((runs / "one" / "predictions-val.csv").open()))
    ours = {(r["id"], int(r["frame"])): (float(r["valence"]), float(r["arousal"])) for r in rows}
    weight, bias = (p.detach().double().numpy() for p in head.model.parameters())
    truth, said = [], []
    for video in sorted({r["id"] for r in rows}):
        affect = store[video].affect.astype(np.float64)
        n, whole = len(affect), np.flatnonzero(np.isfinite(affect).all(1))
        if len(whole):
            logits = to_logits(affect[whole].astype(np.float32), head.inputs.groups)
            x = np.stack([np.interp(np.arange(n), whole, column) for column in logits.T], axis=1)
            raw = np.tanh((x - head.standardiser.mean) / head.standardiser.sd @ weight.T + bias)
            expected = [raw[max(0, i - 2) : i + 3].mean(0) for i in range(n)]
        else:
            expected = [head.label_mean] * n
        for i in range(n):
            np.testing.assert_allclose(ours[video, i], expected[i], atol=2e-6)
            label = study[1][video][i]
            if label[0] != -5:
                truth.append(label)
                said.append(expected[i])
    truth, said = np.round(np.array(truth), 4), np.array(said)
    found = evaluate.run(EvaluateOptions(runs=runs))
    for i, name in enumerate(("valence", "arousal")):
        assert found.ccc[name] == pytest.approx(slow_ccc(said[:, i], truth[:, i]), abs=1e-6)


def test_by_time_in_a_table_gives_the_same_head(study, trained, tmp_path):
    store, rows = open_store(study[0] / "s.zarr"), []
    for i, (video, values) in enumerate(sorted(study[1].items())):
        split = SPLITS[i % 5]
        rows += [
            f"{video},{split},{time + 0.004:.4f},{v:.4f},{a:.4f}"
            for time, (v, a) in zip(store[video].time, values, strict=True)
        ]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,split,time,valence,arousal", *rows]))
    result = train_head.run(asked(study, tmp_path, labels=path))
    assert result.ccc == pytest.approx(trained[1].ccc, abs=1e-12)


def test_the_test_split_is_locked_logged_and_never_read_in_training(study, trained, tmp_path):
    looks = [evaluate.run(EvaluateOptions(runs=trained[0], split="test")) for _ in range(2)]
    assert [look.test_evaluations for look in looks] == [1, 2]
    assert looks[0].n > 100
    assert "mean_ccc=" in (trained[0] / "one" / "test-evaluations.log").read_text()
    again = train_head.run(asked(study, tmp_path, name="again"))
    hidden = tmp_path / "hidden"
    for split in ("Train_Set", "Validation_Set"):
        (hidden / split).mkdir(parents=True)
        for file in (study[0] / "labels" / split).iterdir():
            (hidden / split / file.name).write_bytes(file.read_bytes())
    without = train_head.run(asked(study, tmp_path, name="without", labels=hidden))
    assert again.ccc == without.ccc == trained[1].ccc
    moved = tmp_path / "moved"
    for split in ("Train_Set", "Validation_Set"):
        (moved / split).mkdir(parents=True)
    for file in (study[0] / "labels" / "Train_Set").iterdir():
        (moved / "Validation_Set" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(HeadError, match="were in the training split of"):
        evaluate.run(EvaluateOptions(runs=trained[0], labels=moved))


def test_runs_are_compared_on_the_same_frames_and_reported(study, trained, tmp_path):
    train_head.run(asked(study, tmp_path, name="va", subset=("va",), space="prob"))
    page = tmp_path / "report.html"
    found = evaluate.run(
        EvaluateOptions(run=trained[0] / "one", against=tmp_path / "va", report=page)
    )
    assert found.against.difference["mean"] == pytest.approx(
        found.mean_ccc - found.against.mean_ccc
    )
    text = page.read_text()
    for words in ("frame by frame", "stored columns", "Against", "Worst", "<td>arousal"):
        assert words in text
    assert "http:" not in text.replace("http://www.w3.org", "")
    assert "https:" not in text


def test_predict_writes_every_frame(study, trained, tmp_path):
    out = tmp_path / "p.csv"
    options = {"run": trained[0] / "one", "store": str(study[0] / "s.zarr"), "out": out}
    result = predict.run(PredictOptions(**options))
    rows = list(csv.DictReader(out.open()))
    store = open_store(study[0] / "s.zarr")
    assert len(rows) == sum(len(store[video]) for video in store.ids)
    assert (result.videos, result.faceless) == (25, 1)
    evaluate.run(EvaluateOptions(run=trained[0] / "one"))
    scored = list(csv.DictReader((trained[0] / "one" / "predictions-val.csv").open()))
    by_place = {(r["id"], r["frame"]): r for r in rows}
    assert all(by_place[r["id"], r["frame"]] == r for r in scored)
    with pytest.raises(UsageError, match="is a frame-level head: it reads one store"):
        predict.run(PredictOptions(**options, form="eri"))


def test_stores_and_labels_that_do_not_fit(study, tmp_path, record, settings, detector_named):
    labels = tmp_path / "labels"
    (labels / "Train_Set").mkdir(parents=True)
    (labels / "Validation_Set").mkdir()
    long = "valence,arousal\n" + "0.1,0.2\n0.2,0.1\n" * 200
    for i, split in ((0, "Train_Set"), (1, "Validation_Set")):
        (labels / split / f"v{i:02d}.txt").write_text(long)
    with pytest.raises(LabelError, match=r"behind the end of the video, .* counted from 0"):
        train_head.run(asked(study, tmp_path, labels=labels))
    (labels / "Train_Set" / "v00.txt").rename(labels / "Train_Set" / "w.txt")
    with pytest.raises(LabelError, match=r"1 of the 1 video of split 'train' .* are not in .*'w'"):
        train_head.run(asked(study, tmp_path, labels=labels))
    resampled = replace(settings, options={"faces": "auto", "fps": 10.0})
    with StoreWriter(tmp_path / "r.zarr", resampled) as writer:
        writer.use_detector(detector_named)
        writer.append(record("v00", 20))
    with pytest.raises(UsageError, match=r"resampled to 10 frames/s, .* give times"):
        train_head.run(asked(study, tmp_path, store=str(tmp_path / "r.zarr")))
    assert not list(tmp_path.glob("*/head.json"))


def test_a_damaged_frame_head_is_one_clear_error(trained, tmp_path):
    for change, message in (
        ({"model": {"kind": "frame-va", "inputs": 26, "targets": 2, "box": -1}}, "box"),
        ({"weights_sha256": "0"}, "is not the file"),
        ({"inputs": {"columns": ["a"], "groups": {}}}, "columns, targets, unit and t do not fit"),
        ({"store": {}}, "it lacks 'path'"),
    ):
        folder = tmp_path / "broken"
        folder.mkdir(exist_ok=True)
        for name in ("head.safetensors", "head.json", "videos.csv"):
            (folder / name).write_bytes((trained[0] / "one" / name).read_bytes())
        notes = json.loads((folder / "head.json").read_text()) | change
        (folder / "head.json").write_text(json.dumps(notes))
        with pytest.raises(HeadError, match=message):
            evaluate.run(EvaluateOptions(run=folder))


def test_the_command_line(study, tmp_path):
    def feie(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.output

    store = ("--store", study[0] / "s.zarr")
    common = ("--head", "frame-va", *store, "--labels", study[0] / "labels", "--runs", tmp_path)
    said = feie("train-head", *common, "--epochs", 2, "--box", 3, "--name", "a")
    assert "mean CCC" in said
    said = feie("evaluate", "--run", tmp_path / "a", "--against", tmp_path / "a")
    assert "stored columns" in said
    feie("predict", "--run", tmp_path / "a", *store, "--out", tmp_path / "p.csv")
    said = feie("train-head", *common, "--layers", 2, code=2)
    assert "--layers belongs to --head mrnn" in said
    said = feie("train-head", *common, "--t", 20, "--missing", "drop", code=2)
    assert "--t, --missing would do nothing with --head frame-va" in said
    feie("train-head", *common, "--sweep", "grid.yaml", code=2)
    feie("train-head", *store, "--box", 3, code=2)
    said = feie("evaluate", "--run", tmp_path / "a", "--submission", tmp_path / "x", code=2)
    assert "is a frame-level head" in said
