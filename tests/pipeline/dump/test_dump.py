"""`feie dump`: every format back through `feie import`, kills, resumption, hostile ids, memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as trying
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import StoreError, StoreLockedError, UsageError
from feie.features.formats.own import openface as feie_openface
from feie.features.formats.reading.imported import ReadOptions
from feie.features.formats.registry import find_format, recognise
from feie.features.formats.writing import rows as dump_rows
from feie.features.formats.writing.csv_text import milliseconds, seconds_of
from feie.features.formats.writing.format import NAMES, Folder, dump_format
from feie.features.formats.writing.names import safe_names
from feie.features.formats.writing.plan import DumpPlan, PlannedVideo, choose_columns
from feie.features.formats.writing.rows import VideoBatch
from feie.features.schema import AFFECT, Schema
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.dump import files as dump_files
from feie.pipeline.dump import job as dump
from feie.pipeline.dump.job import DumpOptions
from feie.pipeline.imports import job as import_features
from feie.pipeline.imports.options import ImportFeaturesOptions

FOLDERS = tuple(name for name in NAMES if isinstance(dump_format(name), Folder))
FILES = tuple(name for name in NAMES if name not in FOLDERS)
WIDTH = 3


def blank(record, faces):
    """The record with faces in no other frames than these."""
    faces = faces & record.valid
    for name in ("affect", "face_score", "bbox", "landmarks", "embedding"):
        array = getattr(record, name)
        if array is not None:
            array[~faces] = np.nan
    return replace(record, valid=faces)


def with_embedding(record, seed=0):
    rng = np.random.default_rng([seed, len(record.time)])
    embedding = rng.standard_normal((len(record.time), WIDTH)).astype(np.float16)
    embedding[~record.valid] = np.nan
    return replace(record, embedding=embedding)


@pytest.fixture(scope="module")
def store(tmp_path_factory, settings, record):
    """Ragged, with names of all kinds; a video redone, one that failed, one without a face."""
    odd = replace(record("odd/times", 9), fps=float("nan"), time=np.cumsum(np.full(9, 1 / 29.97)))
    records = [
        record("clips/a", 40),
        record('b, "c" 100%', 7),
        blank(record("nobody", 6), np.zeros(6, np.bool_)),
        odd,
        record("clips/a", 12, seed=5),  # its source had changed
        record("empty", 0),
        record("broken", 0, message="broken: no video"),
        record("ä/Ü.mp4", 1),
    ]
    records[2] = replace(records[2], time=np.array([0, 1e-7, 0.04, 0.1, 3.3, 12345.678901234567]))
    path = tmp_path_factory.mktemp("dump") / "s.zarr"
    with StoreWriter(path, replace(settings, embedding_dim=WIDTH)) as writer:
        writer.use_detector({"name": "scrfd:test", "sha256": "d" * 64})
        for item in records:
            writer.append(with_embedding(item) if not item.message else item)
    return path


def run(store, out, form, **options):
    return dump.run(DumpOptions(store=str(store), format=form, out=out, **options))


def target(folder, form):
    return folder / (form if form in FOLDERS else f"{form}{dump_format(form).suffix}")


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def same(values, expected):
    """Equal bit for bit; NaN is NaN."""
    assert values.dtype == expected.dtype
    assert values.shape == expected.shape
    both = np.isnan(values) & np.isnan(expected)
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[values.dtype.itemsize]
    values, expected = (np.ascontiguousarray(x) for x in (values, expected))
    assert (both | (values.view(bits) == expected.view(bits))).all()


@pytest.mark.parametrize("form", NAMES)
def test_a_dump_imported_again_is_the_same_store(store, tmp_path, form):
    geometry = dump_format(form).geometry
    out = target(tmp_path, form)
    result = run(store, out, form, embedding=True, geometry=geometry)
    assert (result.videos, result.frames, result.failed) == (6, 35, 1)
    assert (result.written, result.kept) == (6, 0)
    assert result.bytes > 35 * 26
    again = tmp_path / "again.zarr"
    done = import_features.run(ImportFeaturesOptions(source=out, store=again))
    assert (done.format, done.failures) == (f"feie-{form}", {})
    before, after = open_store(store), open_store(again)
    assert after.ids == before.ids
    assert (after.schema, after.has_embedding) == (before.schema, True)
    for part in ("extractor", "detector"):
        assert after.provenance[part] == before.provenance[part]
    for video_id in before:
        one, two = before.videos.loc[video_id], after.videos.loc[video_id]
        assert (one["width"], one["height"]) == (two["width"], two["height"])
        assert np.nan_to_num(one["fps"]) == two["fps"]
        start, stop = int(one["offset"]), int(one["offset"] + one["length"])
        other = int(two["offset"])
        names = ["affect", "time", "embedding"]
        names += dump_rows.GEOMETRY if geometry else ()
        names += ["face_score"] if form == "openface" else []
        for name in names:
            same(
                after.read_rows(name, slice(other, other + stop - start)),
                before.read_rows(name, slice(start, stop)),
            )
        np.testing.assert_array_equal(before[video_id].valid, after[video_id].valid)


def a_plan(form, videos, schema, width=0, geometry=False):
    made = {"extractor": {"name": "x", "sha256": "0"}, "detector": None, "options": {}}
    return DumpPlan(
        format=form, videos=tuple(videos), schema=schema, indices=tuple(range(len(schema))),
        embedding=width, geometry=geometry, missing="keep", selection=(),
        store={"spec_version": "1.0", "fingerprint": "f", "provenance": made}, failed={},
        sheet="a sheet",
    )  # fmt: skip


@st.composite
def ragged(draw):
    """A few videos of any finite numbers, of any ids and columns that a store may have."""
    part = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=4)
    ids = draw(
        st.lists(
            st.lists(part.filter(lambda p: p not in {".", ".."} and not {"/", "\\"} & set(p)),
                     min_size=1, max_size=3).map("/".join),
            min_size=1, max_size=4, unique=True,
        )
    )  # fmt: skip
    names = draw(st.lists(st.sampled_from([*AFFECT.columns, "a,b", 'q"', "é", "AU12_r", "0"]),
                          min_size=1, max_size=4, unique=True))  # fmt: skip
    lengths = draw(st.lists(st.integers(0, 5), min_size=len(ids), max_size=len(ids)))
    rows = sum(lengths)

    def numbers(shape, dtype):
        width = np.dtype(dtype).itemsize * 8
        finite = st.floats(width=width, allow_nan=False, allow_infinity=False)
        return draw(hnp.arrays(dtype, shape, elements=finite))

    valid = draw(hnp.arrays(np.bool_, rows))
    arrays = {
        "affect": numbers((rows, len(names)), np.float32),
        "face_score": numbers((rows,), np.float32),
        "bbox": numbers((rows, 4), np.float32),
        "landmarks": numbers((rows, 5, 2), np.float32),
        "embedding": numbers((rows, 2), np.float16),
    }
    for array in arrays.values():
        array[~valid] = np.nan
    time = numbers((rows,), np.float64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rates = draw(st.lists(st.floats(0, 1e3), min_size=len(ids), max_size=len(ids)))
    videos = [
        PlannedVideo(name, 0, n, rate, 3, 4, int(valid[a : a + n].sum()))
        for name, n, rate, a in zip(ids, lengths, rates, offsets, strict=False)
    ]
    return Schema.of({"g": names}), VideoBatch(videos, offsets, time=time, valid=valid, **arrays)


@pytest.mark.parametrize("form", NAMES)
@trying(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=ragged())
def test_whatever_a_store_may_hold_reads_back(tmp_path_factory, form, made):
    schema, batch = made
    known = dump_format(form)
    plan = a_plan(form, batch.videos, schema, width=2, geometry=known.geometry)
    if not known.geometry:
        batch = replace(batch, bbox=None, landmarks=None)
        batch = batch if known.score else replace(batch, face_score=None)
    out = tmp_path_factory.mktemp("any")
    if isinstance(known, Folder):
        ids = [video.video_id for video in batch.videos]
        names = safe_names(ids, known.suffix, taken=("provenance.json",))
        for name, data in zip(names, known.encode(batch, plan), strict=True):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        table = {**plan.videos_table(), "file": names}
        said = {**plan.description(), "videos_table": table}
        (out / "provenance.json").write_text(json.dumps(said), encoding="utf-8")
        root = out
    else:
        root = out / f"x{known.suffix}"
        writer = known.create(root, plan)
        writer.write(batch.pick(range(len(batch.videos))))
        writer.close()
    files = find_format(f"feie-{form}").open(root, ReadOptions())
    found = {
        video.video_id: video
        for file in files.files
        for video in files.read(file, set(files.ids(file)))
    }
    assert set(found) == {video.video_id for video in batch.videos}
    for part in batch:
        video = found[part.videos[0].video_id]
        assert video.schema == schema
        np.testing.assert_array_equal(video.valid, part.valid)
        for name, values in part.arrays().items():
            if name != "valid":
                same(getattr(video, "values" if name == "affect" else name), values)
        assert video.fps == part.videos[0].fps
    shutil.rmtree(out)


@trying(deadline=None, max_examples=50)
@given(hnp.arrays(np.float64, st.integers(0, 8),
                  elements=st.floats(allow_nan=False, allow_infinity=False)))  # fmt: skip
@example(np.array([1e7, 9999999.999999, 1.5e11, -1e7, 1e-6, 9.9e-7]))
def test_milliseconds_keep_the_last_bit_of_seconds(time):
    texts = milliseconds(time)
    same(seconds_of(texts), time)
    assert all("e" not in text for text in texts.to_pylist())


def test_milliseconds_of_usual_rates():
    rng = np.random.default_rng(0)
    time = np.concatenate([np.arange(3000) / fps for fps in (25, 30, 29.97)] + [rng.random(3000)])
    texts = milliseconds(time)
    same(seconds_of(texts), time)
    np.testing.assert_allclose(texts.cast(pa.float64()).to_numpy(), time * 1000, rtol=1e-15)
    assert texts.to_pylist()[:3] == ["0", "40", "80"]


@trying(deadline=None)
@given(st.lists(st.text(max_size=6) | st.sampled_from(
    ["../../x", "/etc/passwd", "C:\\x", "a/../b", "..", ".", "", "a", "A", "a/", "con", "CON.a",
     "nul/x", "a.csv/b", "a.CSV", "README.md/x", "provenance.json", "x" * 300, "x/" * 900, "ä",
     "a\u0308", "%id", "%2E%2E", " a", "a ", "a.", "~/x", ".dumping/journal.jsonl"]),
    unique=True, max_size=12))  # fmt: skip
def test_names_stay_inside_and_apart(ids):
    names = safe_names(ids, ".csv", taken=("README.md", "provenance.json"))
    parts = [name.casefold().split("/") for name in names]
    for name, of in zip(names, parts, strict=True):
        assert len(name.encode()) <= 1_100
        for part in of:
            assert part not in {"", ".", ".."}
            assert len(part.encode()) <= 200
            assert not set(part) & set('<>:"\\|?*\0\n')
            assert not part.startswith(".")
            assert part[-1] not in ". "
            assert part.split(".")[0] not in {"con", "nul", "aux", "prn"}
    assert not {"readme.md", "provenance.json"} & {of[0] for of in parts}
    joined = ["/".join(of) for of in parts]
    assert len(set(joined)) == len(ids)
    folders = {"/".join(of[:i]) for of in parts for i in range(1, len(of))}
    assert not folders & set(joined)


def test_plain_names_are_kept():
    ids = ["00001", "s 1/clip#2", "a,b", "é"]
    assert safe_names(ids, ".csv") == [f"{name}.csv" for name in ids]


@pytest.mark.parametrize("form", NAMES)
def test_hostile_ids_write_nothing_outside(tmp_path, settings, record, form):
    ids = ["../../x", "/abs", "C:\\y", "con", "a", "A", "a/affect", "a.csv/b", "..", "x\ny"]
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.append(*(record(name, 3) for name in ids))
    inside = tmp_path / "deep" / "er"
    run(tmp_path / "s.zarr", target(inside, form), form)
    outside = {p.name for p in tmp_path.iterdir()} | {p.name for p in (tmp_path / "deep").iterdir()}
    assert outside == {"s.zarr", "s.zarr.lock", "deep", "er"}
    assert not Path("/abs").exists()
    files = recognise(target(inside, form)).open(target(inside, form), ReadOptions())
    found = [
        (video.video_id, len(video.valid))
        for file in files.files
        for video in files.read(file, set(files.ids(file)))
    ]
    assert sorted(found) == sorted((name, 3) for name in ids)


def test_subsets_ids_and_patterns(store, tmp_path):
    listed = tmp_path / "ids.txt"
    listed.write_text("clips/a\n\nodd/times\nbroken\n")
    out = tmp_path / "d.npz"
    result = run(store, out, "npz", subset="au,va", ids=listed, match=("*a*", "odd/*"))
    assert (result.videos, len(result.columns)) == (2, 19)
    said = json.loads((out / "provenance.json").read_text())
    assert said["groups"] == {"va": [0, 2], "au": [2, 19]}
    assert sorted(files_of(out)) == [
        "README.md", "clips/a.npz", "odd/times.npz", "provenance.json",
    ]  # fmt: skip
    with np.load(out / "clips" / "a.npz") as archive:
        expected = open_store(store)["clips/a"].affect[:, [0, 1, *range(9, 26)]]
        same(archive["affect"], expected)
        assert archive["columns"].tolist()[:3] == ["valence", "arousal", "AU01"]


def test_columns_are_chosen_in_stored_order():
    schema, indices = choose_columns(AFFECT, ("au", "va"))
    assert (schema.groups, indices[:3]) == ({"va": (0, 2), "au": (2, 19)}, (0, 1, 9))
    assert choose_columns(AFFECT, ()) == (AFFECT, tuple(range(26)))


@pytest.mark.parametrize("form", NAMES)
def test_it_says_what_it_is(store, tmp_path, form):
    out = target(tmp_path, form)
    run(store, out, form)
    if form in FOLDERS:
        beside, sheet, folder = out / "provenance.json", out / "README.md", out
    else:
        sheet, beside = dump_files.sheet_of(out), dump_files.provenance_of(out)
        folder = tmp_path
    said = json.loads(beside.read_text())
    assert said["store"]["provenance"] == dict(open_store(store).provenance)
    assert (said["format"], said["missing"], said["failed"]) == (
        form, "keep", {"broken": "broken: no video"},
    )  # fmt: skip
    assert len(said["files"]) == (6 if form in FOLDERS else 1)
    for name, entry in said["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]
    text = sheet.read_text()
    for words in (
        "not feelings", "sha256", "mma-test", "insightface", "`broken`: broken: no video",
        "valence", "-1 to 1", "seconds" if form != "muse" else "milliseconds", "without a face",
    ):  # fmt: skip
        assert words in text
    # Nothing that is not finished, and nothing of the machinery.
    assert not [p for p in tmp_path.rglob("*") if "dumping" in p.name]


def test_probabilities_are_never_called_intensities(store, tmp_path):
    run(store, tmp_path / "o", "openface")
    table = pd.read_csv(tmp_path / "o" / "clips" / "a.csv")
    assert not [name for name in table.columns if name.endswith(("_r", "_c"))]
    assert {"AU12_p", "happiness_p", "valence", "success", "confidence"} <= set(table.columns)
    assert table["frame"].tolist() == list(range(1, 13))
    sheet = (tmp_path / "o" / "README.md").read_text()
    assert "| AU12_p | au | 0 to 1 |" in sheet
    assert "not OpenFace's `_r`" in sheet.replace("\n  are not", " are not").replace("They\n", "")
    # What another tool gave as an intensity stays one.
    assert feie_openface.column_names(Schema.of({"au_r": ["AU12_r"]})) == ["AU12_r"]


def reference(values, valid, missing):
    """Fill frame by frame."""
    if missing == "drop":
        return values[valid]
    out, last = [], None
    first = next((v for v, ok in zip(values, valid, strict=True) if ok), np.zeros(26, np.float32))
    for row, ok in zip(values, valid, strict=True):
        last = row if ok else last
        held = first if last is None else last
        out.append(row if ok else held if missing == "hold" else np.zeros(26, np.float32))
    return np.array(out, np.float32).reshape(-1, 26)


@pytest.mark.parametrize("missing", ["drop", "zero", "hold"])
def test_gaps_filled_for_muse(tmp_path, settings, record, missing):
    rng = np.random.default_rng(3)
    records = [
        # The first one begins without a face.
        blank(record(f"{i}", n), (rng.random(n) < share) & ((np.arange(n) > 2) | (i > 0)))
        for i, (n, share) in enumerate([(20, 0.5), (9, 0.2), (5, 0.0), (1, 1.0), (8, 0.9), (0, 1)])
    ]
    with StoreWriter(tmp_path / "s.zarr", settings) as writer:
        writer.append(*records)
    run(tmp_path / "s.zarr", tmp_path / "m", "muse", missing=missing)
    for item in records:
        table = pd.read_csv(tmp_path / "m" / f"{item.id}.csv", engine="pyarrow")
        values = table.iloc[:, 2:].to_numpy(np.float32)
        same(values, reference(item.affect, item.valid, missing))
        time = item.time[item.valid] if missing == "drop" else item.time
        np.testing.assert_allclose(table["timestamp"].to_numpy(float), time * 1000, rtol=1e-15)
    done = import_features.run(
        ImportFeaturesOptions(source=tmp_path / "m", store=tmp_path / "again.zarr")
    )
    assert done.failures == {}
    assert "told apart" in (tmp_path / "m" / "README.md").read_text() or missing == "drop"


@pytest.fixture
def many(tmp_path, settings, record):
    path = tmp_path / "many.zarr"
    with StoreWriter(path, settings) as writer:
        writer.append(*(record(f"v{i}", 20) for i in range(12)))
    return path


KILLED = """
import os, signal, sys
from functools import partial
from feie.features.formats.writing.rows import batches
from feie.pipeline.dump import files as dump_files, folder as dump_folder, job as dump

def kill(report):
    if report.done >= 8:
        os.kill(os.getpid(), signal.SIGKILL)

dump_files.batches = lambda *a, **k: batches(*a, **{**k, "most_rows": 40})
dump_folder.batches = partial(batches, most_rows=40)
store, form, out = sys.argv[1:]
dump.run(dump.DumpOptions(store=store, format=form, out=out), kill)
"""


@pytest.mark.parametrize("form", ["muse", "parquet", "hdf5"])
def test_a_kill_leaves_nothing_half_under_its_name(many, tmp_path, form):
    out = target(tmp_path, form)
    command = [sys.executable, "-c", KILLED, str(many), form, str(out)]
    assert subprocess.run(command, check=False).returncode == -9
    if form in FOLDERS:
        there = files_of(out)
        assert "provenance.json" not in there
        done = [name for name in there if name.endswith(".csv")]
        assert len(done) == 8
        journal = out / ".dumping" / "journal.jsonl"
        journal.write_bytes(journal.read_bytes() + b'{"file": "v9.csv", "vid')
        result = run(many, out, form)
        assert (result.kept, result.written) == (8, 4)
        assert {name: there[name] for name in done}.items() <= files_of(out).items()
    else:
        assert not out.exists()
        assert (tmp_path / f".{out.name}.dumping").is_dir()  # it had begun
        assert run(many, out, form).written == 12
    whole = target(tmp_path / "whole", form)
    run(many, whole, form)
    made = {k: v for k, v in files_of(tmp_path / "whole").items() if "provenance" not in k}
    root = tmp_path
    assert all((root / name).read_bytes() == data for name, data in made.items())


def test_a_folder_goes_on(many, tmp_path, record, settings, monkeypatch):
    out = tmp_path / "m"
    assert run(many, out, "muse").written == 12
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    again = run(many, out, "muse")
    assert (again.kept, again.written) == (12, 0)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    # One file is cut, one is gone; a video has been redone, one has come.
    (out / "v3.csv").write_bytes((out / "v3.csv").read_bytes()[:-9])
    (out / "v4.csv").unlink()
    with StoreWriter(many, settings) as writer:
        writer.append(record("v5", 9, seed=8), record("new", 4))
        writer.append(record("other", 4), instead_of=["v6"])
    mended = run(many, out, "muse")
    assert (mended.kept, mended.written, mended.removed) == (8, 5, 1)
    run(many, tmp_path / "n", "muse")
    one, two = files_of(out), files_of(tmp_path / "n")
    assert sorted(one) == sorted(two)
    assert all(one[k] == two[k] for k in one if k != "provenance.json")
    with pytest.raises(UsageError, match="other columns"):
        run(many, out, "muse", subset="au")
    with pytest.raises(UsageError, match="missing 'keep', now 'zero'"):
        run(many, out, "muse", missing="zero")
    with dump_files.working_folder(out / ".dumping", out), pytest.raises(StoreLockedError):
        run(many, out, "muse")


def test_a_file_is_written_once(many, tmp_path):
    out = tmp_path / "f.h5"
    run(many, out, "hdf5")
    assert (run(many, out, "hdf5").kept, run(many, out, "hdf5").written) == (12, 0)
    with pytest.raises(UsageError, match="other options"):
        run(many, out, "hdf5", subset="va")
    with out.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UsageError, match="not as it was written"):
        run(many, out, "hdf5")
    (tmp_path / "g.h5").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        run(many, tmp_path / "g.h5", "hdf5")
    assert (tmp_path / "g.h5").read_text() == "mine"


FULL = """
import resource, sys
from feie.cli import app
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
app(["dump", sys.argv[1], "--format", sys.argv[2], "--out", sys.argv[3]])
"""


@pytest.mark.parametrize("form", ["hdf5", "hdf5-groups", "muse"])
def test_a_full_disk_is_one_sentence(many, tmp_path, form):
    """HDF5's own library would print traces, and has crashed."""
    out = target(tmp_path / "x", form)
    command = [sys.executable, "-c", FULL, str(many), form, str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {out}")
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if form in FILES:
        assert list((tmp_path / "x").iterdir()) == []
    else:
        assert not (out / "provenance.json").exists()


def test_a_chunk_that_is_gone_is_no_frame_without_a_face(many, tmp_path):
    shutil.rmtree(many / "affect" / "c")
    with pytest.raises(StoreError, match="damaged"):
        run(many, tmp_path / "f.h5", "hdf5")
    assert not (tmp_path / "f.h5").exists()


def test_batches_hold_whole_videos_and_no_more(tmp_path, settings, record, monkeypatch):
    path = tmp_path / "s.zarr"
    with StoreWriter(path, settings) as writer:
        for i in range(60):
            writer.append(record(f"{i:02d}", 2000))
        writer.append(record("00", 70, seed=2))
    store = open_store(path)
    monkeypatch.setattr(dump_rows, "_BATCH_BYTES", 1 << 20)
    plan = dump._plan(
        store, DumpOptions(store=str(path), format="hdf5", out="x"), dump_format("hdf5")
    )
    assert plan.frames == 59 * 2000 + 70
    tracemalloc.start()
    seen = []
    for batch in dump_rows.batches(store, plan, most_rows=5000):
        assert len(batch.time) <= 5000
        for part in batch:
            seen.append(part.videos[0].video_id)
            np.testing.assert_array_equal(part.time, np.arange(len(part.time)) / 30.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(seen) == store.ids
    assert peak < 6.5e6  # of 13.6 MB of rows


def test_the_command(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def cli(*arguments, code=0):
        result = CliRunner().invoke(app, ["dump", str(store), *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    for form in NAMES:
        plan = json.loads(cli("--format", form, "--out", "x", "--dry-run", "--json").stdout)
        assert (plan["videos"], plan["frames"], plan["dry_run"]) == (6, 35, True)
        assert list(tmp_path.iterdir()) == []
        run(store, tmp_path / "real" / form, form)
        really = tmp_path / "real" / form
        size = (
            sum(len(v) for k, v in files_of(really).items() if k.endswith((".csv", ".npz")))
            if really.is_dir() else really.stat().st_size
        )  # fmt: skip
        assert plan["bytes"] == size
        shutil.rmtree(tmp_path / "real")
    assert "MB" in cli("--format", "muse", "--out", "x", "--dry-run").stdout
    assert "--missing" in cli("--format", "muse", "--out", "m").stdout
    for arguments, said in [
        (("--format", "xls", "--out", "x"), "--format"),
        (("--format", "hdf5", "--out", "s3://b/x"), "--out"),
        (("--format", "hdf5", "--out", "m"), "is a folder"),
        (("--format", "npz", "--out", "m"), "format 'muse'"),
        (("--format", "hdf5", "--out", "x", "--subset", "au,ua"), "unknown group ua"),
        (("--format", "hdf5", "--out", "x", "--match", "zzz"), "zzz"),
        (("--format", "hdf5", "--out", "x", "--ids", "no.txt"), "no.txt"),
        (("--format", "hdf5", "--out", "x", "--missing", "zero"), "--missing"),
        (("--format", "muse", "--out", "x", "--geometry"), "--geometry"),
    ]:
        result = cli(*arguments, code=2)
        assert said in result.stderr
        assert "Traceback" not in result.output
    (tmp_path / "ids.txt").write_text("clips/a\nnot there\n")
    assert "not there" in cli("--format", "hdf5", "--out", "x", "--ids", "ids.txt", code=2).stderr
    assert not (tmp_path / "x").exists()


def test_columns_that_a_table_has_no_room_for(tmp_path, settings, record):
    schema = Schema.of({"g": ("time", "b")})
    item = replace(record("a", 3), affect=np.zeros((3, 2), np.float32), valid=np.ones(3, np.bool_))
    with StoreWriter(tmp_path / "s.zarr", replace(settings, schema=schema)) as writer:
        writer.append(item)
    with pytest.raises(UsageError, match="'time'"):
        run(tmp_path / "s.zarr", tmp_path / "x.parquet", "parquet")
    run(tmp_path / "s.zarr", tmp_path / "x.h5", "hdf5")
    sheet = (tmp_path / "x.h5.README.md").read_text()
    assert "does not know\ntheir units" in sheet


def test_a_damaged_dump_is_a_named_failure(many, tmp_path):
    run(many, tmp_path / "n", "npz")
    run(many, tmp_path / "m", "muse")
    (tmp_path / "n" / "v3.npz").write_bytes(b"PK nonsense")
    lines = (tmp_path / "m" / "v3.csv").read_text().splitlines(keepends=True)
    (tmp_path / "m" / "v3.csv").write_text("".join([*lines[:4], lines[4].partition(",")[2]]))
    (tmp_path / "m" / "v4.csv").write_text("".join(lines[:9]))
    (tmp_path / "m" / "v5.csv").write_text(lines[0] + lines[1].replace("0", "", 1) * 20)
    for root, failures in (("n", ["v3"]), ("m", ["v3", "v4", "v5"])):
        done = import_features.run(
            ImportFeaturesOptions(source=tmp_path / root, store=tmp_path / f"{root}.zarr")
        )
        assert list(done.failures) == failures
        assert done.imported == 12 - len(failures)
    for form in FILES:
        out = target(tmp_path, form)
        run(many, out, form)
        data = out.read_bytes()
        out.write_bytes(data[: len(data) // 2])
        with pytest.raises(UsageError, match="is not as feie dump wrote it"):
            find_format(f"feie-{form}").open(out, ReadOptions())
        dump_files.provenance_of(out).unlink()
        with pytest.raises(UsageError, match=r"cannot be read|makes no sense"):
            find_format(f"feie-{form}").open(out, ReadOptions())
