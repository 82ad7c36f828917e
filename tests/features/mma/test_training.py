"""Networks, extractors, and training that goes on after a kill as if nothing had happened."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from feie.features.errors import DataError, MissingWeightsError, UsageError
from feie.features.extractors.load import bundled, load_extractor
from feie.features.mma.config import MmaConfig, find_config, read_config
from feie.features.mma.data.config import PackSource
from feie.features.mma.data.packs import read_pack, read_units
from feie.features.mma.growth import grown
from feie.features.mma.network import MMA_BASE, MMA_LITE, MMANetwork, NetworkConfig
from feie.features.mma.training.sampling import Batch, load_source
from feie.features.mma.training.soft_targets import blended, one_hot
from feie.features.mma.training.trainer import Trainer, opinion
from feie.features.mma.weights import load_weights, save_weights
from feie.features.schema import AFFECT
from feie.pipeline.extractor.train_mma import TrainMmaOptions, _distilled, _Initial, run

TINY = {"stem": [8, 8], "widths": [8, 16], "depths": [1, 1], "embedding": 8, "dropout": 0.3}


def _config(**changes: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "network": TINY,
        "sources": {
            "faces": {"pack": "faces.h5", "proportion": 2, "valence_arousal": "expression"},
            "renders": {"pack": "renders.h5", "proportion": 1, "balance": 0.5},
        },
        "validation": {"faces": {"pack": "faces.h5"}},
        "phases": [{"steps": 4, "size": 32, "batch": 12}, {"steps": 4, "size": 48, "batch": 9}],
        "log_every": 2,
        "validate_every": 2,
    } | changes


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    rng = np.random.default_rng(0)
    for name, side, count in (("faces", 48, 20), ("renders", 112, 10)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            rows = file.create_dataset("jpeg", (count,), h5py.vlen_dtype(np.uint8))
            for i in range(count):
                image = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
                rows[i] = cv2.imencode(".jpg", image)[1].reshape(-1)
            if name == "faces":
                file["expression"] = np.arange(count) % 7
            else:
                file["au"] = rng.random((count, 17))
                file["valence"], file["arousal"] = rng.uniform(-1, 1, (2, count))
    return folder


def _options(folder: Path, out: Path, **changes: object) -> TrainMmaOptions:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "config.yaml"
    path.write_text(yaml.safe_dump(_config(**changes)))
    return TrainMmaOptions(config=path, data_root=(folder,), out=out, threads=1)


class _Stop(Exception):
    pass


def test_a_resumed_run_equals_an_undisturbed_one(packs: Path, tmp_path: Path) -> None:
    whole = run(_options(packs, tmp_path / "whole"))

    def stop(report: object) -> None:
        # Past the checkpoint of step 4: the work of the steps after it is lost.
        if getattr(report, "done", 0) == 6 and getattr(report, "stage", "") == "steps":
            raise _Stop

    options = _options(packs, tmp_path / "cut")
    with pytest.raises(_Stop):
        run(options, stop)
    resumed = run(options)
    assert resumed.steps == whole.steps == 8
    for file in ("tiny.safetensors", "checkpoint.safetensors"):
        ours, theirs = (load_file(tmp_path / name / "stage-1" / file) for name in ("cut", "whole"))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key
    assert resumed.validation == whole.validation
    names = {
        line.split(",")[1]
        for line in (tmp_path / "cut" / "stage-1" / "log.csv").read_text().split()
    }
    assert {"loss", "ccc", "cce", "bce", "dm", "lr", "faces/accuracy"} <= names
    assert cv2.imread(str(tmp_path / "cut" / "stage-1" / "curves.png")) is not None
    assert whole.images["renders"]["aligned"] == 10
    assert whole.images["faces"]["fixed"] == 20


def test_stages_follow_each_other(packs: Path, tmp_path: Path) -> None:
    """The second stage starts from the first one's average; a complete run is not trained again."""
    phases = [{"steps": 2, "size": 32, "batch": 9}]
    longer = [{"steps": 9, "size": 32, "batch": 9}]
    stages = [
        {"phases": longer, "stop_after": 2},
        {"phases": phases, "optimiser": {"lr": 1e-9, "ema": 0}},
    ]
    options = _options(packs, tmp_path, stages=stages)
    result = run(options)
    log = (tmp_path / "stage-1" / "log.csv").read_text().split()
    rates = [float(line.split(",")[2]) for line in log if ",lr," in line]
    assert len(rates) == 1
    assert rates[0] > 1e-3, "a stage that stops early keeps the schedule of the whole"
    first, second = (load_file(tmp_path / f"stage-{n}" / "tiny.safetensors") for n in (1, 2))
    torch.testing.assert_close(second["output.weight"], first["output.weight"], rtol=0, atol=1e-6)
    assert not torch.equal(second["output.bias"], first["output.bias"])
    again = run(options)
    assert again.weights.read_bytes() == result.weights.read_bytes()
    assert load_extractor(str(result.weights)).name == "tiny"

    # A first stage that is gone or has become another one: its successor does not follow from it.
    checkpoint = tmp_path / "stage-1" / "checkpoint.safetensors"
    kept = checkpoint.read_bytes()
    checkpoint.unlink()
    with pytest.raises(DataError, match=r"stage-1 .*stage-2 followed from an earlier one: remove"):
        run(options)
    checkpoint.write_bytes(kept)
    with safe_open(checkpoint, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(checkpoint)
    tensors["average.output.bias"][0] += 1e-3
    save_file(tensors, checkpoint, metadata)
    with pytest.raises(DataError, match=r"other weights than the stage before .* remove .*stage-2"):
        run(options)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_a_network_grows_without_changing_what_it_computes(block: str) -> None:
    torch.manual_seed(3)
    small = MMANetwork(NetworkConfig.model_validate(TINY | {"block": block})).eval()
    for name, value in small.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
    deeper = small.config.model_copy(update={"depths": (2, 3)})
    large = grown(small, deeper).eval()
    x = torch.randn(4, 3, 48, 48)
    for before, after in zip(small(x), large(x), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())
    # What was added can learn: its last scale, which is zero, has a gradient.
    large(x)[1].square().sum().backward()
    scales = [block.branch[-1][1].weight for block in large.trunk[4:] if hasattr(block, "branch")]
    added = [scale for scale in scales if not scale.any()]
    assert len(added) == 3
    assert all(scale.grad is not None and scale.grad.any() for scale in added)
    for wrong in ({"depths": (1, 0)}, {"depths": (1, 2), "widths": (8, 24)}, {"embedding": 9}):
        with pytest.raises(DataError, match="only the depths may grow"):
            grown(small, small.config.model_copy(update=wrong))


def test_a_stage_learns_from_what_it_starts_from(packs: Path, tmp_path: Path) -> None:
    """Self-distillation: targets are blended with the mean over faces and mirror images."""
    stages = [
        {"phases": [{"steps": 2, "size": 40, "batch": 9}]},
        {"phases": [{"steps": 2, "size": 32, "batch": 9}], "network": TINY | {"depths": [1, 2]}},
    ]
    plain = run(_options(packs, tmp_path / "plain", stages=stages))
    stages[1]["losses"] = {"distil": 0.4}
    options = _options(packs, tmp_path / "distilled", stages=stages)
    whole = run(options)
    assert whole.weights.read_bytes() != plain.weights.read_bytes()
    assert load_extractor(str(whole.weights)).name == "tiny"

    first = load_weights(tmp_path / "distilled" / "stage-1" / "tiny.safetensors")
    source = load_source(
        PackSource(pack="faces.h5", proportion=1, valence_arousal="expression"),
        (packs,), None, tmp_path,
    )  # fmt: skip
    distilled = _distilled(source, _Initial(first.network, 40), read_config(options.config)[1])
    faces, _ = source.faces.read(np.arange(20))
    seen = opinion(first.network, faces, 40, "fp32", batch=7)
    images = torch.from_numpy(faces.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    images = F.interpolate(images, size=(40, 40), mode="bilinear", antialias=True)
    with torch.no_grad():
        want = sum(first.network(x)[1][:, 2:9].softmax(1) for x in (images, images.flip(-1))) / 2
    np.testing.assert_allclose(seen, want, atol=1e-5)
    np.testing.assert_allclose(
        distilled.targets, 0.6 * one_hot(source.data.expression, 7) + 0.4 * seen, atol=1e-6
    )
    np.testing.assert_array_equal(distilled.targets, blended(source.targets, seen, 0.4))
    # Weak valence follows the targets; what the draws depend on stays.
    assert not np.array_equal(distilled.data.valence_arousal, source.data.valence_arousal)
    np.testing.assert_array_equal(distilled.data.expression, source.data.expression)
    first_only = _options(packs, tmp_path / "first", losses={"distil": 0.4})
    with pytest.raises(UsageError, match="a first stage starts at random"):
        run(first_only)


def test_a_teacher_fills_in_what_is_not_annotated(packs: Path, tmp_path: Path) -> None:
    guesses = np.full((2, 17), np.nan)
    guesses[0, 9] = 0.25
    with h5py.File(tmp_path / "guesses.h5", "w") as file:
        file["name"], file["au"] = [b"3", b"nobody"], guesses
    source = PackSource(pack="faces.h5", proportion=1, pseudo_units="guesses.h5")
    loaded = load_source(source, (packs, tmp_path), None, tmp_path)
    assert np.argwhere(~np.isnan(loaded.data.units)).tolist() == [[3, 9]]
    annotated = source.model_copy(update={"pack": "renders.h5"})
    loaded = load_source(annotated, (packs, tmp_path), None, tmp_path)
    np.testing.assert_array_equal(loaded.data.units, read_pack(packs / "renders.h5").units)
    with h5py.File(tmp_path / "guesses.h5", "w") as file:
        file["name"], file["au"] = [b"one", b"two"], guesses
    with pytest.raises(DataError, match=r"guesses\.h5 names no image of faces\.h5"):
        load_source(source, (packs, tmp_path), None, tmp_path)
    with pytest.raises(DataError, match="needs the datasets 'name' and 'au'"):
        read_units(packs / "faces.h5")


def test_a_killed_run_goes_on(packs: Path, tmp_path: Path) -> None:
    """SIGKILL at some instant of a run, then the same command again: the same bytes come out."""
    phases = [{"steps": 100, "size": 32, "batch": 6}]
    changes = {"phases": phases, "validate_every": 10}
    options = _options(packs, tmp_path / "run", **changes)
    code = (
        "import sys; from feie.pipeline.extractor.train_mma import *; "
        "run(TrainMmaOptions.model_validate_json(sys.argv[1]))"
    )
    checkpoint = tmp_path / "run" / "stage-1" / "checkpoint.safetensors"
    job = subprocess.Popen([sys.executable, "-c", code, options.model_dump_json()])
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    trainer = Trainer(*read_config(options.config))
    trainer.restore(checkpoint)
    assert trainer.step % 10 == 0
    assert 0 < trainer.step < 100
    log = tmp_path / "run" / "stage-1" / "log.csv"
    with log.open("a") as file:
        file.write("39")  # as if the kill had cut a line
    resumed = run(options)
    whole = run(_options(packs, tmp_path / "whole", **changes))
    assert resumed.validation == whole.validation
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    steps = [int(line.split(",")[0]) for line in log.read_text().split()[1:]]
    assert steps == sorted(steps)


def test_checkpoints_of_other_runs_are_refused(packs: Path, tmp_path: Path) -> None:
    run(_options(packs, tmp_path, phases=[{"steps": 1, "size": 32, "batch": 6}]))
    with pytest.raises(DataError, match="another configuration"):
        run(_options(packs, tmp_path, phases=[{"steps": 2, "size": 32, "batch": 6}]))
    (tmp_path / "stage-1" / "checkpoint.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read"):
        run(_options(packs, tmp_path))
    with pytest.raises(DataError, match=r"faces\.h5 is in none of the data roots"):
        run(_options(tmp_path, tmp_path / "elsewhere"))


def test_configurations_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for missing in (path, find_config(Path("mma-bose"))):
        with pytest.raises(UsageError, match=r"no training .* with feie: mma-base, va-expr8$"):
            read_config(missing)
    for changes, message in (
        ({"colour": 1}, "colour: Extra"),
        ({"network": "mma-huge"}, "unknown network 'mma-huge'; known: mma-lite, mma-base"),
        ({"network": {"like": "mma-lite", "outputs": "va"}}, "unknown outputs 'va'; known: affect"),
        ({"network": TINY | {"outputs": {"va": ["arousal"]}}}, "must be valence, arousal"),
        ({"network": TINY | {"outputs": {"mood": ["good"]}}}, "of the groups va, expr, au"),
        ({"network": TINY | {"outputs": {"expr": 8}}}, "'expr' must be a list of names"),
        ({"network": TINY | {"outputs": {"expr": ["fear", "fear"]}}}, "column names repeat"),
        ({"losses": {"positive": 0}}, "positive: Input should be greater than 0"),
        ({"phases": [{"steps": 0, "size": 32, "batch": 4}]}, r"phases\.0\.steps"),
        ({"stages": []}, "stages: each must be a mapping, and there must be one"),
        ({"stages": [{}, "second"]}, "stages: each must be a mapping"),
        ({"name": "../up"}, "name: String should match"),
        ({"name": "checkpoint"}, "the place of the checkpoint"),
        ({"seed": 2**31}, "seed: Input should be less"),
        ({"network": TINY | {"widths": [8, 0]}}, r"network\.widths\.1: Input should be greater"),
        ({"network": TINY | {"stem": [-8]}}, r"network\.stem\.0: Input should be greater"),
        ({"sources": {"a": {"pack": "a.h5", "proportion": math.inf}}}, "be a finite number"),
        (
            {
                "sources": {
                    "a": {"pack": "a.h5", "proportion": 99},
                    "few": {"pack": "b.h5", "proportion": 1},
                }
            },
            "source 'few' would never be drawn in batches of 12",
        ),
    ):
        path.write_text(yaml.safe_dump(_config(**changes)))
        with pytest.raises(UsageError, match=message):
            read_config(path)
    for content in (b"a: [", b"name: caf\xe9"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="is not YAML"):
            read_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path)


def _batch(n: int, size: int) -> Batch:
    rng = np.random.default_rng(n)
    return Batch(
        torch.from_numpy(rng.uniform(-1, 1, (n, 3, size, size)).astype(np.float32)),
        torch.from_numpy(one_hot(rng.integers(-1, 7, n), 7)),
        torch.from_numpy(rng.uniform(-1, 1, (n, 2)).astype(np.float32)),
        torch.from_numpy(rng.random((n, 17)).astype(np.float32)),
    )


@pytest.mark.parametrize(
    ("network", "low", "high"), [(MMA_LITE, 1e6, 2.5e6), (MMA_BASE, 23e6, 27e6)]
)
def test_both_networks_train_and_export(
    network: NetworkConfig, low: float, high: float, tmp_path: Path
) -> None:
    config = MmaConfig.model_validate(_config(network=network))
    trainer = Trainer(config)
    assert low < sum(p.numel() for p in trainer.network.parameters()) < high
    before = [p.clone() for p in trainer.network.parameters()]
    for _ in range(2):
        losses = trainer.advance(_batch(4, 32))
        assert np.isfinite(list(losses.values())).all()
    moved = [
        not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True)
    ]
    assert all(moved)
    path = tmp_path / "w.safetensors"
    save_weights(path, "w", trainer.average, 32, {})
    faces = np.random.default_rng(0).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    extraction = load_extractor(str(path))(faces)
    assert extraction.embedding is not None
    assert extraction.embedding.shape == (3, network.embedding)
    # Kernels are stored as float16, and batch norm is folded in.
    np.testing.assert_allclose(extraction.affect, trainer.predict(faces, 32), atol=5e-3)


def test_fp16_scales_the_loss_and_survives_an_overflow(tmp_path: Path) -> None:
    """On a CPU what a GPU runs: a step with infinite gradients is skipped, and its scale halved."""
    config = MmaConfig.model_validate(_config(precision="fp16"))
    trainer = Trainer(config)
    trainer._scaler.load_state_dict(trainer._scaler.state_dict() | {"scale": 2.0**60})
    before = [p.clone() for p in trainer.network.parameters()]
    trainer.advance(_batch(4, 32))
    pairs = zip(before, trainer.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert trainer._scaler.get_scale() == 2.0**59
    trainer._scaler.update(2.0**10)
    path = tmp_path / "checkpoint.safetensors"
    trainer.save(path)
    trainer.advance(_batch(4, 32))
    pairs = zip(before, trainer.network.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)
    again = Trainer(config)
    again.restore(path)
    assert again._scaler.state_dict()["scale"] == 2.0**10
    again.advance(_batch(4, 32))
    for ours, theirs in zip(again.network.parameters(), trainer.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_on_a_gpu(packs: Path, tmp_path: Path, precision: str) -> None:
    options = _options(packs, tmp_path, precision=precision)
    result = run(options.model_copy(update={"device": "cuda"}))
    assert result.steps == 8
    faces = np.random.default_rng(0).integers(0, 255, (8, 112, 112, 3), dtype=np.uint8)
    want = load_extractor(str(result.weights))(faces).affect
    for half, tolerance in (("fp32", 2e-3), (precision, 3e-2)):
        for compiled in (False, True):
            extractor = load_extractor(str(result.weights), "cuda", half, compiled)
            np.testing.assert_allclose(extractor(faces).affect, want, atol=tolerance)


def test_precision_is_checked_against_the_device(packs: Path, tmp_path: Path) -> None:
    options = _options(packs, tmp_path, precision="fp16").model_copy(update={"device": "cpu"})
    with pytest.raises(UsageError, match="precision fp16 is for CUDA"):
        run(options)
    with pytest.raises(UsageError, match="precision fp16 is for CUDA"):
        load_extractor(precision="fp16")
    with pytest.raises(UsageError, match="device 'cuda:97' is not usable here"):
        run(options.model_copy(update={"device": "cuda:97"}))


def test_an_unlabelled_batch_trains_by_matching_alone() -> None:
    trainer = Trainer(MmaConfig.model_validate(_config()))
    batch = Batch(
        torch.randn(6, 3, 32, 32),
        torch.full((6, 7), torch.nan),
        torch.full((6, 2), torch.nan),
        torch.full((6, 17), torch.nan),
    )
    losses = trainer.advance(batch)
    assert losses["ccc"] == losses["cce"] == losses["bce"] == 0
    assert losses["dm"] > 0
    assert losses["loss"] == pytest.approx(losses["dm"])
    assert all(torch.isfinite(p).all() for p in trainer.network.parameters())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with the bundled shape and lively batch norms, untrained."""
    torch.manual_seed(0)
    network = MMANetwork(MMA_LITE)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(path, "w", network, 80, {})
    return path


def test_a_face_does_not_depend_on_its_batch(weights: Path) -> None:
    """In batches of one fixed size a face's result is the same to the bit, wherever it lies."""
    extractor = load_extractor(str(weights))
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 255, (40, 112, 112, 3), dtype=np.uint8)
    for size in (16, 33):
        base = extractor(faces[:size])
        assert base.affect.dtype == np.float32
        assert base.affect.shape == (size, len(extractor.schema)) == (size, len(AFFECT))
        assert base.embedding is not None
        assert base.embedding.dtype == np.float16
        assert base.embedding.shape == (size, extractor.embedding_dim)
        order = rng.permutation(size)
        shuffled = extractor(faces[:size][order])
        np.testing.assert_array_equal(shuffled.affect, base.affect[order])
        np.testing.assert_array_equal(shuffled.embedding, base.embedding[order])
        padded = np.zeros((size, 112, 112, 3), np.uint8)
        padded[:5] = faces[:5]
        np.testing.assert_array_equal(extractor(padded).affect[:5], base.affect[:5])


def test_extractor_ranges_identity_and_input(weights: Path) -> None:
    extractor = load_extractor(str(weights))
    assert extractor.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    faces = np.random.default_rng(1).integers(0, 255, (8, 112, 112, 3), dtype=np.uint8)
    affect = extractor(faces).affect
    assert np.abs(affect[:, :2]).max() <= 1
    np.testing.assert_allclose(affect[:, 2:9].sum(axis=1), 1, atol=1e-6)
    assert ((affect[:, 9:] >= 0) & (affect[:, 9:] <= 1)).all()
    assert extractor(faces[:0]).affect.shape == (0, 26)
    for wrong in (faces[:, :64], faces.astype(np.float32), faces[0]):
        with pytest.raises(UsageError, match="takes uint8 faces"):
            extractor(wrong)


def test_half_precision_changes_little_and_fp32_is_the_default() -> None:
    faces = np.random.default_rng(3).integers(0, 255, (4, 112, 112, 3), dtype=np.uint8)
    exact = load_extractor()(faces)
    np.testing.assert_array_equal(load_extractor(precision="fp32")(faces).affect, exact.affect)
    half = load_extractor(precision="bf16")(faces)
    assert half.affect.dtype == np.float32
    assert 0 < np.abs(half.affect - exact.affect).max() < 0.05


def test_folding_batch_norm_changes_nothing_that_matters(weights: Path) -> None:
    network = MMANetwork(MMA_LITE)
    network.load_state_dict(load_file(weights))
    network.eval()
    faces = np.random.default_rng(2).integers(0, 255, (4, 112, 112, 3), dtype=np.uint8)
    x = torch.from_numpy(faces).permute(0, 3, 1, 2).double() / 127.5 - 1
    with torch.inference_mode():
        small = F.interpolate(x, size=(80, 80), mode="bilinear", antialias=True)
        _, raw = network.double()(small)
    affect = load_extractor(str(weights))(faces).affect
    np.testing.assert_allclose(affect[:, :2], np.tanh(raw[:, :2].numpy()), atol=1e-4)


def test_bad_weights_are_one_clear_error(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="no weights at"):
        load_extractor(str(tmp_path / "none.safetensors"))
    path = tmp_path / "bad.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="no readable safetensors"):
        load_extractor(str(path))
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="holds no MMA weights"):
        load_extractor(str(path))
    with safe_open(weights, framework="pt") as file:
        good = file.metadata()
    tensors = load_file(weights)
    for changes, message in (
        ({"columns": "{"}, "is damaged"),
        ({"columns": "5"}, "is damaged"),
        ({"columns": '["valence"]'}, "are not the outputs of its network"),
        ({"network": "{}"}, "is damaged"),
        ({"size": "0"}, r"size 0 is outside \[32, 112\]"),
        ({"size": "1000"}, "size 1000 is outside"),
        ({"size": "big"}, "is damaged"),
    ):
        save_file(tensors, path, good | changes)
        with pytest.raises(DataError, match=message):
            load_extractor(str(path))
    tensors["output.bias"][3] = torch.nan
    save_file(tensors, path, good)
    with pytest.raises(DataError, match="not finite"):
        load_extractor(str(path))


def test_devices_are_tried_before_they_are_used(weights: Path) -> None:
    for device in ("nonsense", "meta", "cuda:97", "cuda:x"):
        with pytest.raises(UsageError, match=f"device '{device}' is not usable here"):
            load_extractor(str(weights), device)
    usable = "cuda" if torch.cuda.is_available() else "cpu"
    assert load_extractor(str(weights), "auto").device == usable
    assert load_extractor(str(weights)).device == "cpu"


def test_weights_are_written_the_same_and_for_everyone(weights: Path, tmp_path: Path) -> None:
    network = MMANetwork(NetworkConfig.model_validate(TINY))
    notes = {f"note {i}": "é" * i for i in range(9)}
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    before = os.umask(0o022)
    try:
        for path in paths:
            save_weights(path, "tiny", network, 64, notes)
    finally:
        os.umask(before)
    assert len({path.read_bytes() for path in paths}) == 1
    if os.name == "posix":
        assert paths[0].stat().st_mode & 0o777 == 0o644
    with safe_open(paths[0], framework="pt") as file:
        assert notes.items() <= file.metadata().items()
    stored = load_file(paths[0])
    for key, value in network.state_dict().items():
        assert torch.equal(stored[key], value.half() if value.ndim > 1 else value)


def test_the_bundled_weights_are_small_and_honest() -> None:
    assert "mma-lite" in bundled()
    extractor = load_extractor()
    assert (extractor.name, extractor.crop.size, extractor.schema) == ("mma-lite", 112, AFFECT)
    folder = Path(sys.modules["feie.features.extractors.load"].__file__ or "").parent / "weights"
    assert (folder / "mma-lite.safetensors").stat().st_size < 6e6
    card = (folder / "mma-lite.md").read_text()
    assert extractor.sha256 in card
    stages = read_config(folder / "mma-lite.yaml")
    assert {config.name for config in stages} == {"mma-lite"}
    assert stages[-1].network == MMA_LITE
