"""Networks with columns of their own: the recipe of [S], from labels to a trained head."""

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import yaml
from safetensors import safe_open

from feie.features.extractors.load import load_extractor
from feie.features.mma.config import MmaConfig, find_config, read_config
from feie.features.mma.data.config import PackSource, PartConfig
from feie.features.mma.data.packs import read_pack
from feie.features.mma.network import MMA_BASE, NetworkConfig
from feie.features.mma.training.objective import rarity_weights
from feie.features.mma.training.sampling import load_source
from feie.features.schema import AFFECT, EXPRESSIONS, VA_EXPR8
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.pipeline.extract import job as extract
from feie.pipeline.extractor import evaluate_mma, train_mma
from feie.pipeline.train import job as train_head

CONFIG = {
    "name": "eight",
    "network": {
        "stem": [8, 8],
        "widths": [8, 16],
        "depths": [1, 1],
        "embedding": 8,
        "outputs": "va-expr8",
    },
    "sources": {"faces": {"pack": "faces.h5", "proportion": 1}},
    "validation": {"faces": {"pack": "faces.h5"}},
    "phases": [{"steps": 60, "size": 32, "batch": 24}],
    "losses": {"class_weights": "rarity"},
    "optimiser": {"lr": 1e-2, "ema": 0.9},
    "augment": {"light": 0, "grey": 0, "cutout": 0, "noise": 0, "rotate": 0},
    "log_every": 20,
    "validate_every": 60,
}
LABELS = ("contempt",) * 6 + ("happiness",) * 24 + ("fear",) * 18
HALF = PartConfig(held_out=0.5, keep="train")
LEVELS = {"contempt": 230, "happiness": 130, "fear": 30}


def _face(label: str, rng: np.random.Generator) -> np.ndarray:
    """As many made-up faces as one likes: the expression is how bright they are."""
    return rng.integers(LEVELS[label] - 20, LEVELS[label] + 20, (112, 112, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    rng = np.random.default_rng(0)
    with h5py.File(folder / "faces.h5", "w") as file:
        file["images"] = np.stack([_face(label, rng) for label in LABELS])
        file["expression"] = [label.encode() for label in LABELS]
        file["valence"] = [LEVELS[label] / 128 - 1 for label in LABELS]
        file["arousal"] = rng.uniform(-1, 1, len(LABELS))
    (folder / "eight.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(scope="module")
def weights(data: Path) -> Path:
    options = train_mma.TrainMmaOptions(
        config=data / "eight.yaml", data_root=(data,), out=data / "run", device="cpu", threads=1
    )
    result = train_mma.run(options)
    assert result.images["faces"]["expression"] == len(LABELS)
    assert result.images["faces"]["outside"] == 0
    return result.weights


def test_contempt_is_learnt_where_it_is_an_output(data: Path, weights: Path) -> None:
    options = evaluate_mma.EvaluateMmaOptions(
        data=data / "faces.h5", extractor=str(weights), repeats=0
    )
    scores = evaluate_mma.run(options)
    assert (scores.n_expression, scores.outside) == (len(LABELS), {})
    assert scores.recall["contempt"] > 0.8
    assert scores.au_f1_mean is None
    assert scores.ccc_valence is not None
    assert scores.ccc_valence > 0.5
    bundled = evaluate_mma.run(options.model_copy(update={"extractor": "mma-lite"}))
    assert bundled.outside == {"contempt": 6}
    assert bundled.n_expression == len(LABELS) - 6
    assert "contempt" not in bundled.confusion
    log = (data / "run" / "stage-1" / "log.csv").read_text()
    assert {line.split(",")[1] for line in log.split()[1:] if "/" not in line} == {
        "loss", "ccc", "cce", "lr"
    }  # fmt: skip


def test_the_file_says_which_columns_it_gives(weights: Path) -> None:
    with safe_open(weights, framework="np") as file:
        metadata = file.metadata()
    assert yaml.safe_load(metadata["columns"]) == list(VA_EXPR8.columns)
    assert yaml.safe_load(metadata["groups"]) == {"va": [0, 2], "expr": [2, 10]}
    extractor = load_extractor(str(weights))
    assert extractor.schema == VA_EXPR8
    assert VA_EXPR8.columns[2:] == (
        "neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "contempt"
    )  # fmt: skip
    affect = extractor(np.zeros((2, 112, 112, 3), np.uint8)).affect
    assert affect.shape == (2, 10)
    np.testing.assert_allclose(affect[:, 2:].sum(axis=1), 1, atol=1e-6)


def test_stage_one_and_a_head_run_on_it(data: Path, weights: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = ["id,split,liking"]
    for video in range(8):
        folder = tmp_path / "videos" / f"v{video}"
        folder.mkdir(parents=True)
        label = ("contempt", "happiness", "fear")[video % 3]
        for frame in range(3 + video):
            cv2.imwrite(str(folder / f"{frame:05d}.png"), _face(label, rng))
        rows.append(f"v{video},{'train' if video < 5 else 'val'},{video / 8}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    store = tmp_path / "s.zarr"
    given = {"videos": tmp_path / "videos", "store": store, "faces": "aligned", "device": "cpu"}
    extract.run(extract.ExtractOptions(**given, extractor=str(weights), embedding=True))
    opened = open_store(store)
    assert opened.schema == VA_EXPR8
    assert opened["v0"].affect[:, VA_EXPR8.columns.index("contempt")].min() > 0.5
    assert opened["v1"].affect[:, VA_EXPR8.columns.index("contempt")].max() < 0.5
    assert check_store(store) == []
    options = train_head.TrainHeadOptions(
        store=str(store),
        labels=tmp_path / "labels.csv",
        subset=("va", "expr"),
        runs=tmp_path / "runs",
        epochs=1,
        batch=4,
        t=16,
    )
    result = train_head.run(options)
    assert (result.n_train, result.n_val, result.epochs) == (5, 3, 1)


def test_weights_follow_the_labels(data: Path) -> None:
    """max N / N_y from the labels; 0 for what never occurs; draws count, not files."""
    config = read_config(data / "eight.yaml")[0]
    sources = {"faces": load_source(config.sources["faces"], (data,), None, data, VA_EXPR8)}
    weights = dict(zip(VA_EXPR8.group("expr"), rarity_weights(config, sources), strict=True))
    want = {"contempt": 24 / 6, "happiness": 1.0, "fear": 24 / 18}
    assert weights == pytest.approx({name: want.get(name, 0.0) for name in weights})
    balanced = PackSource(pack="faces.h5", proportion=3, balance=1, part=HALF)
    both = config.model_copy(update={"sources": {"a": config.sources["faces"], "b": balanced}})
    loaded = {k: load_source(v, (data,), None, data, VA_EXPR8) for k, v in both.sources.items()}
    weights = dict(zip(VA_EXPR8.group("expr"), rarity_weights(both, loaded), strict=True))
    shares = {"contempt": 6 / 48 + 3 / 3, "happiness": 24 / 48 + 3 / 3, "fear": 18 / 48 + 3 / 3}
    for name, share in shares.items():
        assert weights[name] == pytest.approx(shares["happiness"] / share, rel=1e-5)


def test_outputs_are_part_of_the_network() -> None:
    """They survive JSON; weights that do not say have the affect vector."""
    shape = {"stem": [8], "widths": [8], "depths": [1], "embedding": 8}
    assert NetworkConfig.model_validate(shape).outputs == AFFECT
    for outputs in ("va-expr8", {"expr": ["happiness", "other"], "va": ["valence", "arousal"]}):
        config = NetworkConfig.model_validate(shape | {"outputs": outputs})
        assert NetworkConfig.model_validate_json(config.model_dump_json()) == config
    assert config.outputs.columns == ("valence", "arousal", "happiness", "other")
    like = {"like": "mma-base", "outputs": "va-expr8", "embedding": 32}
    network = MmaConfig.model_validate(CONFIG | {"network": like}).network
    assert (network.outputs, network.embedding, network.block) == (VA_EXPR8, 32, "bottleneck")


def test_the_recipes_come_with_feie() -> None:
    (eight,) = read_config(find_config(Path("va-expr8")))
    assert (eight.network.outputs, eight.losses.class_weights) == (VA_EXPR8, "rarity")
    (base,) = read_config(find_config(Path("mma-base")))
    assert (base.network, base.losses.class_weights) == (MMA_BASE, "equal")


def test_labels_go_by_name(data: Path) -> None:
    pack = read_pack(data / "faces.h5")
    source = PackSource(pack="faces.h5", proportion=1)
    seven = load_source(source, (data,), None, data)
    np.testing.assert_array_equal(seven.data.expression, pack.expression)
    assert (seven.data.expression[:6] == -1).all()
    eight = load_source(source, (data,), None, data, VA_EXPR8)
    assert (eight.data.expression[:6] == len(EXPRESSIONS)).all()
    np.testing.assert_array_equal(eight.data.expression[6:], pack.expression[6:])
