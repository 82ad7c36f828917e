"""train-head and evaluate on a store: results, resumption, and everything that users get wrong."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feie.features.errors import FeieError, HeadError, LabelError, StoreError, UsageError
from feie.features.schema import AFFECT, Schema
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.data.ragged import Ragged
from feie.heads.runs.checkpoint import latest_run, load_head
from feie.heads.runs.files import load_tensors, save_tensors
from feie.heads.runs.trained import TrainedHead
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.job import TrainHeadOptions

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
SMALL = {"width": 16, "dense": 8, "lr": 5e-3, "epochs": 6, "batch": 16}


def affect_of(video, joy):
    """AU12 and happiness rise with joy; the rest is noise. Every seventh frame lacks a face."""
    rng = np.random.default_rng(video)
    n = int(rng.integers(8, 20))
    affect = rng.uniform(0.2, 0.4, (n, 26)).astype(np.float32)
    bump = np.exp(-0.5 * ((np.arange(n) - rng.uniform(0, n)) / 4) ** 2)
    for name in ("AU12", "happiness"):
        affect[:, AFFECT.columns.index(name)] += (0.6 * joy * bump).astype(np.float32)
    affect[3::7] = np.nan
    return affect


def fill(writer, record, videos, detector_named, columns=26):
    writer.use_detector(detector_named)
    for name, affect in videos.items():
        base = record(name, len(affect), message="" if len(affect) else "broken: no frames")
        valid = np.isfinite(affect).all(axis=1)
        writer.append(replace(base, affect=affect[:, :columns], valid=valid))


@pytest.fixture(scope="session")
def study(tmp_path_factory, record, settings, detector_named):
    """A store of 80 videos (one without a face, one failed), and labels in three splits."""
    folder = tmp_path_factory.mktemp("study")
    joy = np.random.default_rng(0).random(80)
    videos = {f"{i:05d}": affect_of(i, joy[i]) for i in range(80)}
    videos["00006"][:] = np.nan
    videos["00016"] = np.zeros((0, 26), np.float32)
    with StoreWriter(folder / "features.zarr", settings) as writer:
        fill(writer, record, videos, detector_named)
    rows = [
        f"[{i:05d}],{SPLITS[i % 10]},{joy[i]:.4f},{np.sqrt(joy[i]):.4f},{i}\n" for i in range(80)
    ]
    (folder / "labels.csv").write_text("File_ID,Split,Joy,Mirth,Age\n" + "".join(rows))
    return folder


def options(study, runs, **given):
    base = {"store": str(study / "features.zarr"), "labels": study / "labels.csv", "runs": runs}
    return TrainHeadOptions(**{**base, **SMALL, **given})


@pytest.fixture(scope="session")
def trained(study, tmp_path_factory):
    runs = tmp_path_factory.mktemp("trained") / "runs"
    return runs, train_head.run(options(study, runs, name="one", epochs=15))


def test_trains_and_reports(study, trained):
    runs, result = trained
    assert (result.n_train, result.n_val) == (48, 15)
    assert result.mean_pearson > 0.3
    assert set(result.pearson) == {"Joy", "Mirth"}
    said = " | ".join(result.notes)
    assert "1 label has no usable video" in said
    assert "00016" in said
    assert "1 video shows no face" in said
    folder = runs / "one"
    files = {path.name for path in folder.iterdir()}
    expected = {"head.safetensors", "head.json", "training.csv", "videos.csv", "options.json"}
    assert expected == {name for name in files if not name.startswith(("pred", "eval", "test-"))}
    notes = json.loads((folder / "head.json").read_text())
    assert notes["targets"] == ["Joy", "Mirth"]
    assert notes["inputs"]["columns"] == list(AFFECT.columns)
    assert notes["store"]["fingerprint"] == open_store(study / "features.zarr").fingerprint
    with (folder / "training.csv").open() as file:
        epochs = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in epochs] == list(range(1, result.epochs + 1))
    assert "test" not in (folder / "videos.csv").read_text()


def test_evaluates_val_by_default(trained):
    runs, result = trained
    found = evaluate.run(EvaluateOptions(runs=runs))
    assert (found.split, found.n, found.run) == ("val", 15, str(runs / "one"))
    assert found.mean_pearson == pytest.approx(result.mean_pearson, abs=1e-6)
    low, high = found.mean_interval
    assert low < found.mean_pearson < high
    assert abs(found.length_baseline.mean_pearson) < 0.8
    assert found.faceless == 1
    assert 0 < found.mean_mae < 0.5
    assert -1 <= found.mean_ccc <= found.mean_pearson
    assert found.test_evaluations is None
    assert not (runs / "one" / "test-evaluations.log").exists()
    with (runs / "one" / "predictions-val.csv").open() as file:
        rows = {row["id"]: float(row["Joy"]) for row in csv.DictReader(file)}
    assert len(rows) == 15
    head = load_head(runs / "one")
    assert rows["00006"] == pytest.approx(head.label_mean[0], abs=1e-6)
    stored = json.loads((runs / "one" / "evaluation-val.json").read_text())
    assert stored == found.model_dump(mode="json")


def test_a_look_at_the_test_split_is_logged(study, tmp_path):
    train_head.run(options(study, tmp_path, name="one", epochs=1))
    looks = [evaluate.run(EvaluateOptions(runs=tmp_path, split="test")) for _ in range(2)]
    assert [look.test_evaluations for look in looks] == [1, 2]
    assert "scored on the test split 2 times" in looks[1].notes[-1]
    log = (tmp_path / "one" / "test-evaluations.log").read_text().splitlines()
    assert len(log) == 2
    assert f"mean_pearson={looks[0].mean_pearson:.4f}" in log[0]


def test_test_labels_never_matter_in_training(study, tmp_path):
    hidden = tmp_path / "labels.csv"
    text = (study / "labels.csv").read_text().splitlines()
    lines = [",".join([*line.split(",")[:2], "", "", "1"]) if ",test," in line else line
             for line in text]  # fmt: skip
    hidden.write_text("\n".join(lines))
    heads = []
    for name, labels in (("a", study / "labels.csv"), ("b", hidden)):
        train_head.run(options(study, tmp_path / "runs", name=name, labels=labels, epochs=2))
        heads.append(load_head(tmp_path / "runs" / name))
    for one, other in zip(*(h.model.parameters() for h in heads), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(LabelError, match="32 labels of split 'test' are missing"):
        evaluate.run(EvaluateOptions(run=tmp_path / "runs" / "b", split="test"))


def test_a_head_says_the_same_after_saving(study, trained):
    head = load_head(trained[0] / "one")
    assert isinstance(head, TrainedHead)
    again = evaluate.run(EvaluateOptions(run=trained[0] / "one", split="train"))
    assert any("flatter" in note for note in again.notes)
    assert again.mean_pearson > 0.3
    assert again.n == 48


@pytest.mark.parametrize(
    "given",
    [
        {"cell": "lstm", "layers": 2},
        {"missing": "hold", "space": "logit", "subset": ("au", "va")},
        {"missing": "zero", "long": "head", "t": 9},
        {"loss": "ccc", "clip": 1.0},
        {"preset": "paper"},
        {"mask": False, "t": 30},
        {"routing": False},
    ],
    ids=str,
)
def test_every_choice_trains_saves_and_evaluates(study, tmp_path, given):
    epochs = {"epochs": 1, "width": 6, "batch": None if "preset" in given else 16}
    result = train_head.run(options(study, tmp_path, **{**epochs, **given}))
    found = evaluate.run(EvaluateOptions(runs=tmp_path))
    assert found.mean_pearson == pytest.approx(result.mean_pearson, abs=1e-6)
    if given.get("t") == 9:
        assert any("longer than t=9 frames and were cut" in note for note in result.notes)


WORKER = """
import sys
from pathlib import Path
from feie.pipeline.train import job as train_head
study, runs = Path(sys.argv[1]), Path(sys.argv[2])
train_head.run(train_head.TrainHeadOptions(
    store=str(study / "features.zarr"), labels=study / "labels.csv", runs=runs, name="killed",
    width=16, dense=8, lr=5e-3, epochs=400, patience=400, batch=16, checkpoint_seconds=0.05))
"""


def test_killed_and_resumed_it_ends_as_an_undisturbed_run(study, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(study), str(tmp_path)], env=environment
    )
    state = tmp_path / "killed" / "state.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(HeadError, match="no finished run"):
        evaluate.run(EvaluateOptions(runs=tmp_path))
    # Let it end five epochs after the kill: what counts is that those come out the same.
    stored = tmp_path / "killed" / "options.json"
    killed_at = len((tmp_path / "killed" / "training.csv").read_text().splitlines()) - 1
    total = killed_at + 5
    content = json.loads(stored.read_text())
    content["options"]["epochs"] = total
    stored.write_text(json.dumps(content))
    resumed = train_head.run(TrainHeadOptions(resume=tmp_path / "killed"))
    whole = train_head.run(options(study, tmp_path, name="whole", epochs=total, patience=400))
    assert resumed.epochs == whole.epochs == total
    assert resumed.pearson == whole.pearson
    logs, heads = [], []
    for name in ("killed", "whole"):
        lines = (tmp_path / name / "training.csv").read_text().splitlines()
        logs.append([line.rpartition(",")[0] for line in lines])  # all but the seconds
        heads.append(load_head(tmp_path / name))
        assert not (tmp_path / name / "state.safetensors").exists()
    assert logs[0] == logs[1]
    for one, other in zip(*(head.model.parameters() for head in heads), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(HeadError, match="is finished, there is nothing to resume"):
        train_head.run(TrainHeadOptions(resume=tmp_path / "killed"))


def test_resuming_with_other_labels_is_refused(study, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text((study / "labels.csv").read_text())
    train_head.run(options(study, tmp_path, name="one", labels=labels, epochs=1))
    (tmp_path / "one" / "head.json").unlink()
    labels.write_text(labels.read_text().replace("[00000],train,0.", "[00000],train,0.1"))
    with pytest.raises(HeadError, match=r"labels\.csv has changed since"):
        train_head.run(TrainHeadOptions(resume=tmp_path / "one"))
    with pytest.raises(HeadError, match="no run of feie train-head"):
        train_head.run(TrainHeadOptions(resume=tmp_path))


def edit(study, tmp_path, old, new, count=-1):
    path = tmp_path / "labels.csv"
    path.write_text((study / "labels.csv").read_text().replace(old, new, count))
    return path


def test_bad_labels_are_one_clear_error(study, tmp_path):
    runs = tmp_path / "runs"
    originals = (study / "labels.csv").read_text()
    texts = {
        "no id column": originals.replace("File_ID", "who"),
        "no video in split 'val'": originals.replace(",val,", ",train,"),
        "lacks 'x0000'": originals.replace("[0000", "[x000"),
        "none of the 64 labels": originals.replace("[", "[x"),
        "Joy is constant over all": "\n".join(
            ",".join([*c[:2], "0.5" if i else c[2], *c[3:]])
            for i, c in enumerate(line.split(",") for line in originals.splitlines())
        ),
        "id '00001' stands in more than one row": originals.replace("[00000]", "[00001]"),
    }
    for message, text in texts.items():
        path = tmp_path / "labels.csv"
        path.write_text(text)
        with pytest.raises(LabelError, match=message):
            train_head.run(options(study, runs, labels=path))
    assert not runs.exists()


def test_bad_stores_and_groups(study, tmp_path, settings, record, detector_named):
    with pytest.raises(UsageError, match="unknown group emb; this store has va, expr, au"):
        train_head.run(options(study, tmp_path, subset=("emb",)))
    failed = tmp_path / "failed.zarr"
    with StoreWriter(failed, settings) as writer:
        fill(writer, record, {"00000": np.zeros((0, 26), np.float32)}, detector_named)
    with pytest.raises(StoreError, match="no video that was extracted without failure"):
        train_head.run(options(study, tmp_path, store=str(failed)))
    faceless = tmp_path / "faceless.zarr"
    nothing = {f"{i:05d}": np.full((3, 26), np.nan, np.float32) for i in range(80)}
    with StoreWriter(faceless, settings) as writer:
        fill(writer, record, nothing, detector_named)
    with pytest.raises(HeadError, match="no training video has a frame with a face"):
        train_head.run(options(study, tmp_path, store=str(faceless)))
    with pytest.raises(FeieError, match="no store at"):
        train_head.run(options(study, tmp_path, store=str(tmp_path / "none.zarr")))


def test_a_head_of_other_columns_is_refused(
    study, trained, tmp_path, settings, record, detector_named
):
    fewer = replace(settings, schema=Schema(AFFECT.columns[:9], {"va": (0, 2), "expr": (2, 9)}))
    with StoreWriter(tmp_path / "s.zarr", fewer) as writer:
        fill(writer, record, {"00008": affect_of(8, 0.5)}, detector_named, columns=9)
    with pytest.raises(HeadError, match=r"s\.zarr lacks AU01, .* train again"):
        evaluate.run(EvaluateOptions(runs=trained[0], store=str(tmp_path / "s.zarr")))


def test_another_extractor_is_said(study, trained, tmp_path, settings, record, detector_named):
    other = replace(settings, extractor={"name": "other", "sha256": "f" * 64})
    with StoreWriter(tmp_path / "s.zarr", other) as writer:
        videos = {f"{i:05d}": affect_of(i, 0.5) for i in range(80)}
        fill(writer, record, videos, detector_named)
    found = evaluate.run(EvaluateOptions(runs=trained[0], store=str(tmp_path / "s.zarr")))
    assert "made by extractor other, the head was trained on mma-test" in found.notes[0]


def test_training_videos_are_not_scored_as_another_split(study, trained, tmp_path):
    path = edit(study, tmp_path, ",train,", ",val,", count=3)
    with pytest.raises(HeadError, match=r"3 of 18 videos of split 'val', .*'00000', were in"):
        evaluate.run(EvaluateOptions(runs=trained[0], labels=path))


def test_constant_labels_of_a_scored_split(study, trained, tmp_path):
    rows = (study / "labels.csv").read_text().splitlines()
    half = [",".join([*r.split(",")[:2], "0.5", *r.split(",")[3:]]) for r in rows[1:]]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([rows[0], *half]))
    found = evaluate.run(EvaluateOptions(runs=trained[0], labels=path))
    assert found.pearson["Joy"] is None
    assert found.intervals["Joy"] is None
    assert found.mean_pearson == found.pearson["Mirth"]
    assert "Pearson of Joy is undefined: its labels are constant" in " ".join(found.notes)
    json.loads(found.model_dump_json())


def test_runs_that_cannot_be_used(study, trained, tmp_path):
    with pytest.raises(HeadError, match="no finished run in"):
        evaluate.run(EvaluateOptions(runs=tmp_path / "none"))
    with pytest.raises(HeadError, match="there is no run"):
        evaluate.run(EvaluateOptions(run=tmp_path / "none"))
    with pytest.raises(HeadError, match="holds no trained head"):
        evaluate.run(EvaluateOptions(run=tmp_path))
    for name, damage, message in (
        ("head.safetensors", b"x" * 40, "cannot be read"),
        ("head.json", b"{", "cannot be read"),
        ("head.json", b'{"format": "feie-head/9"}', "format 'feie-head/9', this feie reads"),
        ("head.json", b'{"format": "feie-head/1", "model": {}}', "damaged head"),
    ):
        broken = tmp_path / "broken"
        broken.mkdir(exist_ok=True)
        for file in ("head.safetensors", "head.json", "videos.csv"):
            (broken / file).write_bytes((trained[0] / "one" / file).read_bytes())
        (broken / name).write_bytes(damage)
        with pytest.raises(HeadError, match=message):
            evaluate.run(EvaluateOptions(run=broken))


def test_the_run_that_ended_last_is_taken(study, tmp_path):
    for name in ("b", "a"):
        train_head.run(options(study, tmp_path, name=name, epochs=1, width=4))
    train_head.run(options(study, tmp_path / "x", epochs=1, width=4))
    (tmp_path / "c").mkdir()
    assert latest_run(tmp_path).name == "a"
    again = train_head.run(options(study, tmp_path, name="a", epochs=1, width=4))
    assert again.run == str(tmp_path / "a-2")


def test_an_unwritable_disk_is_one_clear_error(study, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(HeadError, match=r"cannot write .*file"):
        train_head.run(options(study, blocked))
    full = tmp_path / "runs"
    real = os.fsync

    def no_space(descriptor):
        if any(full.glob("*/.training.csv.*.partial")):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(HeadError, match=r"cannot write .*training\.csv: No space left on device"):
        train_head.run(options(study, full, name="one"))
    monkeypatch.undo()
    assert not list(full.rglob("*.partial"))
    resumed = train_head.run(TrainHeadOptions(resume=full / "one"))
    assert resumed.epochs == SMALL["epochs"]


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="extra"):
        TrainHeadOptions(speed=3)
    with pytest.raises(ValueError, match="split"):
        EvaluateOptions(split="everything")


def test_an_empty_subset_and_sizes_without_end_are_refused():
    for given in (
        {"subset": ()},
        {"lr": float("inf")},
        {"clip": float("nan")},
        {"checkpoint_seconds": float("inf")},
        {"t": 100_001},
        {"width": 4097},
        {"dense": 4097},
    ):
        with pytest.raises(ValueError, match=next(iter(given))):
            TrainHeadOptions(**given)


def store_without_faces(study, folder, writing, faceless):
    """A copy of the study's store in which these videos show no face."""
    settings, record, detector_named = writing
    store = open_store(study / "features.zarr")
    videos = {
        name: np.where(name in faceless, np.float32(np.nan), store[name].affect)
        for name in store.ids
    }
    with StoreWriter(folder / "features.zarr", settings) as writer:
        fill(writer, record, videos, detector_named)
    return str(folder / "features.zarr")


@pytest.fixture
def writing(settings, record, detector_named):
    return settings, record, detector_named


def ids_of(study, split):
    rows = csv.DictReader((study / "labels.csv").read_text().splitlines())
    return [row["File_ID"].strip("[]") for row in rows if row["Split"] == split]


def test_too_few_faces_to_choose_an_epoch_by(study, tmp_path, writing):
    faceless = set(ids_of(study, "val")) - {"00007"}
    store = store_without_faces(study, tmp_path, writing, faceless)
    with pytest.raises(
        HeadError, match=r"only one validation video .* \(without: '00006', .*, …\)"
    ):
        train_head.run(options(study, tmp_path / "runs", store=store))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_that_vary_only_where_no_face_is(study, tmp_path, writing, split):
    """Two videos of the split show a face, and have the same labels."""
    chosen = [v for v in ids_of(study, split) if v not in ("00006", "00016")]  # show none anyway
    store = store_without_faces(study, tmp_path, writing, set(chosen[2:]))
    cells = [line.split(",") for line in (study / "labels.csv").read_text().splitlines()]
    for c in cells:
        if c[0].strip("[]") in chosen[:2]:
            c[2:4] = "0.5", "0.5"
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(map(",".join, cells)))
    with pytest.raises(LabelError, match=f"constant over all 2 videos of split '{split}' with a"):
        train_head.run(options(study, tmp_path / "runs", store=store, labels=labels))


def test_a_split_lost_in_joining_is_said(study, tmp_path):
    lines = (study / "labels.csv").read_text().splitlines()
    val = [line for line in lines if ",val," in line][:1]
    labels = tmp_path / "labels.csv"
    rest = [line for line in lines if ",val," not in line]
    labels.write_text("\n".join([*rest, val[0].replace("[0", "[x")]))
    given = {"labels": labels, "unmatched": 0.5}
    with pytest.raises(LabelError, match=r"no video of split 'val' of .* it lacks .*'x0006'"):
        train_head.run(options(study, tmp_path / "runs", **given))


def test_a_project_that_moved_is_found_and_resumed_from_anywhere(study, tmp_path, monkeypatch):
    here = tmp_path / "here"
    shutil.copytree(study, here)
    monkeypatch.chdir(here)
    relative = {"store": "features.zarr", "labels": "labels.csv", "runs": "runs"}
    train_head.run(TrainHeadOptions(**relative, **SMALL, name="one"))
    expected = evaluate.run(EvaluateOptions())
    assert expected.store == str(here / "features.zarr")
    monkeypatch.chdir(tmp_path)
    assert evaluate.run(EvaluateOptions(run=here / "runs" / "one")).pearson == expected.pearson
    (here / "runs" / "one" / "head.json").unlink()
    train_head.run(TrainHeadOptions(resume=here / "runs" / "one"))
    here.rename(tmp_path / "there")
    there = tmp_path / "there" / "runs" / "one"
    moved = evaluate.run(EvaluateOptions(run=there))
    assert moved.store == str(tmp_path / "there" / "features.zarr")
    assert moved.pearson == expected.pearson
    (there / "head.json").unlink()
    (there / "videos.csv").unlink()
    assert train_head.run(TrainHeadOptions(resume=there)).pearson == expected.pearson
    labels = tmp_path / "there" / "labels.csv"
    labels.write_text(labels.read_text() + "\n")
    said = " ".join(evaluate.run(EvaluateOptions(run=there)).notes)
    assert f"{labels} is not, or no longer, the file that the head was trained on" in said


def copy_run(trained, tmp_path):
    broken = tmp_path / "broken"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(trained[0] / "one", broken)
    return broken


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(run, change):
    """Damage that a new hash hides."""
    tensors, notes = load_tensors(run / "head.safetensors")
    change(tensors)
    sha256 = save_tensors(run / "head.safetensors", tensors, notes)
    edit_json(run / "head.json", lambda content: content.update(weights_sha256=sha256))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("store"),
        lambda c: c.update(store=None),
        lambda c: c.update(store="s"),
        lambda c: c["store"].update(extractor="mma"),
        lambda c: c["labels"].update(path=3),
        lambda c: c.update(targets=None),
        lambda c: c.update(targets=["Joy"]),
        lambda c: c.update(targets=[1, 2]),
        lambda c: c.update(model=[]),
        lambda c: c["model"].update(t=90_000),
        lambda c: c["model"].update(width=10**12),
        lambda c: c["inputs"].update(columns=["AU01"]),
        lambda c: c.pop("weights_sha256"),
        lambda c: c.update(weights_sha256="0" * 64),
    ],
)
def test_a_damaged_description_of_a_head(trained, tmp_path, change):
    broken = copy_run(trained, tmp_path)
    edit_json(broken / "head.json", change)
    with pytest.raises(HeadError, match="damaged head"):
        evaluate.run(EvaluateOptions(run=broken))


def test_damaged_tensors_of_a_head(trained, tmp_path):
    for change, message in (
        (lambda t: t.update({"standardiser.mean": torch.zeros(1).double()}), r"shape \(1,\), not"),
        (lambda t: t["standardiser.sd"].zero_(), "sd is not positive"),
        (lambda t: t["model.dense_weight"].fill_(np.nan), "model.dense_weight is not finite"),
        (lambda t: t.pop("label_mean"), "it lacks 'label_mean'"),
        (lambda t: t.pop("model.dense_bias"), "Missing key"),
        (lambda t: t.update({"model.output_weight": torch.zeros(1)}), "size mismatch"),
    ):
        broken = copy_run(trained, tmp_path)
        edit_weights(broken, change)
        with pytest.raises(HeadError, match=message):
            evaluate.run(EvaluateOptions(run=broken))
    broken = copy_run(trained, tmp_path)
    content = json.loads((broken / "head.json").read_text())
    data = (broken / "head.safetensors").read_bytes()
    assert content["weights_sha256"] == hashlib.sha256(data).hexdigest()
    (broken / "head.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(HeadError, match=r"not the file that head\.json was written with"):
        evaluate.run(EvaluateOptions(run=broken))
    broken = copy_run(trained, tmp_path)
    (broken / "videos.csv").write_bytes(b"video,split\n\xff\xfe,train\n")
    with pytest.raises(HeadError, match=r"videos\.csv cannot be read"):
        evaluate.run(EvaluateOptions(run=broken))


def test_broken_weights_never_pass_for_the_mean(trained):
    head = load_head(trained[0] / "one")
    with torch.no_grad():
        head.model.dense_weight.fill_(np.nan)
    columns = len(head.inputs.columns)
    frames = Ragged(np.zeros((3, columns), np.float32), np.array([0, 3, 3]))
    found = head.predict(frames)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], head.label_mean)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("state.safetensors", b"no", "state.safetensors is damaged .*; remove it and resume"),
        ("options.json", b"[]", "no JSON object"),
        ("options.json", b'{"options": {}, "store": 3, "labels": {}}', "damaged or of another"),
        ("options.json", b'{"options": [], "store": {"path": "s"}}', "damaged or of another"),
    ],
)
def test_a_damaged_half_of_a_training(study, tmp_path, file, damage, message):
    train_head.run(options(study, tmp_path, name="one", epochs=1, width=4))
    folder = tmp_path / "one"
    (folder / "head.json").unlink()
    (folder / "training.csv").write_bytes(b"epoch\n\xff\n")
    (folder / file).write_bytes(damage)
    with pytest.raises(HeadError, match=message):
        train_head.run(TrainHeadOptions(resume=folder))
    if file == "state.safetensors":
        save_tensors(folder / file, {"model.dense_bias": torch.zeros(1)}, {"history": 3})
        with pytest.raises(HeadError, match=message):
            train_head.run(TrainHeadOptions(resume=folder))
        (folder / file).unlink()
        train_head.run(TrainHeadOptions(resume=folder))


def test_foreign_and_unreadable_runs_are_passed_over(trained, tmp_path):
    for name, text in (("y", "{"), ("z", '{"format": "other/1", "ended": "9999"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "head.json").write_text(text)
    with pytest.raises(HeadError, match=r"no finished run in .*the head of y, z cannot be read"):
        latest_run(tmp_path)
    shutil.copytree(trained[0] / "one", tmp_path / "a")
    shutil.copytree(trained[0] / "one", tmp_path / "b")
    edit_json(tmp_path / "b" / "head.json", lambda content: content.pop("ended"))
    assert latest_run(tmp_path).name == "a"


def test_validation_videos_are_not_scored_as_test(study, trained, tmp_path):
    found = evaluate.run(EvaluateOptions(runs=trained[0]))
    assert any("epoch was chosen on these videos (15)" in note for note in found.notes)
    path = edit(study, tmp_path, ",val,", ",test,", count=3)
    with pytest.raises(HeadError, match=r"2 of 18 videos of split 'test', .* validation split of"):
        evaluate.run(EvaluateOptions(runs=trained[0], labels=path, split="test"))


def test_videos_outside_training_change_no_statistic(study, tmp_path, writing):
    """Leaks by way of the standardiser, the calibration or the baselines."""
    settings, record, detector_named = writing
    store = open_store(study / "features.zarr")
    train = set(ids_of(study, "train"))
    videos = {
        name: store[name].affect if name in train else 0.5 * store[name].affect[:-1] + 0.3
        for name in store.ids
    }
    with StoreWriter(tmp_path / "features.zarr", settings) as writer:
        fill(writer, record, videos, detector_named)
    heads = []
    for path in (study / "features.zarr", tmp_path / "features.zarr"):
        run = train_head.run(options(study, tmp_path / "runs", store=str(path), epochs=1)).run
        heads.append(load_head(Path(run)))
    for part in ("standardiser", "calibration", "baseline"):
        parts = (vars(getattr(head, part)) for head in heads)
        for one, other in zip(*(p.values() for p in parts), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(*(head.label_mean for head in heads))


def test_git_is_asked_without_taking_locks(study, tmp_path, monkeypatch):
    asked = []
    real = subprocess.run

    def watched(command, **given):
        asked.append(given["env"]["GIT_OPTIONAL_LOCKS"])
        return real(command, **given)

    monkeypatch.setattr(subprocess, "run", watched)
    monkeypatch.setattr(
        Path, "exists", lambda path: True if path.name == ".git" else real_exists(path)
    )
    real_exists = os.path.exists
    train_head.run(options(study, tmp_path, epochs=1, width=4))
    assert asked == ["0"]
