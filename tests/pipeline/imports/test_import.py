"""`feie import`: files of other tools become stores that a head can train on."""

from __future__ import annotations

import json
import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import StoreMismatchError, UsageError, VideoError
from feie.features.formats.reading.imported import ReadOptions
from feie.features.formats.reading.rows import seconds
from feie.features.formats.registry import find_format, formats, recognise
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.pipeline.imports.job import ImportFeaturesOptions, run

AUS = (1, 2, 4, 12)


def imported(source, store, **options):
    return run(ImportFeaturesOptions(source=source, store=store, **options))


def read(path, form="auto", **options):
    """All videos of one file, read without a store."""
    known = recognise(path) if form == "auto" else find_format(form)
    files = known.open(path, ReadOptions(**options))
    (file,) = files.files
    return list(files.read(file, set(files.ids(file))))


def openface(path, frames, *, seed=0, faces=(0,), lost=(), face_id=True, **more):
    """A CSV as OpenFace 2 writes it: blanks after the commas of the header, zeros where no face."""
    rng = np.random.default_rng(seed)
    rows = []
    for frame in range(1, frames + 1):
        for face in faces:
            ok = frame not in lost
            row = {
                "frame": frame,
                **({"face_id": face} if face_id else {}),
                "timestamp": round((frame - 1) / 30, 3),
                "confidence": 0.98 if ok else 0.0,
                "success": int(ok),
                "pose_Rx": rng.normal() * ok,
                **{f"x_{i}": float(i + 100 * face) for i in range(68)},
                **{f"y_{i}": float(2 * i) for i in range(68)},
                **{f"AU{a:02d}_r": round(rng.uniform(0, 5), 2) * ok for a in AUS},
                **{f"AU{a:02d}_c": float(rng.integers(2)) * ok for a in (*AUS, 28)},
                **more,
            }
            rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    lines = table.to_csv(index=False).splitlines()
    path.write_text("\n".join([lines[0].replace(",", ", "), *lines[1:]]))
    return table


def pyfeat(path, rows):
    """A Fex CSV of py-feat 2: one row a face; None for a frame without."""
    names = ["Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger"]
    table = []
    for number, (source, frame, box) in enumerate(rows):
        rng = np.random.default_rng(number)
        face = box is not None
        emotions = rng.dirichlet(np.ones(7))
        table.append(
            {
                **dict(zip(("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"),
                           box or [np.nan] * 4, strict=True)),
                "FaceScore": 0.99 if face else np.nan,
                "Pitch": rng.normal() if face else np.nan,
                "AU01": rng.random() if face else np.nan,
                "AU43": rng.random() if face else np.nan,
                **{n: e if face else np.nan for n, e in zip(names, emotions, strict=True)},
                "valence": rng.uniform(-1, 1) if face else np.nan,
                "arousal": rng.uniform(-1, 1) if face else np.nan,
                "Identity_1": np.nan,
                "FrameHeight": 480.0,
                "FrameWidth": 640.0,
                "input": source,
                "frame": frame,
                "approx_time": "00:00",
            }
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(table)
    table.to_csv(path, index=False)
    return table


# ---- the formats -------------------------------------------------------------------------------


@pytest.mark.shared
def test_genuine_openface_file_value_for_value(shared, tmp_path):
    file = shared / "data" / "peers" / "OpenFace_Test.csv"
    result = imported(file, tmp_path / "s.zarr")
    assert (result.format, result.imported, result.frames) == ("openface", 1, 100)
    table = pd.read_csv(file, skipinitialspace=True)
    store = open_store(tmp_path / "s.zarr")
    assert list(store.schema.groups) == ["gaze", "pose", "au_r", "au_c"]
    assert store.schema.group("au_r")[0] == "AU01_r"
    assert (len(store.schema.group("au_r")), len(store.schema.group("au_c"))) == (17, 18)
    video = store["OpenFace_Test"]
    np.testing.assert_array_equal(
        video.affect, table[list(store.schema.columns)].to_numpy(np.float32)
    )
    np.testing.assert_array_equal(video.time, table["timestamp"])
    np.testing.assert_array_equal(video.face_score, table["confidence"].astype(np.float32))
    nose = table[["x_30", "y_30"]].to_numpy(np.float32)
    np.testing.assert_allclose(video.landmarks[:, 2], nose, rtol=1e-6)
    assert not check_store(tmp_path / "s.zarr")


@pytest.mark.shared
def test_genuine_pyfeat_files_value_for_value(shared, tmp_path):
    for name in ("001.csv", "002.csv"):
        shutil.copy(shared / "data" / "peers" / name, tmp_path / name)
    with pytest.raises(UsageError, match="--fps"):
        imported(tmp_path, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    result = imported(tmp_path, tmp_path / "s.zarr", fps=25)
    assert (result.format, result.imported, result.frames) == ("pyfeat", 2, 68)
    store = open_store(tmp_path / "s.zarr")
    assert list(store.schema.groups) == ["expr", "au", "pose"]
    table = pd.read_csv(tmp_path / "002.csv")
    video = store["002"]
    np.testing.assert_array_equal(
        video.affect, table[list(store.schema.columns)].to_numpy(np.float32)
    )
    np.testing.assert_allclose(video.bbox[:, 2], table["FaceRectX"] + table["FaceRectWidth"])
    np.testing.assert_array_equal(video.time, np.arange(28) / 25)
    assert not check_store(tmp_path / "s.zarr")


@pytest.mark.shared
def test_genuine_single_image_of_pyfeat_needs_no_rate(shared, tmp_path):
    result = imported(shared / "data" / "peers" / "Feat_Test.csv", tmp_path / "s.zarr")
    assert (result.imported, result.frames) == (1, 1)


def test_openface_frames_without_a_face_are_gaps(tmp_path):
    table = openface(tmp_path / "a.csv", 9, lost=(3, 4), face_id=False)
    (video,) = read(tmp_path / "a.csv")
    ok = table["success"].to_numpy() == 1
    assert list(video.schema.groups) == ["pose", "au_r", "au_c"]
    np.testing.assert_array_equal(video.valid, ok)
    assert np.isnan(video.values[~ok]).all()
    assert np.isnan(video.face_score[~ok]).all()
    assert np.isnan(video.landmarks[~ok]).all()
    np.testing.assert_array_equal(
        video.values[ok], table.loc[ok, list(video.schema.columns)].to_numpy(np.float32)
    )
    eyes = video.landmarks[0, :2]
    np.testing.assert_allclose(eyes[:, 0], [np.mean(range(36, 42)), np.mean(range(42, 48))])
    assert video.fps == pytest.approx(30, abs=0.1)


def test_openface_groups_are_chosen_by_name(tmp_path):
    openface(tmp_path / "a.csv", 4)
    (video,) = read(tmp_path / "a.csv", groups=("au_c", "landmarks"))
    assert {k: b - a for k, (a, b) in video.schema.groups.items()} == {"au_c": 5, "landmarks": 136}
    with pytest.raises(VideoError, match=r"no group lips; it has pose, landmarks, au_r, au_c"):
        read(tmp_path / "a.csv", groups=("lips",))


def test_openface_of_several_faces_keeps_the_one_with_most_frames(tmp_path):
    table = openface(tmp_path / "a.csv", 12, faces=(0, 1, 2))
    table = table[
        ~((table.face_id == 0) & (table.frame > 5)) & ~((table.face_id == 2) & (table.frame == 7))
    ]
    table.to_csv(tmp_path / "a.csv", index=False)
    (video,) = read(tmp_path / "a.csv")
    mine = table[table.face_id == 1]
    np.testing.assert_array_equal(
        video.values, mine[list(video.schema.columns)].to_numpy(np.float32)
    )
    assert "--all-faces" in video.notes[-1]
    tracks = read(tmp_path / "a.csv", all_faces=True)
    assert [v.video_id for v in tracks] == ["a#1", "a#2", "a#3"]
    assert [int(v.valid.sum()) for v in tracks] == [12, 11, 5]
    assert all(len(v.valid) == 12 for v in tracks)


def test_pyfeat_follows_faces_by_their_boxes_where_nobody_is_named(tmp_path):
    left, right = (10, 10, 50, 50), (300, 40, 60, 60)
    rows = []
    for frame in range(10):
        boxes = [(left[0] + frame, *left[1:]), right]
        # The order of faces changes, one is away for a while, and frame 5 has none.
        boxes = boxes[:1] if frame in (2, 3) else [None] if frame == 5 else boxes
        rows += [("v.mp4", frame, box) for box in (boxes if frame % 2 else boxes[::-1])]
    table = pyfeat(tmp_path / "v.csv", rows)
    (video,) = read(tmp_path / "v.csv", fps=30)
    mine = table[table.FaceRectX < 100].set_index("frame")
    np.testing.assert_array_equal(np.flatnonzero(~video.valid), [5])
    assert list(video.schema.groups) == ["va", "expr", "au", "pose"]
    assert video.schema.group("expr")[:2] == ("Neutral", "Happy")
    for frame in np.flatnonzero(video.valid):
        expected = mine.loc[frame, list(video.schema.columns)].to_numpy(np.float32)
        np.testing.assert_array_equal(video.values[frame], expected)
    assert (video.width, video.height) == (640, 480)
    both = read(tmp_path / "v.csv", fps=30, all_faces=True)
    assert [int(v.valid.sum()) for v in both] == [9, 7]


def test_pyfeat_table_of_several_inputs_is_several_videos(tmp_path):
    box = (1, 2, 30, 40)
    rows = [(f"/data/{name}.mp4", frame, box) for name in ("a/x", "b/x") for frame in range(4)]
    pyfeat(tmp_path / "all.csv", rows)
    assert [v.video_id for v in read(tmp_path / "all.csv", fps=30)] == ["a/x", "b/x"]
    # Of one video, the file's name counts: it is unique in its folder.
    pyfeat(tmp_path / "one.csv", [(r"C:\clips\y.mp4", frame, box) for frame in range(3)])
    assert [v.video_id for v in read(tmp_path / "one.csv", fps=30)] == ["one"]


def test_pyfeat_of_every_fifth_frame_leaves_nothing_out(tmp_path):
    rows = [("v.mp4", frame, (1, 2, 30, 40)) for frame in (0, 5, 10, 20)]
    pyfeat(tmp_path / "v.csv", rows)
    (video,) = read(tmp_path / "v.csv", fps=25)
    np.testing.assert_array_equal(video.valid, [True, True, True, False, True])
    np.testing.assert_allclose(video.time, np.array([0, 5, 10, 15, 20]) / 25)
    assert video.fps == 5


def libreface(path, frames=6, dropped=(2,), unit=1.0):
    rng = np.random.default_rng(1)
    kept = [i for i in range(frames) if i not in dropped]
    words = ["Neutral", "Happiness", "Contempt"]
    table = pd.DataFrame(
        {
            "frame_idx": kept,
            "frame_time_in_ms": [round(i / 25 * unit, 4) for i in kept],
            "pitch": rng.normal(size=len(kept)),
            "lm_mp_0_x": rng.random(len(kept)),
            **{f"au_{a}": rng.integers(0, 2, len(kept)) for a in (1, 12)},
            **{f"au_{a}_intensity": rng.random(len(kept)) * 5 for a in (1, 12)},
            "facial_expression": [words[i % 3] for i in range(len(kept))],
        }
    )
    table.to_csv(path, index=False)
    return table


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_libreface_drops_frames_and_misnames_seconds(tmp_path, unit):
    table = libreface(tmp_path / "v.csv", unit=unit)
    (video,) = read(tmp_path / "v.csv")
    np.testing.assert_array_equal(video.valid, [True, True, False, True, True, True])
    np.testing.assert_allclose(video.time, np.arange(6) / 25)
    groups = {k: b - a for k, (a, b) in video.schema.groups.items()}
    assert groups == {"au_c": 2, "au_r": 2, "expression": 8, "pose": 1}
    values = dict(zip(video.schema.columns, video.values[video.valid].T, strict=True))
    np.testing.assert_allclose(values["au_12_intensity"], table["au_12_intensity"], rtol=1e-6)
    happy = table["facial_expression"] == "Happiness"
    np.testing.assert_array_equal(values["facial_expression=Happiness"], happy)
    one = [values[c] for c in video.schema.group("expression")]
    np.testing.assert_array_equal(np.sum(one, axis=0), 1)


def muse(folder, ids=("00001", "00002"), frames=5, columns=("a", "b"), step=40):
    folder.mkdir(parents=True, exist_ok=True)
    for number, video_id in enumerate(ids):
        rng = np.random.default_rng(number)
        table = pd.DataFrame(rng.normal(size=(frames, len(columns))), columns=list(columns))
        table.insert(0, "timestamp", np.arange(frames) * step)
        table.insert(1, "segment_id", video_id)
        table.to_csv(folder / f"{video_id}.csv", index=False)


def test_muse_folder_names_its_group_and_counts_milliseconds(tmp_path):
    muse(tmp_path / "feats" / "FAU-s", columns=("AU01_r", "x y"))
    (tmp_path / "feats" / "FAU-s" / "notes.md").write_text("-")
    result = imported(tmp_path / "feats" / "FAU-s", tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert (result.format, store.ids, result.ignored) == ("muse", ["00001", "00002"], ["notes.md"])
    assert dict(store.schema.groups) == {"fau_s": (0, 2)}
    assert store.schema.columns == ("AU01_r", "x y")
    np.testing.assert_allclose(store["00001"].time, np.arange(5) * 0.04)
    assert store.videos["fps"].tolist() == [25, 25]


def test_seconds_and_milliseconds_are_told_by_the_steps():
    np.testing.assert_allclose(seconds(np.array([0, 33.3, 66.7]), "auto"), [0, 0.0333, 0.0667])
    np.testing.assert_allclose(seconds(np.array([0, 0.5, 1.0]), "auto"), [0, 0.5, 1.0])
    np.testing.assert_allclose(seconds(np.array([0, 0.5]), "ms"), [0, 0.0005])


def test_speech_features_have_any_names_and_a_group_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("00001", "00002"):  # as DataFrame(...).to_csv writes them: an index, then 0, 1, …
        pd.DataFrame(rng.normal(size=(7, 300)).astype("f4")).to_csv(tmp_path / f"{name}.csv")
    with pytest.raises(UsageError, match="--fps"):
        imported(tmp_path, tmp_path / "s.zarr", group="audio")
    result = imported(tmp_path, tmp_path / "s.zarr", group="audio", fps=50)
    store = open_store(tmp_path / "s.zarr")
    assert (result.format, result.groups) == ("table", {"audio": (0, 300)})
    np.testing.assert_allclose(store["00002"].time, np.arange(7) / 50)
    expected = pd.read_csv(tmp_path / "00001.csv", index_col=0).to_numpy(np.float32)
    np.testing.assert_array_equal(store["00001"].affect, expected)


def test_arrays_of_numpy_and_hdf5(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)).astype("f2")
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["00001"], file["sub/00002"] = first, second
        file["note"] = "text is nobody's features"
    with h5py.File(tmp_path / "cmu.csd", "w") as file:  # as CMU's multimodal SDK lays it out
        file["wav2vec/data/v1/features"] = first
        file["wav2vec/data/v1/intervals"] = np.stack([np.arange(5), np.arange(5) + 1], 1) * 0.1
        file["wav2vec/metadata/creator"] = np.bytes_(b"somebody")
    np.save(tmp_path / "x.npy", first)
    one, two = read(tmp_path / "flat.h5", fps=50, group="audio")
    assert (one.video_id, two.video_id) == ("00001", "sub/00002")
    assert one.schema.columns == ("audio_0", "audio_1", "audio_2")
    np.testing.assert_array_equal(two.values, second.astype(np.float32))
    (cmu,) = read(tmp_path / "cmu.csd")
    assert cmu.video_id == "v1"
    np.testing.assert_allclose(cmu.time, np.arange(5) * 0.1)
    (array,) = read(tmp_path / "x.npy", fps=50)
    np.testing.assert_array_equal(array.values, first.astype(np.float32))


def test_a_table_of_many_videos_is_read_one_by_one(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "video_id": ["b.mp4"] * 3 + ["00012"] * 2 + ["d/c"] * 4,
            "time": [0, 0.1, 0.2, 0, 0.1, 0, 0.1, 0.2, 0.3],
            "valid": [True, False, True] + [True] * 6,
            "valence": rng.uniform(-1, 1, 9),
            "arousal": rng.uniform(-1, 1, 9),
            "smile": rng.random(9),
        }
    )
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", sep=";", index=False)
    for name in ("t.parquet", "t.csv"):
        videos = read(tmp_path / name)
        assert [v.video_id for v in videos] == ["b", "00012", "d/c"]
        assert dict(videos[0].schema.groups) == {"va": (0, 2), "features": (2, 3)}
        np.testing.assert_array_equal(videos[0].valid, [True, False, True])
        np.testing.assert_array_equal(videos[2].values[:, 2], table["smile"][5:].astype(np.float32))
    table.iloc[[0, 3, 1]].to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(VideoError, match="rows of b stand apart; sort the table by video_id"):
        read(tmp_path / "t.csv")


def test_every_format_says_what_it_is():
    known = formats()
    assert {"openface", "pyfeat", "libreface", "muse", "table", "arrays"} <= set(known)
    assert all(form.about and form.name == name for name, form in known.items())
    with pytest.raises(UsageError, match=r"unknown format 'opensmile'; known are .*openface"):
        find_format("opensmile")


# ---- what is wrong with files ------------------------------------------------------------------

GOOD = "frame,timestamp,success,AU01_r\n1,0,1,0.5\n2,0.03,1,0.25\n3,0.07,0,0\n"
BROKEN = {
    "empty": ("", r"empty.csv is empty"),
    "blank": ("\n\n", r"blank.csv has no line with text"),
    "header only": ("frame,timestamp,success,AU01_r\n", r"no row"),
    "no header": ("1,0,1,0.5\n2,0,1,0.5\n", r"begins with numbers"),
    "short row": (GOOD + "4,0.1\n", r"short row.csv, row 5: 2 cells under 4 column names; was"),
    "long row": (GOOD + "4,0.1,1,2,3\n", r"row 5: 5 cells"),
    "cut off": (GOOD[:-6], r"row 4: 2 cells"),
    "word": (GOOD.replace("0.25", "much"), r"row 3: column AU01_r holds 'much'"),
    "decimal comma": (GOOD.replace("0.25", '"0,25"'), r"column AU01_r holds '0,25'"),
    "twice a column": (GOOD.replace("frame,", "frame,AU01_r,", 1).replace("\n", ",1\n")
                       .replace("_r,1\n", "_r\n", 1), r"more than one column AU01_r"),
    "twice a frame": (GOOD.replace("\n2,", "\n1,"), r"frame 0 from the start stands twice"),
    "no number": (GOOD.replace("0.5", "").replace("0.25", "NaN"), r"AU01_r has gaps throughout"),
    "no face": (GOOD.replace(",1,0", ",0,0"), None),
    "column of nothing": ("frame,timestamp,success,AU01_r,AU02_r\n1,0,1,,1\n2,0.1,1,nan,2\n",
                          r"column AU01_r has gaps throughout"),
    "time runs back": (GOOD.replace("0.07", "0.01"), r"time runs back, from 0.03 s to 0.01 s"),
    "no time": (GOOD.replace("0.07", "inf"), r"row 4: column timestamp holds no time"),
    "half a frame": (GOOD.replace("\n2,", "\n1.5,"), r"other things than whole numbers"),
    "leap": (GOOD.replace("\n3,", "\n3000000,"), r"leaps from 2 to 3000000"),
    "odd flag": (GOOD.replace("0.07,0,", "0.07,maybe,"), r"column success holds 'maybe'"),
    "binary": ("\x00\x01\x02\xff\xfe" * 50, r"binary.csv"),
    "cp1252": (GOOD.replace("AU01_r", "AU01_ü"), r"no UTF-8 text: line 1 has the byte 0xfc"),
    "lacks": ("frame,AU01_r\n1,2\n", r"is no file of format openface: it has no column success"),
    "other columns": (GOOD.replace("AU01_r", "AU02_r"), r"lacks AU01_r and adds AU02_r"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """What the import of a sound file and all the broken ones says, and the store it made."""
    root = tmp_path_factory.mktemp("broken")
    (root / "f").mkdir()
    (root / "f" / "a sound one.csv").write_text(GOOD)
    for what, (text, _) in BROKEN.items():
        data = text if isinstance(text, bytes) else text.encode("latin-1")
        (root / "f" / f"{what}.csv").write_bytes(data)
    return imported(root / "f", root / "s.zarr"), root / "s.zarr"


@pytest.mark.parametrize("what", BROKEN)
def test_one_broken_file_costs_one_video_and_is_named(broken, what):
    result, path = broken
    message = BROKEN[what][1]
    if message is None:  # no face at all is no fault
        assert what not in result.failures
        assert not open_store(path)[what].valid.any()
    else:
        assert re.search(message, result.failures[what]), result.failures[what]
        assert f"{what}.csv" in result.failures[what]


def test_all_others_are_imported(broken):
    result, path = broken
    sound = ["a sound one", *(what for what, (_, message) in BROKEN.items() if message is None)]
    assert (open_store(path).ids, result.imported) == (sorted(sound), len(sound))
    assert set(result.failures) == set(BROKEN) - set(sound)
    assert not check_store(path)


def test_numbers_that_are_none_make_a_frame_without_a_face(tmp_path):
    text = GOOD.replace("0.25", "-nan(ind)") + "4,0.1,1,inf\n5,0.13,1,1e300\n6,0.17,1,2\n"
    (tmp_path / "x.csv").write_text(text)
    (video,) = read(tmp_path / "x.csv")
    np.testing.assert_array_equal(video.valid, [True, False, False, False, False, True])
    assert "missing or infinite number" in video.notes[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(4), r"shape \(4,\)"),
        (np.array([["a"]]), r"wanted are numbers"),
        (np.zeros((0, 3)), r"without a frame"),
        (np.array([{}], object), r"pickled ones are never loaded"),
        (np.array([[1, np.nan], [2, np.inf]]), r"no frame has all its numbers"),
    ],
)
def test_arrays_that_are_no_frames_of_features(tmp_path, data, message):
    np.save(tmp_path / "x.npy", data, allow_pickle=True)
    np.save(tmp_path / "a.npy", np.ones((3, 3)))
    result = imported(tmp_path, tmp_path / "s.zarr", fps=50)
    assert result.imported == 1
    assert re.search(message, result.failures["x"])


def test_damaged_hdf5_and_parquet_files_cost_their_own_videos(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.ones((3, 2))
        file["bad"] = np.ones(3)
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    result = imported(tmp_path, tmp_path / "s.zarr", fps=50)
    assert open_store(tmp_path / "s.zarr").ids == ["v"]
    assert "shape (3,)" in result.failures["bad"]
    assert "cut.h5 is no readable HDF5 file" in result.failures["cut"]
    folder = tmp_path / "p"
    folder.mkdir()
    pd.DataFrame({"time": [0.0, 1.0], "a": [1.0, 2.0]}).to_parquet(folder / "a.parquet")
    pd.DataFrame({"time": [0.0, 1.0], "a": ["x", "y"]}).to_parquet(folder / "words.parquet")
    (folder / "cut.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-9])
    result = imported(folder, tmp_path / "p.zarr")
    assert set(result.failures) == {"words", "cut"}
    assert "column a holds 'x'" in result.failures["words"] or "not numbers" in str(result.failures)
    assert "cut.parquet" in result.failures["cut"]


def test_what_cannot_be_done_at_all_is_one_sentence(tmp_path):
    openface(tmp_path / "a.csv", 3)
    store = tmp_path / "s.zarr"
    for message, options in {
        "does not exist": {"source": tmp_path / "none"},
        "unknown format": {"source": tmp_path, "format": "fasttext"},
        "the same place": {"source": tmp_path, "store": tmp_path},
        "--group names the features": {"source": tmp_path, "group": "x"},
        "has no group lips": {"source": tmp_path, "groups": ("lips",)},
        "--all-faces": {"source": tmp_path, "format": "muse", "all_faces": True},
    }.items():
        with pytest.raises(UsageError, match=message):
            run(ImportFeaturesOptions(**{"store": store, **options}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no files with suffix"):
        imported(tmp_path / "empty", store)
    (tmp_path / "twice").mkdir()
    openface(tmp_path / "twice" / "a.csv", 3)
    openface(tmp_path / "twice" / "a.tsv", 3)
    with pytest.raises(UsageError, match=r"a.csv and a.tsv have the same video id"):
        imported(tmp_path / "twice", store)
    table = pd.DataFrame({"video": ["v"] * 2, "time": [0, 1], "a": [1, 2]})
    (tmp_path / "both").mkdir()
    table.to_csv(tmp_path / "both" / "p.csv", index=False)
    table.to_csv(tmp_path / "both" / "q.csv", index=False)
    with pytest.raises(UsageError, match=r"p.csv and q.csv both hold a video 'v'"):
        imported(tmp_path / "both", store)
    assert not store.exists()


def test_a_table_of_many_videos_without_a_row_is_no_silence(tmp_path):
    for name in ("t", "u"):
        rows = "v,0,1\n" if name == "u" else ""
        (tmp_path / f"{name}.csv").write_text("video,time,a\n" + rows)
    result = imported(tmp_path, tmp_path / "s.zarr")
    assert result.failures == {"t": "empty: t.csv has a header and no row below it"}


def test_ids_that_no_store_may_hold_are_failures(tmp_path):
    table = pd.DataFrame({"video": ["../v", "w"], "time": [0, 0], "a": [1, 2]})
    table.to_csv(tmp_path / "t.csv", index=False)
    result = imported(tmp_path / "t.csv", tmp_path / "s.zarr")
    assert "'../v' is no name" in result.failures["%2E%2E/v"]
    assert open_store(tmp_path / "s.zarr").ids == ["w"]
    assert not check_store(tmp_path / "s.zarr")


# ---- going on ----------------------------------------------------------------------------------


def test_import_goes_on_where_it_stopped(tmp_path, monkeypatch):
    source, store = tmp_path / "f", tmp_path / "s.zarr"
    for name in "abcd":
        openface(source / f"{name}.csv", 4, seed=ord(name))
    (source / "x.csv").write_text("frame,success,timestamp\n")

    def stop(report):
        if report.stage == "videos" and report.done == 2:
            raise KeyboardInterrupt

    options = ImportFeaturesOptions(source=source, store=store, commit_videos=1)
    with pytest.raises(KeyboardInterrupt):
        run(options, stop)
    assert open_store(store).ids == ["a", "b"]
    planned = imported(source, store, dry_run=True)
    assert (planned.planned, planned.skipped) == (["c", "d", "x"], 2)
    result = imported(source, store)
    assert (result.skipped, result.imported, result.failed) == (2, 2, 1)
    before = (store / "zarr.json").read_bytes()
    again = imported(source, store)
    assert (again.skipped, again.imported, list(again.failures)) == (4, 0, ["x"])
    # A failure that the store names in the same words is not written again.
    assert (store / "zarr.json").read_bytes() == before

    openface(source / "b.csv", 6, seed=9)  # changed
    openface(source / "x.csv", 5)  # mended
    openface(source / "a.csv", 4, seed=ord("a"))  # the same bytes at another time
    result = imported(source, store)
    assert (result.skipped, result.imported, result.replaced) == (3, 2, 1)
    lengths = [len(open_store(store)[name]) for name in "abcdx"]
    assert lengths == [4, 6, 4, 4, 5]
    assert not check_store(store)


def test_other_options_do_not_mix(tmp_path):
    openface(tmp_path / "a.csv", 4)
    store = tmp_path / "s.zarr"
    imported(tmp_path / "a.csv", store, groups=("au_r",))
    with pytest.raises(StoreMismatchError, match="import_groups"):
        imported(tmp_path / "a.csv", store)


def test_tracks_of_a_changed_file_go(tmp_path):
    store = tmp_path / "s.zarr"
    openface(tmp_path / "a.csv", 6, faces=(0, 1))
    imported(tmp_path / "a.csv", store, all_faces=True)
    assert open_store(store).ids == ["a#1", "a#2"]
    assert imported(tmp_path / "a.csv", store, all_faces=True).skipped == 1
    openface(tmp_path / "a.csv", 7, faces=(0,))
    assert imported(tmp_path / "a.csv", store, all_faces=True).replaced == 1
    assert open_store(store).ids == ["a#1"]
    assert not check_store(store)


def test_the_store_says_where_it_comes_from(tmp_path):
    muse(tmp_path / "faus")
    cli = CliRunner()

    def feie(*arguments, code=0):
        result = cli.invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.stdout

    store = tmp_path / "s.zarr"
    shown = feie("import", tmp_path / "faus", "--store", store, "--group", "face")
    assert "format muse" in shown
    assert "imported: files of format muse" in feie("info", store).replace("\n", " ")
    made = json.loads(feie("info", store, "--json"))["provenance"]
    assert made["extractor"] == {"name": "muse", "sha256": None}
    assert made["options"]["import_group"] == "face"
    (command,) = feie("info", store, "--reproduce").splitlines()
    assert command.startswith("feie import ")
    again = feie(*command.split()[1:])
    assert "2 imported" in again
    twin = open_store(tmp_path / "s.again.zarr")
    assert twin.fingerprint == open_store(store).fingerprint
    assert "2 the same" in feie("verify", store, "--videos", tmp_path / "faus")
    (tmp_path / "faus" / "00001.csv").write_text("changed")
    shown = feie("verify", store, "--videos", tmp_path / "faus", code=1)
    assert "00001.csv" in shown
    failed = json.loads(feie("import", tmp_path / "faus", "--store", store, "--json", "--group",
                             "face", code=3))  # fmt: skip
    assert list(failed["failures"]) == ["00001"]


# ---- what it is for ----------------------------------------------------------------------------


@pytest.mark.parametrize("subset", ["au_r", ""])
def test_a_head_trains_on_an_imported_store(tmp_path, subset):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(12):
        joy = rng.random()
        openface(
            tmp_path / "f" / f"{i:05d}.csv", 8 + i, seed=i, lost=(2,), AU12_r=round(5 * joy, 3)
        )
        rows.append((f"[{i:05d}]", "train" if i < 8 else "val", joy, 1 - joy))
    columns = ["File_ID", "split", "Joy", "Calm"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "labels.csv", index=False)
    cli = CliRunner()

    def feie(*arguments):
        result = cli.invoke(app, [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    store = tmp_path / "s.zarr"
    feie("import", tmp_path / "f", "--store", store, "--json")
    assert feie("verify", store, "--json")["sound"]
    given = ("--store", store, "--labels", tmp_path / "labels.csv")
    runs = ("--runs", tmp_path / "runs", "--name", "a", "--epochs", 1, "--width", 8, "--t", 24)
    trained = feie("train-head", *given, *runs, "--json", *(("--subset", subset) if subset else ()))
    assert trained["subset"] == ([subset] if subset else ["pose", "au_r", "au_c"])
    run_given = ("--run", tmp_path / "runs" / "a")
    assert feie("evaluate", *run_given, *given, "--json")["n"] == 4
    head = json.loads((tmp_path / "runs" / "a" / "head.json").read_text())
    assert "AU12_r" in str(head)


def test_wide_features_have_smaller_chunks_and_read_back(tmp_path):
    rng = np.random.default_rng(0)
    values = {f"{i:05d}": rng.normal(size=(300 + i, 1024)).astype(np.float32) for i in range(3)}
    with h5py.File(tmp_path / "w2v.h5", "w") as file:
        for name, array in values.items():
            file[name] = array
    imported(tmp_path / "w2v.h5", tmp_path / "s.zarr", fps=49.95, group="audio")
    store = open_store(tmp_path / "s.zarr")
    assert store.array("affect").chunks == (4096, 1024)
    rows = store.read(["00002", "00000"])
    np.testing.assert_array_equal(rows.values[:302], values["00002"])
    np.testing.assert_array_equal(rows.values[302:], values["00000"])
    assert not check_store(tmp_path / "s.zarr")


# ---- any file ----------------------------------------------------------------------------------


def slowly(table, columns):
    """What a video of OpenFace rows should become: the obvious way, a frame at a time."""
    seen = table[table.success == 1]
    counts = {face: int((seen.face_id == face).sum()) for face in dict.fromkeys(seen["face_id"])}
    # With one face a frame there is nobody to tell apart.
    alone = not table["frame"].duplicated().any()
    main = max(counts, key=counts.get, default=None)
    first, last = int(table["frame"].min()), int(table["frame"].max())
    steps = np.diff(sorted(set(table["frame"])))
    step = int(np.gcd.reduce(steps)) if len(steps) else 1
    # Few gaps have a factor in common by chance.
    step = step if step ** (len(steps) - 1) >= 20 else 1
    first -= step * ((first - 1) // step)  # OpenFace counts from 1
    out = []
    for frame in range(first, last + 1, step):
        here = table[(table.frame == frame) & (table.success == 1)]
        here = here if alone else here[here.face_id == main]
        out.append(here[columns].iloc[0].to_list() if len(here) else [np.nan] * len(columns))
    return np.array(out, np.float32)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_ragged_rows_of_several_faces_as_the_slow_way_has_them(tmp_path, data):
    frames = data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=12, unique=True))
    rows = []
    for frame in frames:
        faces = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
        for face in faces:
            value = data.draw(st.floats(0, 5, width=32))
            success = data.draw(st.integers(0, 1))
            rows.append((frame, face, frame / 25, 0.9, success, value, value / 2))
    names = ["frame", "face_id", "timestamp", "confidence", "success", "AU01_r", "AU02_r"]
    table = pd.DataFrame(rows, columns=names)
    table.to_csv(tmp_path / "v.csv", index=False)
    (video,) = read(tmp_path / "v.csv", "openface")
    expected = slowly(table, ["AU01_r", "AU02_r"])
    np.testing.assert_array_equal(video.values, expected)
    np.testing.assert_array_equal(video.valid, ~np.isnan(expected[:, 0]))
    assert (np.diff(video.time) > 0).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_mutated_files_never_end_in_a_traceback(tmp_path, data):
    name = data.draw(
        st.sampled_from(["o.csv", "p.csv", "l.csv", "m.csv", "h.h5", "n.npy", "t.parquet"])
    )
    source = tmp_path / "good" / name
    if not source.exists():
        openface(tmp_path / "good" / "o.csv", 4, faces=(0, 1))
        pyfeat(tmp_path / "good" / "p.csv", [("v", i, (1, 2, 3, 4)) for i in range(4)])
        libreface(tmp_path / "good" / "l.csv")
        muse(tmp_path / "good", ids=("m",))
        with h5py.File(tmp_path / "good" / "h.h5", "w") as file:
            file["a"], file["b"] = np.ones((4, 2)), np.zeros((3, 2))
        np.save(tmp_path / "good" / "n.npy", np.ones((4, 2)))
        pd.DataFrame({"time": [0, 1.0], "a": [1, 2.0]}).to_parquet(tmp_path / "good" / "t.parquet")
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["byte", "cut", "drop", "repeat", "text"])):
            case "byte":
                content[at] = data.draw(st.integers(0, 255))
            case "cut" if at:
                del content[at:]
            case "drop":
                del content[at : at + 7]
            case "repeat":
                content[at:at] = content[at : at + 20]
            case "text":
                content[at:at] = data.draw(
                    st.sampled_from([b",", b"\n", b'"', b";", b"nan", b"9" * 30])
                )
        if not content:
            content = bytearray(b",")
    path = tmp_path / name
    path.write_bytes(bytes(content))
    form = "auto" if data.draw(st.booleans()) else data.draw(st.sampled_from(sorted(formats())))
    message, videos = "", []
    try:
        videos = read(path, form, fps=data.draw(st.sampled_from([None, 25.0])))
    except (UsageError, VideoError) as error:
        message = str(error)
    assert "\n" not in message
    for video in videos:
        if video.failure:
            assert "\n" not in video.failure
            continue
        assert video.values.dtype == np.float32
        assert video.values.shape == (len(video.valid), len(video.schema))
        assert np.isfinite(video.values[video.valid]).all()
        assert np.isnan(video.values[~video.valid]).all()
        assert video.time is None or (
            np.isfinite(video.time).all() and (np.diff(video.time) >= 0).all()
        )


# ---- the page ----------------------------------------------------------------------------------


def test_the_commands_of_the_page_import(project, tmp_path, monkeypatch):
    page = (project / "docs" / "formats.md").read_text()
    at = page.index("## Importing")
    commands = re.findall(r"^feie (import .*)$", page, re.MULTILINE)
    openface(tmp_path / "openface" / "a.csv", 3)
    pyfeat(tmp_path / "pyfeat" / "a.csv", [("a.mp4", i, (1, 2, 3, 4)) for i in range(3)])
    (tmp_path / "libreface").mkdir()
    libreface(tmp_path / "libreface" / "a.csv")
    muse(tmp_path / "feats" / "vit")
    (tmp_path / "wav2vec").mkdir()
    pd.DataFrame(np.ones((3, 4))).to_csv(tmp_path / "wav2vec" / "a.csv")
    with h5py.File(tmp_path / "w2v.h5", "w") as file:
        file["a"] = np.ones((3, 4))
    monkeypatch.chdir(tmp_path)
    for command in commands:
        result = CliRunner().invoke(app, [*command.split(), "--json"])
        assert result.exit_code == 0, result.output
        shown = json.loads(result.stdout)
        named = re.search(rf"^\| `{shown['format']}` \|[^|]*\|([^|]*)\|", page[at:], re.MULTILINE)
        known = re.findall(r"\w+", named[1])
        assert all(g in known or g in ("vit", "audio") for g in shown["groups"])
    assert len(commands) == 6
