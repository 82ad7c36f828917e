"""Comparison, intervals over subjects, the challenges' forms, the report and prediction."""

import csv
from html.parser import HTMLParser

import numpy as np
import pytest

from feie.features.errors import HeadError, LabelError
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.heads.config import InputConfig
from feie.heads.data.challenges import submission
from feie.heads.data.labels import load_labels
from feie.heads.measures.metrics import bootstrap_pearson, compare, pearson, score
from feie.pipeline.evaluate import job as evaluate
from feie.pipeline.evaluate.figures import timeline
from feie.pipeline.evaluate.job import EvaluateOptions
from feie.pipeline.predict import job as predict
from feie.pipeline.predict.job import PredictOptions
from feie.pipeline.train import job as train_head
from feie.pipeline.train.job import TrainHeadOptions

EMOTIONS = "Adoration,Amusement,Anxiety,Disgust,Empathic-Pain,Fear,Surprise"


def arrays(n=60, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.random((n, 2))
    return y + rng.normal(0, 0.2, y.shape), y + rng.normal(0, 0.8, y.shape), y


def test_bootstrap_over_subjects_draws_all_videos_of_a_subject():
    p, _, y = arrays(30)
    groups = np.repeat(np.arange(10), 3)
    found = bootstrap_pearson(p, y, samples=20, seed=3, groups=groups)
    rng = np.random.default_rng(3)
    for row, drawn in zip(found, rng.integers(10, size=(20, 10)), strict=True):
        videos = np.concatenate([np.flatnonzero(groups == g) for g in drawn])
        np.testing.assert_allclose(row, pearson(p[videos], y[videos]), rtol=1e-9)


def test_repeated_videos_of_a_subject_widen_the_interval():
    p, _, y = arrays(40)
    p, y = np.repeat(p, 8, axis=0), np.repeat(y, 8, axis=0)
    groups = np.repeat(np.arange(40), 8)
    over_videos, over_subjects = score(p, y), score(p, y, groups=groups)
    width = [np.ptp(s.interval, axis=1) for s in (over_videos, over_subjects)]
    assert (width[1] > 2 * width[0]).all()
    np.testing.assert_array_equal(over_videos.pearson, over_subjects.pearson)


def test_comparison_is_paired_and_antisymmetric():
    good, bad, y = arrays()
    found, turned = compare(good, bad, y), compare(bad, good, y)
    expected = pearson(good, y) - pearson(bad, y)
    np.testing.assert_allclose(found.difference, [*expected, expected.mean()])
    np.testing.assert_allclose(turned.interval, -found.interval[:, ::-1])
    assert (found.p_value < 0.05).all()
    assert (found.interval[:, 0] > 0).all()
    same = compare(good, 3 * good + 1, y)
    np.testing.assert_allclose(same.difference, 0, atol=1e-12)
    np.testing.assert_allclose(same.interval, 0, atol=1e-9)
    constant = compare(good, np.zeros_like(good), y)
    assert np.isnan(constant.p_value).all()


def test_submissions_in_every_form():
    values = np.array([[0.25, 1]])
    written = "Filename", ["7"]
    for form, expected in (
        ("plain", "id,Joy,Fear\n00007,0.25,1\n"),
        ("eri", "File_ID,Joy,Fear\n[00007],0.25,1\n"),
        ("emi", "Filename,Joy,Fear\n00007,0.25,1\n"),
        ("labels", "Filename,Joy,Fear\n7,0.25,1\n"),
    ):
        assert submission(["00007"], ("Joy", "Fear"), values, form, written).decode() == expected
    # Eight digits of any scale; a video that failed has empty cells.
    small = np.array([[1.23456789e-9, -0.123456789], [np.nan, np.nan]])
    text = submission(["a", "b"], ("Joy", "Fear"), small, "plain").decode()
    assert text == "id,Joy,Fear\na,1.2345679e-09,-0.12345679\nb,,\n"
    assert submission(["7"], ("A",), values[:, :1], "emi").startswith(b"Filename,A\n00007,")


def muse(folder):
    (folder / "partition.csv").write_text(
        "who,x,part\n[00001],?,train\n[00002],?,devel\n[3],?,test"
    )
    rows = "[00002],0,0,0,0,0,0,1\n[00001],1,0,0,0,0,0,.5\n"
    (folder / "labels.csv").write_text(f"File_ID,{EMOTIONS}\n{rows}")


def test_muse_folder(tmp_path):
    muse(tmp_path)
    found = load_labels(tmp_path)
    assert found.ids == ("00001", "00002", "3")
    assert found.split.tolist() == ["train", "val", "test"]
    assert found.targets == tuple(EMOTIONS.split(","))
    np.testing.assert_array_equal(found.values[:2, 6], [0.5, 1])
    assert np.isnan(found.values[2]).all()
    (tmp_path / "labels.csv").write_text(f"File_ID,{EMOTIONS}\n[9],0,0,0,0,0,0,1\n")
    with pytest.raises(
        LabelError, match=r"1 ids that .*partition\.csv lacks, the first is '\[9\]'"
    ):
        load_labels(tmp_path)


def test_emi_folder_and_one_that_is_nothing(tmp_path):
    with pytest.raises(LabelError, match="folder without labels that feie knows"):
        load_labels(tmp_path)
    header = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy\n"
    (tmp_path / "train_split.csv").write_text(header + "00001,0,0.5,0,0,0,1\n00002,1,0,0,0,0,0\n")
    (tmp_path / "valid_split.csv").write_text(header + "3,0,0.25,0,0,0,1\n")
    (tmp_path / "test_split.csv").write_text("Filename\n00004\n")
    found = load_labels(tmp_path)
    assert found.split.tolist() == ["train", "train", "val", "test"]
    assert found.targets == tuple(header.strip().split(",")[1:])
    assert found.values[2, 1] == 0.25
    before = found.sha256
    (tmp_path / "valid_split.csv").write_text(header + "3,0,0.5,0,0,0,1\n")
    assert load_labels(tmp_path).sha256 != before


@pytest.fixture(scope="module")
def project(tmp_path_factory, settings, record, detector_named):
    """A store of 60 videos, labels with subjects, and two trained runs."""
    folder = tmp_path_factory.mktemp("evaluation")
    rng = np.random.default_rng(0)
    rows = ["id,split,subject,Joy,Fear"]
    with StoreWriter(folder / "features.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for i in range(60):
            writer.append(record(f"{i:05d}", int(rng.integers(6, 14)), seed=i))
            split = ("train", "train", "val")[i // 2 % 3]
            rows.append(f"{i:05d},{split},s{i // 2},{rng.random():.3f},{rng.random():.3f}")
    (folder / "labels.csv").write_text("\n".join(rows))
    given = {"store": str(folder / "features.zarr"), "labels": folder / "labels.csv",
             "runs": folder / "runs", "width": 6, "dense": 4, "epochs": 2, "t": 20}  # fmt: skip
    for name, subset in (("a", ("va", "au")), ("b", ("expr",))):
        train_head.run(TrainHeadOptions(**given, name=name, subset=subset))
    return folder


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_evaluation_with_subjects_comparison_submission_and_report(project):
    report, form = project / "report.html", project / "submission.csv"
    found = evaluate.run(
        EvaluateOptions(run=project / "runs" / "a", against=project / "runs" / "b",
                        report=report, submission=form, form="eri")
    )  # fmt: skip
    assert (found.n, found.subjects) == (20, 10)
    other = evaluate.run(EvaluateOptions(run=project / "runs" / "b"))
    assert found.against.mean_pearson == pytest.approx(other.mean_pearson)
    expected = found.mean_pearson - other.mean_pearson
    assert found.against.difference["mean"] == pytest.approx(expected)
    assert form.read_text().splitlines()[1].startswith("[00004],")
    text = report.read_text()
    page = Page()
    page.feed(text)
    assert not page.open
    assert page.links
    assert all(link.startswith("data:") for link in page.links)  # it asks no network
    assert "script" not in page.tags
    assert page.tags.count("img") == 3 + 4
    for words in (
        "As published",
        "calibrated",
        "length only",
        "Against",
        "sha256",
        "over subjects",
    ):
        assert words in text


def test_runs_of_other_targets_are_not_compared(project):
    base = {"store": str(project / "features.zarr"), "labels": project / "labels.csv"}
    train_head.run(
        TrainHeadOptions(
            **base, runs=project / "x", name="joy", targets=("Joy",), epochs=1, width=4
        )
    )
    with pytest.raises(
        HeadError, match=r"joy predicts Joy of .*a predicts Joy, Fear of .*; two runs"
    ):
        evaluate.run(EvaluateOptions(run=project / "runs" / "a", against=project / "x" / "joy"))


def test_predict_equals_evaluate_and_needs_no_labels(project, tmp_path):
    done = predict.run(
        PredictOptions(run=project / "runs" / "a", store=str(project / "features.zarr"),
                       out=tmp_path / "p.csv")
    )  # fmt: skip
    assert done.videos == 60
    assert "00000" in open_store(project / "features.zarr").ids
    evaluate.run(EvaluateOptions(run=project / "runs" / "a"))
    tables = []
    for path in (tmp_path / "p.csv", project / "runs" / "a" / "predictions-val.csv"):
        with path.open() as file:
            tables.append({row["id"]: row for row in csv.DictReader(file)})
    assert len(tables[0]) == 60
    for video, row in tables[1].items():
        for name in ("Joy", "Fear"):
            assert float(tables[0][video][name]) == pytest.approx(float(row[name]), abs=2e-5)


def test_a_column_keeps_its_colour_in_every_timeline():
    inputs = InputConfig(columns=tuple("abcdefgh"), groups={"au": (0, 8)}, t=9)
    still, moving = np.zeros((9, 8), np.float32), np.arange(9, dtype=np.float32)
    drawn = []
    for first in (0, 2):  # six of eight columns are drawn: a-f, then c-h
        values = still.copy()
        values[:, first : first + 6] = moving[:, None]
        axes = timeline(values, inputs).axes[0]
        drawn.append({line.get_label(): line.get_color() for line in axes.get_lines()})
    assert list(drawn[0]) == list("abcdef")
    assert list(drawn[1]) == list("cdefgh")
    assert all(drawn[0][name] == drawn[1][name] for name in "cdef")
