"""Votes of several people: read, learnt as soft targets, and judged by."""

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import yaml

from feie.features.errors import DataError, UsageError
from feie.features.extractors.load import load_extractor
from feie.features.mma.augment import AugmentConfig, augment, equalised
from feie.features.mma.config import MmaConfig, read_config
from feie.features.mma.data.config import PackSource
from feie.features.mma.data.crops import pack_faces
from feie.features.mma.data.packs import read_pack
from feie.features.mma.data.targets import relabel
from feie.features.mma.data.votes import vote_targets, voted
from feie.features.mma.network import MMANetwork, NetworkConfig
from feie.features.mma.scoring.metrics import calibration_error
from feie.features.mma.scoring.scores import RARE, score_pack
from feie.features.mma.training.sampling import Mixture, load_source
from feie.features.mma.training.soft_targets import (
    WEAK_VALENCE_AROUSAL,
    drawn_labels,
    with_intensity,
)
from feie.features.mma.weights import load_weights, save_weights
from feie.features.schema import ACTION_UNITS, AFFECT, EXPRESSIONS, VA_EXPR8
from feie.pipeline.extractor.evaluate_mma import EvaluateMmaOptions
from feie.pipeline.extractor.evaluate_mma import run as evaluate
from feie.pipeline.extractor.train_mma import TrainMmaOptions, run

CLASSES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
           "unknown", "NF")  # fmt: skip
NAMES = (*CLASSES[:-1], "nf")
TINY = {"stem": [8, 8], "widths": [8, 16], "depths": [1, 1], "embedding": 8, "dropout": 0.3}
Write = Callable[..., Path]


def _votes(rows: int, seed: int = 0) -> np.ndarray:
    """Ten votes a row, some of a single person, some led by what is no expression, some tied."""
    rng = np.random.default_rng(seed)
    lean = rng.dirichlet(np.full(len(CLASSES), 0.4), rows)
    votes = np.stack([rng.multinomial(10, p) for p in lean]).astype(np.uint8)
    votes[0], votes[1] = 0, 1
    votes[2] = [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    votes[3] = [4, 0, 0, 0, 1, 0, 0, 4, 1, 0]
    votes[4] = [1, 0, 0, 1, 0, 2, 0, 6, 0, 0]
    return votes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(votes: object, classes: object = CLASSES, name: str = "p.h5", **rest: object) -> Path:
        count = len(rest["expression"]) if "expression" in rest else len(votes)
        rng = np.random.default_rng(count)
        with h5py.File(tmp_path / name, "w") as file:
            rows = file.create_dataset("jpeg", (count,), h5py.vlen_dtype(np.uint8))
            for i in range(count):
                low = rng.integers(0, 128)
                face = rng.integers(low, low + 90, (48, 48, 3), dtype=np.uint8)
                rows[i] = cv2.imencode(".png", face)[1].reshape(-1)
            file["votes"] = votes
            if classes is not None:
                file["votes"].attrs["classes"] = classes
            for column, values in rest.items():
                file[column] = values
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("votes", "classes", "message"),
    [
        (np.ones((3, 2)), None, "'votes' needs an attribute 'classes'"),
        (np.ones((3, 0)), [], "'votes' needs an attribute 'classes'"),
        (np.ones((3, 2)), ["fear"], r"holds float64 \(3, 2\), expected numbers \(3, 1\)"),
        (np.ones((2, 2)), ["fear", "anger"], r"\(2, 2\), expected numbers \(3, 2\)"),
        (np.ones(3), ["fear"], r"\(3,\), expected numbers \(3, 1\)"),
        (np.full((3, 1), b"two"), ["fear"], "expected numbers"),
        ([[1], [-1], [2]], ["fear"], "negative or missing counts"),
        ([[1], [np.nan], [2]], ["fear"], "negative or missing counts"),
        ([[1], [np.inf], [2]], ["fear"], "negative or missing counts"),
        (np.ones((3, 2)), ["happy", "happiness"], "names a class twice: happy, happiness"),
    ],
)
def test_votes_that_cannot_be_right(
    write: Write, votes: object, classes: object, message: str
) -> None:
    path = write(votes, classes, expression=[0, 1, 2])
    with pytest.raises(DataError, match=message) as error:
        read_pack(path)
    assert str(error.value).startswith(str(path))


def test_votes_are_read_by_any_name_and_type(write: Write) -> None:
    assert read_pack(write(np.ones((2, 1)), ["fear"])).votes.dtype == np.float32
    pack = read_pack(write([[3, 0], [0, 2]], [b"Happy", b"Scared"]))
    assert pack.vote_classes == ("happiness", "fear")
    np.testing.assert_array_equal(pack.select(np.array([1])).votes, [[0, 2]])


def test_what_has_no_label_is_called_what_most_say(write: Write) -> None:
    """A label that is there stands, whatever the votes; of equals the first; one vote is none."""
    votes = np.zeros((6, len(CLASSES)), np.uint8)
    votes[0, [0, 1]] = 5
    votes[1, [7, 0]] = 6, 4
    votes[2, [8, 0]] = 6, 4
    votes[3, 4] = 1
    votes[4, 3] = 9
    votes[5, 9] = 9
    alone = read_pack(write(votes))
    assert alone.codes == "names"
    assert alone.expression.tolist() == [0, -1, -1, -1, 5, -1]
    assert alone.outside == {"contempt": 1}
    labels = np.array([b"fear", b"", b"", b"", b"contempt", b"anger"], dtype=object)
    both = read_pack(write(votes, expression=labels))
    assert both.expression.tolist() == [3, -1, -1, -1, -1, 1]
    assert both.outside == {"contempt": 2}
    eight = relabel(both, VA_EXPR8)
    assert eight.expression[1] == VA_EXPR8.group("expr").index("contempt")
    assert voted(np.zeros((1, 2), np.float32), ("fear", "anger")) == [""]


def _slow_targets(row: np.ndarray, names: tuple[str, ...], majority: bool) -> list[float]:
    """One row in plain Python, from the words of the rule."""
    counted = {name: float(n) for name, n in zip(NAMES, row, strict=True) if n >= 2}
    ours = {name: n for name, n in counted.items() if name in names}
    if not ours or max(ours.values()) < max(counted.values()):
        return [math.nan] * len(names)
    if majority:
        ours = {name: 1.0 for name, n in ours.items() if n == max(ours.values())}
    return [ours.get(name, 0.0) / sum(ours.values()) for name in names]


@pytest.mark.parametrize("names", [EXPRESSIONS, VA_EXPR8.group("expr"), ("fear", "calm")])
@pytest.mark.parametrize("majority", [False, True])
def test_targets_equal_a_loop_over_rows(names: tuple[str, ...], majority: bool) -> None:
    votes = _votes(400)
    got = vote_targets(votes.astype(np.float32), NAMES, names, majority)
    want = [_slow_targets(row, names, majority) for row in votes]
    np.testing.assert_allclose(got, want, atol=1e-6)
    if names == EXPRESSIONS:
        assert np.isnan(got[[0, 1, 4]]).all()
        np.testing.assert_allclose(got[2], np.isin(EXPRESSIONS, ["neutral", "happiness"]) / 2)
        # Contempt is as often said as neutral, which leads with it: its votes are dropped.
        np.testing.assert_allclose(got[3], np.array(EXPRESSIONS) == "neutral")


def test_labels_are_drawn_as_often_as_they_were_voted() -> None:
    targets = np.array([[0.0, 0.25, 0.75, 0.0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float32)
    grid = (np.arange(1000) + 0.5) / 1000
    for row in targets:
        drawn = drawn_labels(np.tile(row, (1000, 1)), grid)
        assert (drawn.sum(axis=1) == 1).all()
        np.testing.assert_allclose(drawn.mean(axis=0), row, atol=1e-3)
    for edge in (0.0, np.nextafter(1.0, 0.0)):
        drawn = drawn_labels(targets, np.full(3, edge))
        assert (drawn <= np.ceil(targets)).all()  # what nobody voted for is never drawn
    assert np.isnan(drawn_labels(np.full((1, 4), np.nan, np.float32), np.array([0.5]))).all()


def test_weak_valence_follows_the_face_by_hand() -> None:
    units = np.zeros((5, len(ACTION_UNITS)), np.float32)
    smile, brow, frown = (ACTION_UNITS.index(n) for n in ("AU12", "AU04", "AU15"))
    units[0, smile] = 1.0
    units[1, [brow, frown]] = 0.8, 0.4
    units[2, brow] = np.nan
    weak = np.array([[0.8, 0.3], [-0.5, 0.6], [0.8, 0.3], [np.nan, np.nan], [0, 0]], np.float32)
    got = with_intensity(weak, units, 0.25)
    np.testing.assert_allclose(got[:, 0], [0.85, -0.525, 0.8, np.nan, 0], atol=1e-6)
    np.testing.assert_array_equal(got[:, 1], weak[:, 1])
    np.testing.assert_array_equal(with_intensity(weak, units, 0.0), weak)


def test_equalised_pictures_are_what_opencv_makes_of_each_channel() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(90, 140, (48, 48, 1), dtype=np.uint8)
    want = cv2.equalizeHist(grey)
    np.testing.assert_array_equal(equalised(grey)[..., 0], want)
    for channel in range(3):  # a grey picture stays grey
        np.testing.assert_array_equal(equalised(grey.repeat(3, axis=2))[..., channel], want)
    colour = np.stack([rng.integers(low, low + 60, (48, 48)) for low in (120, 60, 80)], 2)
    done = equalised(colour.astype(np.uint8))
    luminance = cv2.cvtColor(colour.astype(np.uint8), cv2.COLOR_RGB2YCrCb)[..., 0]
    inside = ((done > 0) & (done < 255)).all(axis=2)  # elsewhere a colour was cut off
    off = cv2.cvtColor(done, cv2.COLOR_RGB2YCrCb)[..., 0].astype(int) - cv2.equalizeHist(luminance)
    assert np.abs(off[inside]).max() <= 2
    always = AugmentConfig.model_validate(
        dict.fromkeys(AugmentConfig.model_fields.keys() - {"quality"}, 0) | {"equalise": 1}
    )
    face = grey.repeat(3, axis=2)
    changed = augment(face[None], 48, always, np.random.default_rng(0))
    np.testing.assert_allclose((changed[0, 0].numpy() + 1) * 127.5, want[:, :], atol=1e-3)


def test_quality_of_jpeg_is_a_rising_pair() -> None:
    for quality in ((70, 15), (0, 50), (50, 102), (50, 50)):
        with pytest.raises(ValueError, match="lowest and highest JPEG quality"):
            AugmentConfig(quality=quality)
    faces = np.random.default_rng(0).integers(0, 255, (1, 112, 112, 3), dtype=np.uint8)
    off = dict.fromkeys(AugmentConfig.model_fields.keys() - {"quality"}, 0)
    errors = []
    for quality in ((3, 4), (60, 61), (97, 98)):
        config = AugmentConfig.model_validate(off | {"compress": 1, "quality": quality})
        done = augment(faces, 112, config, np.random.default_rng(0))[0].permute(1, 2, 0)
        errors.append(float(np.abs(done.numpy() * 127.5 + 127.5 - faces[0]).mean()))
    assert errors[0] > errors[1] > errors[2]


def _slow_error(probability: np.ndarray, shares: np.ndarray, bins: int) -> float:
    found: dict[int, list[tuple[float, float]]] = {}
    for row, share in zip(probability, shares, strict=True):
        said = max(range(len(row)), key=lambda k: row[k])
        place = min(max(math.ceil(row[said] * bins) - 1, 0), bins - 1)
        found.setdefault(place, []).append((row[said], share[said]))
    error = 0.0
    for pairs in found.values():
        confidence = sum(p for p, _ in pairs) / len(pairs)
        agreement = sum(q for _, q in pairs) / len(pairs)
        error += len(pairs) / len(probability) * abs(agreement - confidence)
    return error


def test_calibration_against_votes_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    probability, shares = rng.dirichlet(np.full(7, 0.3), (2, 300))
    for bins in (1, 15):
        want = _slow_error(probability, shares, bins)
        assert calibration_error(probability, shares, bins) == pytest.approx(want)
    labels = rng.integers(0, 7, 300)
    sharp = np.eye(7)[labels]
    assert calibration_error(probability, labels) == pytest.approx(
        _slow_error(probability, sharp, 15)
    )
    assert calibration_error(shares, shares) == pytest.approx(0)
    assert math.isnan(calibration_error(np.empty((0, 7)), np.empty((0, 7))))


def test_evaluate_judges_by_votes(write: Write, untrained: Path, tmp_path: Path) -> None:
    """Every figure again, row by row, from what the extractor says of each face."""
    votes = _votes(60, seed=3)
    path = write(votes)
    options = EvaluateMmaOptions(data=path, extractor=str(untrained), repeats=10, device="cpu")
    result = evaluate(options)
    affect = load_extractor(str(untrained), "cpu")(pack_faces(read_pack(path))[0]).affect
    columns = [AFFECT.columns.index(name) for name in EXPRESSIONS]
    rows, hits = [], {name: [] for name in EXPRESSIONS}
    for row, values in zip(votes, affect[:, columns], strict=True):
        target = _slow_targets(row, EXPRESSIONS, majority=False)
        label = NAMES[int(row.argmax())] if row.max() >= 2 else ""
        if label not in EXPRESSIONS:
            continue
        hits[label].append(EXPRESSIONS[int(values.argmax())] == label)
        rows.append((values.astype(float), target))
    assert result.n == 60
    assert result.n_expression == len(rows) < 60
    assert result.outside == {"contempt": sum(
        NAMES[int(row.argmax())] == "contempt" and row.max() >= 2 for row in votes
    )}  # fmt: skip
    assert result.accuracy == pytest.approx(sum(map(sum, hits.values())) / len(rows))
    recall = {name: sum(found) / len(found) for name, found in hits.items() if found}
    assert result.recall == pytest.approx(recall)
    assert result.balanced_accuracy == pytest.approx(sum(recall.values()) / len(recall))
    rare = [recall[name] for name in RARE if name in recall]
    assert result.recall_rare == pytest.approx(sum(rare) / len(rare))
    probability, shares = (np.array(part) for part in zip(*rows, strict=True))
    assert result.ece_votes == pytest.approx(_slow_error(probability, shares, 15), abs=1e-6)
    assert result.ece_votes != result.ece
    named = {row[0]: row[1] for row in result.tables()[0].rows}
    assert named["ece_votes"] == result.ece_votes
    assert named["outside its expressions: contempt"] == result.outside["contempt"]
    few = read_pack(path).select(np.array([2, 4]))
    assert score_pack(few, affect[[2, 4]], 0).recall_rare is None


def test_evaluate_draws_the_confusion(write: Write, untrained: Path, tmp_path: Path) -> None:
    path = write(_votes(20))
    options = EvaluateMmaOptions(data=path, extractor=str(untrained), repeats=0, device="cpu")
    for kind in ("png", "svg", "pdf"):
        first, again = tmp_path / f"1.{kind}", tmp_path / f"2.{kind}"
        result = evaluate(options.model_copy(update={"picture": first}))
        evaluate(options.model_copy(update={"picture": again}))
        assert first.read_bytes() == again.read_bytes()
        assert result.lines() == [f"confusion matrix → {first}"]
    assert cv2.imread(str(tmp_path / "1.png")).std() > 0
    svg = (tmp_path / "1.svg").read_text()
    for name, row in result.confusion.items():
        assert f"{name} ({sum(row.values())})" in svg
    for picture, message in (
        (tmp_path / "1.doc", r"ends in \.png, \.svg or \.pdf"),
        (tmp_path / "nowhere" / "1.png", "give a file in a folder that exists"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(options.model_copy(update={"picture": picture}))
    with h5py.File(path, "r+") as file:
        del file["votes"]
    with pytest.raises(UsageError, match=r"--picture: .* labels no expression of untrained"):
        evaluate(options.model_copy(update={"picture": tmp_path / "never.png"}))
    assert not (tmp_path / "never.png").exists()


def test_equalised_copies_are_what_such_files_would_give(
    write: Write, untrained: Path, tmp_path: Path
) -> None:
    """Judged alike: on the copies made on the fly, and on files equalised before."""
    votes = _votes(12)
    path = write(votes)
    plain = EvaluateMmaOptions(data=path, extractor=str(untrained), repeats=0, device="cpu")
    copies = write(votes, name="copies.h5")
    lines = ["path,expression"]
    with h5py.File(copies, "r+") as file:
        for i in range(len(votes)):
            image = cv2.imdecode(file["jpeg"][i], cv2.IMREAD_COLOR)
            cv2.imwrite(str(tmp_path / f"{i}.png"), image)
            lines.append(f"{i}.png,{EXPRESSIONS[i % 7]}")
            done = equalised(np.ascontiguousarray(image[..., ::-1]))
            file["jpeg"][i] = cv2.imencode(".png", done[..., ::-1])[1].reshape(-1)
            cv2.imwrite(str(tmp_path / f"same-{i}.png"), done[..., ::-1])
    on_the_fly = evaluate(plain.model_copy(update={"equalised": True}))
    before = evaluate(plain.model_copy(update={"data": copies}))
    assert on_the_fly.confusion == before.confusion
    assert on_the_fly.ece_votes == pytest.approx(before.ece_votes)
    assert on_the_fly.ece_votes != pytest.approx(evaluate(plain).ece_votes)
    assert "as equalised copies" in on_the_fly.tables()[0].title
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "s.csv").write_text("\n".join(lines).replace("\n", "\nsame-"))
    table = EvaluateMmaOptions(
        data=tmp_path / "s.csv", reader="table", images=tmp_path, extractor=str(untrained),
        repeats=0, device="cpu",
    )  # fmt: skip
    theirs = evaluate(table)
    ours = evaluate(table.model_copy(update={"data": tmp_path / "t.csv", "equalised": True}))
    assert ours.ece == pytest.approx(theirs.ece)
    assert ours.confusion == theirs.confusion


def _config(**changes: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "network": TINY,
        "sources": {"faces": {"pack": "p.h5", "proportion": 1, "valence_arousal": "expression"}},
        "validation": {"faces": {"pack": "p.h5"}},
        "phases": [{"steps": 3, "size": 32, "batch": 8}],
        "augment": {"equalise": 0.5, "quality": [40, 90]},
    } | changes


def _options(folder: Path, out: Path, **changes: object) -> TrainMmaOptions:
    out.mkdir(parents=True, exist_ok=True)
    (out / "c.yaml").write_text(yaml.safe_dump(_config(**changes)))
    return TrainMmaOptions(
        config=out / "c.yaml", data_root=(folder,), out=out, threads=1, device="cpu"
    )


def test_each_mode_aims_at_what_it_says(write: Write, tmp_path: Path) -> None:
    votes = _votes(40)
    path = write(votes, expression=np.arange(40) % 7)

    def source(**options: object):
        config = PackSource.model_validate({"pack": path.name, "proportion": 1} | options)
        return load_source(config, (tmp_path,), None, tmp_path)

    for mode, majority in (("cross-entropy", False), ("probability", False), ("majority", True)):
        want = [_slow_targets(row, EXPRESSIONS, majority) for row in votes]
        np.testing.assert_allclose(source(votes=mode).targets, want, atol=1e-6)
    np.testing.assert_array_equal(source(votes="none").targets.argmax(1), np.arange(40) % 7)
    assert not source(votes="none").drawn
    # Valence follows from the distribution: the mean of the places of what was voted for.
    weak = source(valence_arousal="expression").data.valence_arousal
    places = np.array([WEAK_VALENCE_AROUSAL[name] for name in EXPRESSIONS])
    want = np.array([_slow_targets(row, EXPRESSIONS, False) for row in votes]) @ places
    np.testing.assert_allclose(weak, want, atol=1e-6)
    # One label is drawn from the votes each time: over many batches as often as it was voted.
    config = MmaConfig.model_validate(
        _config(
            sources={"faces": {"pack": path.name, "proportion": 1, "votes": "probability"}},
            phases=[{"steps": 500, "size": 32, "batch": 80}],
        )
    )
    drawing = source(votes="probability")
    mixture = Mixture(config, {"faces": drawing})
    batches = [mixture.batch(step).expression.numpy() for step in range(12)]
    assert set(np.unique(batches[0][~np.isnan(batches[0])])) == {0, 1}
    # Each batch draws every one of the 40 images twice.
    mean = np.nanmean(np.concatenate(batches), axis=0)
    np.testing.assert_allclose(mean, np.nanmean(drawing.targets, axis=0), atol=0.05)
    np.testing.assert_array_equal(mixture.batch(3).expression.numpy(), batches[3])


@pytest.mark.parametrize("mode", ["cross-entropy", "probability", "majority"])
def test_a_run_learns_from_votes(write: Write, tmp_path: Path, mode: str) -> None:
    write(_votes(24))
    changes = {
        "sources": {
            "faces": {"pack": "p.h5", "proportion": 1, "votes": mode, "units_share": 0.3,
                      "valence_arousal": "expression", "pseudo_units": "units.h5"},
        }
    }  # fmt: skip
    with h5py.File(tmp_path / "units.h5", "w") as file:
        file["name"] = np.array([str(i).encode() for i in range(24)], dtype=object)
        file["au"] = np.random.default_rng(0).random((24, 17))
    done = [run(_options(tmp_path, tmp_path / name, **changes)) for name in ("one", "two")]
    assert done[0].weights.read_bytes() == done[1].weights.read_bytes()
    assert {"accuracy", "ece", "ece_votes"} <= done[0].validation["faces"].keys()
    assert done[0].images["faces"]["outside"] == read_pack(tmp_path / "p.h5").outside["contempt"]
    scored = evaluate(
        EvaluateMmaOptions(data=tmp_path / "p.h5", extractor=str(done[0].weights), device="cpu")
    )
    assert scored.ece_votes is not None


@pytest.fixture
def initial(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "old.safetensors"
    save_weights(path, "old", MMANetwork(NetworkConfig.model_validate(TINY)), 32, {})
    return path


def test_a_first_stage_starts_from_weights(write: Write, initial: Path, tmp_path: Path) -> None:
    write(_votes(24))
    still = {
        "optimiser": {"lr": 1e-9, "ema": 0, "weight_decay": 0},
        "phases": [{"steps": 1, "size": 32, "batch": 8}],
    }
    old = load_weights(initial).network.state_dict()

    def moved(**changes: object) -> float:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        new = load_weights(run(_options(tmp_path, out, **still, **changes)).weights).network
        known = [key for key, value in old.items() if value.ndim > 1]
        return max(float((new.state_dict()[key] - old[key]).abs().max()) for key in known)

    assert moved(init=initial.name) < 1e-3  # the file holds halves
    assert moved() > 0.01
    assert moved(init=initial.name, losses={"distil": 0.5}) < 1e-3
    # Only the first stage: the second follows from it.
    assert moved(init=initial.name, stages=[{}, {"seed": 5}]) < 1e-3


def test_init_that_cannot_be_is_one_sentence(write: Write, initial: Path, tmp_path: Path) -> None:
    write(_votes(24))
    with pytest.raises(DataError, match=r"weights gone\.safetensors is in none of these folders"):
        run(_options(tmp_path, tmp_path / "a", init="gone.safetensors"))
    other = TINY | {"widths": [8, 24]}
    with pytest.raises(DataError, match="only the depths may grow"):
        run(_options(tmp_path, tmp_path / "b", init=initial.name, network=other))
    out = tmp_path / "c"
    run(_options(tmp_path, out, init=initial.name))
    save_weights(initial, "old", MMANetwork(NetworkConfig.model_validate(TINY)), 32, {})
    with pytest.raises(DataError, match="was trained on from other weights"):
        run(_options(tmp_path, out, init=initial.name))
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(_config(losses={"distil": 0.5})))
    with pytest.raises(UsageError, match="set it in a later stage, or give init"):
        read_config(tmp_path / "d.yaml")
