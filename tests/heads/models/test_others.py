"""STAT heads, frame-level valence-arousal, the compound rule; schedules, stride and sweeps."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feie.features.errors import HeadError, UsageError
from feie.features.schema import AFFECT
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.config import MRNNConfig, StatConfig, TrainingConfig
from feie.heads.data.packing import Packing
from feie.heads.data.ragged import Ragged, every_kth, interpolate
from feie.heads.measures.losses import LOSSES, pearson_loss
from feie.heads.models.compound import COMPOUNDS, class_frequencies, compound_scores, kl_divergence
from feie.heads.models.frame_va import box_filter
from feie.heads.models.mrnn import MRNN
from feie.heads.models.stat import Stat
from feie.heads.runs.checkpoint import load_head
from feie.heads.training.trainer import Epoch, learning_rate
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.grid import sweep
from feie.pipeline.grid.sweep import SweepOptions
from feie.pipeline.predict import compound
from feie.pipeline.predict.compound import CompoundOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.job import TrainHeadOptions

lengths_of = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def videos_of(lengths, seed=0):
    return [np.random.default_rng([seed, i]).normal(size=(n, 3)) for i, n in enumerate(lengths)]


def run(model, videos):
    lengths = [len(v) for v in videos]
    packing = Packing.of(lengths)
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    frames = torch.from_numpy(np.concatenate(videos)).to(model.output_bias.dtype)
    return model(frames[packing.gather(first)], packing)


@pytest.mark.parametrize("hidden", [0, 5])
@settings(deadline=None, max_examples=20)
@given(lengths_of)
def test_stat_equals_the_formula_video_by_video(hidden, lengths):
    model = Stat(StatConfig(inputs=3, targets=2, hidden=hidden), seed=1).double()
    value = {n: p.detach().numpy() for n, p in model.named_parameters()}
    videos, expected = videos_of(lengths), []
    for v in videos:
        z = np.concatenate([v.mean(0), v.std(0), v.min(0), v.max(0)])
        if hidden:
            z = np.maximum(value["hidden_weight"] @ z + value["hidden_bias"], 0)
        expected.append(1 / (1 + np.exp(-value["output_weight"] @ z - value["output_bias"])))
    np.testing.assert_allclose(run(model, videos).detach(), expected, atol=1e-12)


def torch_path(model, videos, kind):
    """Torch's own GRU on padded, bucketed (padded to the longest) or packed batches."""
    config, lengths = model.config, torch.tensor([len(v) for v in videos])
    size = config.t if kind == "padded" else int(lengths.max())
    x = torch.zeros(len(videos), size, config.inputs)
    for i, video in enumerate(videos):
        x[i, : len(video)] = torch.from_numpy(video)
    part, layer = model.recurrent[0], torch.nn.GRU(config.inputs, config.width, batch_first=True)
    names = {"weight_ih_l0": "w_input", "weight_hh_l0": "w_hidden",
             "bias_ih_l0": "b_input", "bias_hh_l0": "b_hidden"}  # fmt: skip
    if kind == "packed":
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    h, _ = torch.func.functional_call(layer, {k: part[v] for k, v in names.items()}, (x,))
    if kind == "packed":
        h, _ = torch.nn.utils.rnn.pad_packed_sequence(h, batch_first=True)
    h = h * (torch.arange(size) < lengths[:, None])[..., None]
    z = torch.einsum("btw,twd->bd", h, model.dense_weight[:size]) + model.dense_bias
    return torch.relu(z) @ model.output_weight.t() + model.output_bias


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 12), min_size=3, max_size=6), st.integers(0, 99))
def test_padded_bucketed_packed_and_sorted_agree_in_float32(lengths, seed):
    model = MRNN(MRNNConfig(inputs=3, targets=2, t=12, width=6, dense=4), seed)
    with torch.no_grad():
        model.dense_weight.mul_(20)
        model.dense_bias += 0.3
    videos = [v.astype(np.float32) for v in videos_of(lengths, seed)]
    target = torch.rand(len(videos), 2, generator=torch.Generator().manual_seed(seed))
    found = {}
    for kind in ("sorted", "padded", "bucketed", "packed"):
        model.zero_grad()
        score = run(model, videos) if kind == "sorted" else torch_path(model, videos, kind)
        loss = pearson_loss(score, target)
        loss.backward()
        found[kind] = loss.item(), [p.grad.clone() for p in model.parameters()]
    # Three videos may differ by little, which the correlation's gradient then divides by.
    scale = max(1.0, *(g.abs().max().item() for g in found["sorted"][1]))
    for kind in ("padded", "bucketed", "packed"):
        assert found[kind][0] == pytest.approx(found["sorted"][0], abs=1e-5)
        for one, other in zip(found[kind][1], found["sorted"][1], strict=True):
            torch.testing.assert_close(one / scale, other / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_weighted_losses(name):
    p, y = torch.rand(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([LOSSES[name](p[:, i : i + 1], y[:, i : i + 1]) for i in range(3)])
    weights = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    expected = (alone * weights).sum() / 4
    assert LOSSES[name](p, y, weights).item() == pytest.approx(expected.item())
    assert LOSSES[name](p, y, torch.ones(3)).item() == pytest.approx(LOSSES[name](p, y).item())


def test_schedules():
    def rates(schedule, curve, **given):
        config = TrainingConfig(lr=0.8, schedule=schedule, epochs=10, patience=8, **given)
        history = [Epoch(i + 1, 0.0, rho) for i, rho in enumerate(curve)]
        return [learning_rate(config, history[:i]) for i in range(len(curve) + 1)]

    curve = [0.1, 0.2, 0.15, 0.2, 0.1, 0.1, float("nan"), 0.3]
    assert rates("constant", curve) == [0.8] * 9
    cosine = 0.4 * (1 + np.cos(np.pi * np.arange(9) / 10))
    np.testing.assert_allclose(rates("cosine", curve), cosine)
    expected = [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2]
    np.testing.assert_allclose(rates("plateau", curve), expected)


@given(lengths_of, st.integers(1, 5))
def test_stride_keeps_every_kth_frame(lengths, k):
    videos = [v.astype(np.float32) for v in videos_of(lengths)]
    ragged = Ragged(np.concatenate(videos), np.cumsum([0, *lengths]))
    valid = np.arange(len(ragged.values)) % 3 != 0
    found, flags = every_kth(ragged, valid, k)
    for i, video in enumerate(videos):
        np.testing.assert_array_equal(found[i], video[::k])
    parts = np.split(valid, np.cumsum(lengths)[:-1])
    np.testing.assert_array_equal(flags, np.concatenate([part[::k] for part in parts]))


def test_box_filter_and_gaps():
    series = np.random.default_rng(0).normal(size=(30, 2))
    expected = [series[max(0, i - 4) : i + 5].mean(0) for i in range(30)]
    np.testing.assert_allclose(box_filter(series, 4), expected)
    values = np.array([[np.nan], [1], [np.nan], [np.nan], [4], [np.nan], [np.nan]], np.float32)
    found = interpolate(Ragged(values, np.array([0, 6, 7]))).values[:, 0]
    np.testing.assert_allclose(found, [1, 1, 2, 3, 4, 4, np.nan])


def test_compound_rule():
    p = np.zeros((4, 26))
    columns = list(AFFECT.columns)
    for row, pair in (
        (0, ("fear", "surprise")),
        (1, ("sadness", "anger")),
        (2, ("sadness", "fear")),
    ):
        p[row, [columns.index(name) for name in pair]] = 0.5
    p[3] = np.nan
    scores = compound_scores(p, columns)
    assert [list(COMPOUNDS)[i] for i in scores[:3].argmax(1)] == [
        "Fearfully Surprised", "Sadly Angry", "Sadly Fearful",
    ]  # fmt: skip
    assert scores[0].max() == 1
    shares = class_frequencies(scores)
    np.testing.assert_allclose(shares, [1 / 3, 0, 0, 0, 0, 1 / 3, 1 / 3])
    assert kl_divergence(shares, shares) == 0
    assert kl_divergence(shares, np.full(7, 1 / 7)) == pytest.approx(np.log(7 / 3), abs=1e-3)
    assert class_frequencies(scores[3:]).tolist() == [0] * 7
    with pytest.raises(HeadError, match="need the columns anger, disgust"):
        compound_scores(p[:, :2], columns[:2])


@pytest.fixture(scope="module")
def study(tmp_path_factory, settings, record, detector_named):
    folder = tmp_path_factory.mktemp("others")
    rng, rows = np.random.default_rng(0), ["id,split,Joy,Fear"]
    with StoreWriter(folder / "features.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(60):
            found = record(f"{i:05d}", int(rng.integers(6, 14)), seed=i)
            writer.append(found)
            joy = np.nanmean(found.affect[:, 20])
            rows.append(f"{i:05d},{('train', 'train', 'val')[i % 3]},{joy:.4f},{rng.random():.3f}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def options(study, runs, **given):
    base = {"store": str(study / "features.zarr"), "labels": study / "labels.csv", "runs": runs}
    shape = {} if "head" in given else {"width": 6, "dense": 4}
    return TrainHeadOptions(**{**base, **shape, "epochs": 3, "t": 20, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"head": "stat-linear", "preset": "stat", "epochs": 60, "lr": 0.05},
        {"head": "stat-mlp", "space": "logit", "frame_stride": 2, "weights": (1.0, 0.5)},
        {"head": "stat-linear", "loss": "mse"},
        {"schedule": "cosine", "frame_stride": 3, "clip": 1.0},
        {"schedule": "plateau", "loss": "ccc", "weights": (0.0, 2.0)},
    ],
    ids=str,
)
def test_other_heads_and_options_train_save_and_evaluate(study, tmp_path, given):
    result = train_head.run(options(study, tmp_path, name="one", **given))
    found = evaluate.run(EvaluateOptions(runs=tmp_path, report=tmp_path / "r.html"))
    assert found.mean_pearson == pytest.approx(result.mean_pearson, abs=1e-6)
    head = load_head(tmp_path / "one")
    assert head.inputs.stride == given.get("frame_stride", 1)
    assert isinstance(head.model, Stat) == ("head" in given)
    if given.get("preset") == "stat":
        assert found.pearson["Joy"] > 0.3
    notes = json.loads((tmp_path / "one" / "head.json").read_text())
    notes["targets"] = ["Joy"]
    (tmp_path / "one" / "head.json").write_text(json.dumps(notes))
    with pytest.raises(HeadError, match="damaged head"):
        load_head(tmp_path / "one")


@pytest.mark.parametrize(
    "given",
    [{"head": "stat-mlp", "schedule": "plateau", "patience": 4}, {"schedule": "cosine"}],
    ids=str,
)
def test_resumed_in_the_middle_it_ends_the_same(study, tmp_path, given):
    given = {**given, "epochs": 8, "checkpoint_seconds": 0}
    whole = train_head.run(options(study, tmp_path, name="whole", **given))

    def stop(progress):
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head.run(options(study, tmp_path, name="cut", **given), stop)
    resumed = train_head.run(TrainHeadOptions(resume=tmp_path / "cut"))
    assert (resumed.epochs, resumed.pearson) == (whole.epochs, whole.pearson)
    logs = []
    for name in ("whole", "cut"):
        with (tmp_path / name / "training.csv").open() as file:
            logs.append([float(row["lr"]) for row in csv.DictReader(file)])
    assert logs[0] == logs[1]
    if given["schedule"] == "cosine":
        np.testing.assert_allclose(logs[0], 5e-4 * (1 + np.cos(np.pi * np.arange(8) / 8)))
    for one, other in zip(
        *(load_head(tmp_path / name).model.parameters() for name in ("whole", "cut")), strict=True
    ):
        assert torch.equal(one, other)


def test_wrong_weights_and_devices_are_one_clear_error(study, tmp_path):
    with pytest.raises(UsageError, match="3 weights for 2 targets"):
        train_head.run(options(study, tmp_path, weights=(1, 2, 3)))
    for weights in ((0, 0), (-1, 2)):
        with pytest.raises(UsageError, match="negative"):
            train_head.run(options(study, tmp_path, weights=weights))
    with pytest.raises(UsageError, match="device 'tpu' is not usable here"):
        train_head.run(options(study, tmp_path, device="tpu"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"head": "stat-mlp", "layers": 2},
            "--layers belongs to --head mrnn: .* leave it out",
        ),
        (
            {"head": "stat-linear", "width": 64, "routing": False},
            "--units belongs to --head mrnn, --no-routing belongs to .* leave them out",
        ),
        ({"l2": 0.1}, "--l2 belongs to --head stat-linear or stat-mlp: with --head mrnn"),
    ],
    ids=str,
)
def test_options_that_the_head_would_ignore_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TrainHeadOptions(**given)


def test_without_a_subset_all_groups_of_the_store_are_read(study, tmp_path):
    result = train_head.run(options(study, tmp_path, epochs=1))
    assert result.subset == ["va", "expr", "au"]
    assert "va-expr-au" in result.run


def test_sweep_trains_all_goes_on_and_tabulates(study, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text("lr: [0.001, 0.01]\nsubset: ['va,au', expr]\nseed: [0, 1]\n")
    given = {"grid": grid, "base": options(study, tmp_path)}

    def stop(progress):
        if progress.info.get("runs") == "3/8":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(SweepOptions(**given), stop)
    done = sweep.run(SweepOptions(**given))
    assert (done.kept, done.trained, done.failed, len(done.rows)) == (3, 5, {}, 4)
    assert {row.seeds for row in done.rows} == {2}
    assert done.rows[0].mean == max(row.mean for row in done.rows)
    alone = train_head.run(options(study, tmp_path / "x", lr=0.01, subset=("va", "au"), seed=1))
    name = "lr-0.01_subset-va-au_seed-1"
    notes = json.loads((tmp_path / "grid" / name / "head.json").read_text())
    assert notes["training"]["val_pearson"] == pytest.approx(alone.mean_pearson, abs=1e-9)
    text = (tmp_path / "grid" / "sweep.csv").read_text().splitlines()
    assert text[0] == "lr,subset,mean,sd,seeds"
    assert len(text) == 5
    with pytest.raises(UsageError, match="another sweep, which differs in --epochs;") as kept:
        sweep.run(SweepOptions(grid=grid, base=options(study, tmp_path, epochs=4)))
    # A notebook keeps the last error's frames alive: the folder must be free nevertheless.
    assert kept.tb is not None
    assert sweep.run(SweepOptions(**given)).kept == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ("3", "holds no grid"),
        ("speed: [1]", "speed is no option of train-head"),
        ("store: [a, b]", "store is no option"),
        ("lr: []", "lr has no values"),
        ("lr: [-1]", "lr: Input should be greater than 0"),
        ("lr: [0.1, 0.1]", "names lr-0.1 more than once"),
        ("seed: [" + "1," * 40 + "]\nt: [" + "1," * 40 + "]", "has 1600 points"),
    ],
)
def test_bad_grids(study, tmp_path, text, message):
    grid = tmp_path / "grid.yaml"
    grid.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        sweep.run(SweepOptions(grid=grid, base=options(study, tmp_path)))
    assert "\n" not in str(caught.value)


def test_tensorboard(study, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    train_head.run(options(study, tmp_path, name="one", tensorboard=True))
    assert list((tmp_path / "one" / "tensorboard").glob("events*"))


def test_tensorboard_is_an_extra(study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'feie\[tensorboard\]'"):
        train_head.run(options(study, tmp_path, tensorboard=True))


def test_compound_job(study, tmp_path):
    store = open_store(study / "features.zarr")
    given = {"store": str(study / "features.zarr"), "out": tmp_path / "c.csv"}
    done = compound.run(CompoundOptions(**given))
    assert (done.rows, sum(done.frequencies.values())) == (60, pytest.approx(1))
    rows = (tmp_path / "c.csv").read_text().splitlines()
    video = store["00003"]
    expected = compound_scores(video.affect[video.valid], AFFECT.columns).mean(0)
    cells = rows[4].split(",")
    np.testing.assert_allclose(list(map(float, cells[1:8])), expected, atol=2e-6)
    assert cells[0] == "00003"
    assert cells[8] == list(COMPOUNDS)[expected.argmax()]
    shares = tmp_path / "f.csv"
    lines = [f"{name},{share}" for name, share in done.frequencies.items()]
    shares.write_text("\n".join(["class,frequency", *lines]))
    again = compound.run(CompoundOptions(**given, frames=True, frequencies=shares))
    assert again.divergence == pytest.approx(0, abs=1e-9)
    assert again.rows == int(store.videos.length.sum())
    shares.write_text("class,frequency\nSadly Angry,1")
    with pytest.raises(UsageError, match=r"f\.csv is no CSV with the columns class,frequency"):
        compound.run(CompoundOptions(**given, frequencies=shares))
    for share in ("nan", "-1", "0"):
        shares.write_text("class,frequency\n" + "".join(f"{name},{share}\n" for name in COMPOUNDS))
        with pytest.raises(UsageError, match="holds no frequencies"):
            compound.run(CompoundOptions(**given, frequencies=shares))
