"""feie ablate: the same runs as train-head's, however they are trained, and after a kill."""

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

from feie.features.errors import HeadError, UsageError
from feie.features.schema import AFFECT
from feie.features.store.writer import StoreWriter
from feie.heads.runs.checkpoint import load_head
from feie.pipeline.grid import ablate
from feie.pipeline.grid.grid import shared_out
from feie.pipeline.grid.options import AblateOptions
from feie.pipeline.grid.tables import TABLES
from feie.pipeline.train import job as train_head

SMALL = {"t": 16, "batch": 8, "epochs": 2, "checkpoint_seconds": 0.0, "jobs": 1}


@pytest.fixture(scope="session")
def material(tmp_path_factory, record, settings, detector_named):
    """A store of 40 short videos whose AU12 shows their label."""
    folder = tmp_path_factory.mktemp("ablate")
    rng = np.random.default_rng(0)
    joy = rng.random(40)
    with StoreWriter(folder / "s.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(40):
            affect = rng.uniform(0.2, 0.4, (int(rng.integers(4, 16)), 26)).astype(np.float32)
            affect[:, AFFECT.columns.index("AU12")] += np.float32(0.5 * joy[i])
            valid = np.ones(len(affect), np.bool_)
            writer.append(replace(record(f"{i:03d}", len(affect)), affect=affect, valid=valid))
    splits = ("train",) * 6 + ("val",) * 4
    rows = [f"{i:03d},{splits[i % 10]},{joy[i]:.4f},{1 - joy[i] ** 2:.4f}\n" for i in range(40)]
    (folder / "labels.csv").write_text("id,split,Joy,Gloom\n" + "".join(rows))
    return folder


def options(material, out, **given):
    base = {"store": str(material / "s.zarr"), "labels": material / "labels.csv", "out": out}
    return AblateOptions.model_validate({**base, **SMALL, "seeds": 2, **given})


@pytest.fixture(scope="session")
def subsets(material, tmp_path_factory):
    """The table of subsets, its runs trained one by one."""
    given = options(material, tmp_path_factory.mktemp("subsets") / "out", stack="off")
    return given, ablate.run(given)


def weights(folder):
    return dict(load_head(folder).model.named_parameters())


def test_each_run_is_one_of_train_head(material, subsets, tmp_path):
    given, result = subsets
    assert (result.trained, result.kept, result.failed) == (14, 0, {})
    same = given.run_of(TABLES["subsets"][4], 1).model_copy(update={"runs": tmp_path})
    assert (same.subset, same.seed) == (("va", "au"), 1)
    alone = train_head.run(same)
    row = result.rows[4]
    assert row.seeds["1"] == alone.mean_pearson
    ours = weights(given.folder / "runs" / "va-au-s1")
    for name, value in weights(tmp_path / "va-au-s1").items():
        assert torch.equal(value, ours[name])


def test_the_table_its_files_and_its_picture(subsets):
    _, result = subsets
    assert [row.name for row in result.rows][::6] == ["va", "va + expr + au"]
    row = result.rows[-1]
    figures = list(row.seeds.values())
    assert row.mean == pytest.approx(np.mean(figures))
    assert row.sd == pytest.approx(np.std(figures, ddof=1))
    assert (row.published, result.rows[0].published) == (0.544, None)
    with open(result.csv, newline="") as file:
        lines = list(csv.DictReader(file))
    assert float(lines[-1]["mean"]) == pytest.approx(row.mean, abs=1e-6)
    assert list(lines[0])[-2:] == ["Joy", "Gloom"]
    with open(result.runs_csv, newline="") as file:
        runs = list(csv.DictReader(file))
    assert [(r["row"], r["seed"]) for r in runs[:3]] == [("va", "0"), ("va", "1"), ("expr", "0")]
    assert Path(result.picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_again_it_trains_nothing_and_more_seeds_only_those(subsets):
    given, result = subsets
    table = Path(result.csv).read_bytes()
    again = ablate.run(given)
    assert (again.trained, again.kept) == (0, 14)
    assert Path(result.csv).read_bytes() == table
    with pytest.raises(
        UsageError, match="holds a ablation that differs in --epochs; repeat that one"
    ):
        ablate.run(given.model_copy(update={"epochs": 3}))
    with (
        FileLock(given.folder / ".lock"),
        pytest.raises(HeadError, match="another ablation works in"),
    ):
        ablate.run(given)


def same_heads(one, other):
    for row in TABLES["subsets"]:
        for seed in range(2):
            name = f"runs/{row.slug}-s{seed}"
            theirs = weights(other / name)
            for key, value in weights(one / name).items():
                assert torch.equal(theirs[key], value), (name, key)


def test_stacked_it_is_the_same_table_also_after_a_break(material, subsets, tmp_path):
    given = options(material, tmp_path / "out", stack="on")
    seen = []

    def stop(report):
        seen.append(report)
        if len(seen) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate.run(given, stop)
    assert not list(tmp_path.glob("out/runs/*/head.json"))
    assert list(tmp_path.glob("out/runs/*/state.safetensors"))
    result = ablate.run(given)
    assert result.trained == 14
    # In float32; that the weights agree as far as they can is tested with the stack itself.
    for row, alone in zip(result.rows, subsets[1].rows, strict=True):
        assert row.seeds == pytest.approx(alone.seeds, abs=1e-3)


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_killed_with_its_processes_it_goes_on_to_the_same_heads(material, subsets, tmp_path):
    given = options(material, tmp_path / "out", stack="off", jobs=2)
    code = (
        "import sys; from feie.pipeline.grid.ablate import run\n"
        "from feie.pipeline.grid.options import AblateOptions\n"
        "if __name__ == '__main__': run(AblateOptions.model_validate_json(sys.argv[1]))"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, given.model_dump_json()])
    heads = tmp_path / "out" / "runs"
    while len(list(heads.glob("*/head.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{w}") for w in workers):
        assert time.monotonic() < deadline, "orphans go on"
        time.sleep(0.01)
    assert len(workers) >= 2
    result = ablate.run(given.model_copy(update={"jobs": 1}))
    assert result.trained + result.kept == 14
    assert 2 <= result.kept < 14
    same_heads(subsets[0].folder, tmp_path / "out")


def test_broken_off_in_this_process_its_workers_end_with_it(material, subsets, tmp_path):
    given = options(material, tmp_path / "out", stack="off", jobs=2)

    def stop(report):
        if report.info.get("runs") == "2/14":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate.run(given, stop)
    assert not multiprocessing.active_children()
    result = ablate.run(given)
    assert (result.trained + result.kept, result.failed) == (14, {})
    same_heads(subsets[0].folder, tmp_path / "out")


def test_a_worker_that_dies_is_told_and_costs_nothing_that_was_done(material, subsets, tmp_path):
    given = options(material, tmp_path / "out", stack="off", jobs=2)
    killed = []

    def kill(report):
        if report.info.get("runs") == "1/14" and not killed:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(HeadError, match=r"a training process died, .*the same command goes on"):
        ablate.run(given, kill)
    assert not multiprocessing.active_children()
    result = ablate.run(given)
    assert result.kept >= 1
    same_heads(subsets[0].folder, tmp_path / "out")


def test_architecture_changes_what_its_rows_say(material, tmp_path):
    result = ablate.run(
        options(material, tmp_path / "out", table="architecture", seeds=1, epochs=1)
    )
    assert len(result.rows) == 11
    full = load_head(tmp_path / "out" / "runs" / "full-s0")
    shape, way = full.model.config.model_dump(), full.notes["training"]
    assert (shape["cell"], shape["width"], shape["layers"]) == ("gru", 128, 1)
    assert (shape["dense"], shape["mask"], way["loss"], way["routing"]) == (
        32,
        True,
        "pearson",
        True,
    )
    for row in TABLES["architecture"]:
        head = load_head(tmp_path / "out" / "runs" / f"{row.slug}-s0")
        there = {**head.model.config.model_dump(), **head.notes["training"]}
        expected = {**shape, **way, **row.changes}
        assert {k: there[k] for k in row.changes} == dict(row.changes)
        assert {k: there[k] for k in shape} == {k: expected[k] for k in shape}


def test_a_run_that_fails_is_named_and_the_others_go_on(material, tmp_path):
    given = options(material, tmp_path / "out", seeds=1, lr=1e30)
    for stack in ("off", "on"):
        out = tmp_path / stack
        result = ablate.run(given.model_copy(update={"stack": stack, "out": out}))
        assert set(result.failed) == {f"{row.slug}-s0" for row in TABLES["subsets"]}
        assert "diverged" in result.failed["va-s0"]
        assert result.rows[0].mean is None
    assert json.loads((out / "ablation.json").read_text())["options"]["lr"] == 1e30


def test_a_published_column_of_ones_own_and_its_order(material, subsets, tmp_path):
    given, result = subsets
    path = tmp_path / "p.csv"
    lines = [f"{row.name},{row.mean}" for row in result.rows[:3]]
    path.write_text("row,published\n" + "\n".join(lines))
    again = ablate.run(given.model_copy(update={"published": path}))
    assert again.rows[1].published == pytest.approx(result.rows[1].mean)
    assert again.rank_correlation is not None
    for line, said in (("nonsense,1", "names a row 'nonsense'"), ("va,nan", "no correlation")):
        path.write_text(f"row,published\n{line}\n")
        with pytest.raises(UsageError, match=said):
            ablate.run(given.model_copy(update={"published": path}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "cuda:7"}, "device 'cuda:7' is not usable here"),
        ({"subset": ("va",), "store": "nowhere.zarr"}, "there is no store at nowhere.zarr"),
    ],
)
def test_what_cannot_be_used_is_said_first(material, tmp_path, given, message):
    with pytest.raises((UsageError, Exception), match=message):
        ablate.run(options(material, tmp_path / "out", **given))
    assert not (tmp_path / "out").exists()


def test_runs_are_shared_out(material, tmp_path, monkeypatch):
    given = options(material, tmp_path, seeds=5, jobs=None, table="architecture")
    todo = [given.run_of(row, seed) for row in TABLES["architecture"] for seed in range(5)]
    cpu = torch.device("cpu")
    groups, jobs = shared_out(todo, cpu, stack="off")
    assert jobs == len(os.sched_getaffinity(0))
    assert [len(group.runs) for group in groups] == [1] * 55
    assert groups[0].runs[0].name.startswith("gru256")
    groups, _ = shared_out(todo, cpu, jobs=3, stack="on")
    assert {len(group.runs) for group in groups} == {1, 2}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    groups, jobs = shared_out(todo, torch.device("cuda"))
    assert (jobs, {group.stacked for group in groups}) == (2, {True})
    assert [(len(g.runs), g.device) for g in groups[:2]] == [(3, "cuda:0"), (2, "cuda:1")]
    assert sorted(o.name for g in groups for o in g.runs) == sorted(o.name for o in todo)
    with pytest.raises(UsageError, match="--stack off trains on the CPU only"):
        shared_out(todo, torch.device("cuda"), stack="off")
