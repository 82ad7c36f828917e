"""`feie inspect`: what a picture shows, where faces come from, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feie.cli import app
from feie.features.errors import UsageError
from feie.features.faces.align import ARCFACE_TEMPLATE
from feie.features.faces.crop import face_picture
from feie.features.schema import AFFECT, VA_EXPR8, Schema
from feie.features.store.writer import StoreWriter
from feie.features.video import stills as stills_module
from feie.features.video.file import VideoReader, open_reader
from feie.features.video.sources import discover
from feie.features.video.stills import stills
from feie.pipeline.inspect.cells import cells_of
from feie.pipeline.inspect.job import InspectOptions, _plain, run
from feie.pipeline.inspect.panels import panels_of
from feie.pipeline.inspect.picture import draw, encode
from feie.pipeline.inspect.source import faces_of

NAN = float("nan")
unhurried = hypothesis_settings(deadline=None)


def rows(n: int, schema: Schema = AFFECT, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random((n, len(schema)), np.float32)
    if "expr" in schema.groups:
        span = slice(*schema.groups["expr"])
        values[:, span] /= values[:, span].sum(1, keepdims=True)
    return values


@pytest.fixture(scope="module")
def store(tmp_path_factory, settings, record):
    path = tmp_path_factory.mktemp("inspect") / "s.zarr"
    with StoreWriter(path, settings) as writer:
        for item in (record("a/1", 60), record("a/2", 40), record("b", 1)):
            writer.append(item)
        writer.append(record("broken", 0, message="truncated: broken.mp4 ends early"))
        nobody = record("nobody", 20)
        nobody.valid[:] = False
        nobody.affect[:] = np.nan
        writer.append(nobody)
    return path


# --- single frames of a source ---------------------------------------------------------------


@pytest.mark.parametrize("jump", [0.2, 10.0])
@pytest.mark.parametrize("fps", [None, 7.0])
def test_stills_are_the_frames_of_a_reading_from_front_to_back(
    tmp_path, clip, monkeypatch, jump, fps
):
    clip(tmp_path / "v" / "a.mp4", 130)
    source = discover(tmp_path / "v").sources[0]
    with open_reader(source, fps) as reader:
        frames = {frame.time: frame.image for frame in reader}
    times = [*list(frames)[::9], list(frames)[-1]]
    monkeypatch.setattr(stills_module, "_JUMP", jump)
    found = stills(source, times, fps)
    assert set(found) == set(times)
    assert all(np.array_equal(found[time], frames[time]) for time in times)


def test_a_long_way_is_jumped_not_decoded(tmp_path, clip, monkeypatch):
    clip(tmp_path / "v" / "a.mp4", 300)
    source = discover(tmp_path / "v").sources[0]
    monkeypatch.setattr(stills_module, "_JUMP", 3.0)
    decoded = []
    original = VideoReader._timed
    monkeypatch.setattr(
        VideoReader, "_timed", lambda self: (decoded.append(1) or pair for pair in original(self))
    )
    assert list(stills(source, [0.0, 6.0, 11.0])) == [0.0, 6.0, 11.0]
    assert len(decoded) < 60  # three groups of twelve pictures at most, and their neighbours


def test_stills_go_by_the_times_of_a_reading_where_those_are_repaired(tmp_path, clip, monkeypatch):
    """Two streams end to end: the time stamps fall in the middle, and a seek lands elsewhere."""
    parts = [clip(tmp_path / f"{seed}.ts", 80, seed=seed).read_bytes() for seed in (0, 1)]
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.ts").write_bytes(b"".join(parts))
    source = discover(tmp_path / "v").sources[0]
    with open_reader(source) as reader:
        frames = {frame.time: frame.image for frame in reader}
    assert len(frames) == 160
    monkeypatch.setattr(stills_module, "_JUMP", 0.5)
    found = stills(source, list(frames)[5::20])
    assert len(found) == 8
    assert all(np.array_equal(found[time], frames[time]) for time in found)


def test_stills_of_a_folder_leave_out_missing_numbers(tmp_path):
    (tmp_path / "v").mkdir()
    for number in (1, 2, 4):
        cv2.imwrite(str(tmp_path / "v" / f"{number:05d}.png"), np.full((8, 8, 3), number, np.uint8))
    (source,) = discover(tmp_path / "v").sources
    found = stills(source, [0.0, 2 / 30, 3 / 30])
    assert {time: int(image[0, 0, 0]) for time, image in found.items()} == {0.0: 1, 3 / 30: 4}


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["single_face.mp4", "head-pose-face-detection-female-and-male.gif"]
)
def test_stills_of_real_files(shared, monkeypatch, name):
    source = discover(shared / "videos" / "clips" / name).sources[0]
    with open_reader(source) as reader:
        frames = [(time, image()) for k, (time, image) in enumerate(reader.lazily()) if k % 17 == 3]
    monkeypatch.setattr(stills_module, "_JUMP", 0.5)
    found = stills(source, [time for time, _ in frames])
    assert all(np.array_equal(found[time], image) for time, image in frames)


def test_a_face_is_cut_out_by_what_is_known_of_it():
    image = np.zeros((200, 300, 3), np.uint8)
    image[100:112, 200:212] = 255
    nowhere = np.full((5, 2), NAN, np.float32)
    landmarks = ARCFACE_TEMPLATE + np.array([150, 50], np.float32)
    aligned = face_picture(image, landmarks, np.full(4, NAN), 112)
    assert aligned[55, 55].min() == 255  # 150 + 55, 50 + 55
    boxed = face_picture(image, nowhere, np.array([196, 96, 216, 116], np.float32), 80)
    assert boxed[40, 40].min() == 255
    assert boxed[2, 2].max() == 0
    whole = face_picture(image, nowhere, np.full(4, NAN), 60)
    assert whole[31, 41].min() == 255
    assert whole.shape == (60, 60, 3)


# --- cells and panels ------------------------------------------------------------------------


@unhurried
@given(
    valid=st.lists(st.booleans(), min_size=1, max_size=60),
    jump=st.integers(0, 59),
    most=st.integers(1, 80),
)
def test_cells_say_what_a_plain_loop_says(valid, jump, most):
    n = len(valid)
    time = np.arange(n) / 25 + 5.0 * (np.arange(n) > jump)
    values = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    values[~np.array(valid)] = np.nan
    cells = cells_of(time, np.array(valid), values, 25.0, most)
    wide = -(-n // most)
    groups = [range(k, min(k + wide, n)) for k in range(0, n, wide)]
    assert (len(cells.left), cells.frames) == (len(groups), wide)
    for cell, group in enumerate(groups):
        seen = [i for i in group if valid[i]]
        assert cells.share[cell] == pytest.approx(len(seen) / len(group))
        if not seen:
            assert np.isnan([cells.low[cell], cells.mean[cell], cells.high[cell]]).all()
            continue
        np.testing.assert_allclose(cells.mean[cell], values[seen].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(cells.low[cell], values[seen].min(0))
        np.testing.assert_array_equal(cells.high[cell], values[seen].max(0))


@unhurried
@given(valid=st.lists(st.booleans(), min_size=4, max_size=40), jump=st.integers(0, 38))
def test_no_line_crosses_a_gap(valid, jump):
    n = len(valid)
    time = np.arange(n) + 100.0 * (np.arange(n) > jump)
    face = np.array(valid)
    cells = cells_of(time, face, np.ones((n, 1), np.float32), 1.0)
    x, cell = cells.outline()
    drawn = [(a, b) for a, b in pairwise(x) if not np.isnan(a + b)]
    for i in range(n):
        middle = time[i] + 0.5
        assert any(a <= middle <= b for a, b in drawn) == face[i]
    assert not any(b - a > 1 for a, b in drawn)
    assert all(face[c] for c, at in zip(cell, x, strict=True) if not np.isnan(at))
    hatched = sum(length for _, length in cells.gaps())
    assert hatched == pytest.approx((~face).sum())
    borders, field = cells.edges()
    assert len(borders) == len(field) + 1
    assert (np.diff(borders) > 0).all()
    assert [f for f in field if f >= 0] == list(range(n))


def test_a_panel_fits_what_a_group_holds():
    def kinds(schema, values):
        return {panel.columns[0]: (panel.kind, panel.low, panel.high)
                for panel in panels_of(schema, values)}  # fmt: skip

    standard = kinds(AFFECT, rows(30))
    assert standard == {
        "valence": ("lines", -1, 1), "neutral": ("stack", 0, 1), "AU01": ("map", 0, 1),
    }  # fmt: skip
    assert [p.kind for p in panels_of(VA_EXPR8, rows(30, VA_EXPR8))] == ["lines", "stack"]
    nothing = np.full((5, len(AFFECT)), np.nan, np.float32)
    assert kinds(AFFECT, nothing) == standard
    peer = Schema.of({"pose": ["Tx", "Rx"], "intensity": ["AU01_r", "AU02_r"], "few": ["x", "y"],
                      "wide": [f"w{i}" for i in range(9)]})  # fmt: skip
    values = np.random.default_rng(0).random((50, 15), np.float32)
    values *= np.array([100, 0.1, 5, 5, 2, 2, *[3] * 9], np.float32)
    found = {panel.name: panel for panel in panels_of(peer, values)}
    assert {name: panel.kind for name, panel in found.items()} == {
        "pose": "map", "intensity": "map", "few": "lines", "wide": "map",
    }  # fmt: skip
    assert np.isnan(found["pose"].low)  # each row has a scale of its own
    assert found["intensity"].high == pytest.approx(values[:, 2:4].max())
    loose = Schema(("a", "b", "c"), {"g": (0, 1)})
    assert [p.columns for p in panels_of(loose, values[:, :3])] == [("a",), ("b", "c")]


@pytest.mark.parametrize("count", [1, 2, 4000])
@pytest.mark.parametrize("schema", [AFFECT, VA_EXPR8, Schema.of({"g$": ["a$b$", "_c^"]})])
def test_any_video_becomes_a_picture(count, schema):
    values = rows(count, schema)
    valid = np.arange(count) % 7 != 3
    values[~valid] = np.nan
    cells = cells_of(np.arange(count) / 30, valid, values, NAN)
    figure = draw("an $id$_^", "about", "from", cells, panels_of(schema, values))
    data = encode(figure, "png")
    assert data.startswith(b"\x89PNG")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] == 1650
    assert image[:, -12:].min() == 255  # nothing is cut off at the right


def test_valence_is_drawn_as_it_is_and_not_at_all_in_a_gap():
    values, valid = rows(30), np.ones(30, bool)
    valid[10:20] = False
    values[~valid] = np.nan
    cells = cells_of(np.arange(30) / 10, valid, values, 10.0)
    figure = draw("id", "", "", cells, panels_of(AFFECT, values))
    line = next(
        line for axes in figure.axes for line in axes.lines if line.get_color() == "#0072B2"
    )
    x, y = line.get_data()
    for at, value in zip(x, y, strict=True):
        if not np.isnan(at):
            assert value in (values[min(int(at * 10), 29), 0], values[int(at * 10) - 1, 0])
            assert not 1.0 < at < 2.0
    assert np.nanmax(np.abs(y)) <= 1


def test_the_same_numbers_give_the_same_file():
    values = rows(40)
    cells = cells_of(np.arange(40) / 30, np.ones(40, bool), values, 30.0)
    few = panels_of(AFFECT, values)[:1]
    for kind, start in (("svg", b"<?xml"), ("pdf", b"%PDF")):
        one, two = (encode(draw("i", "", "", cells, few), kind) for _ in range(2))
        assert one == two
        assert one.startswith(start)


# --- the job ---------------------------------------------------------------------------------


def test_faces_come_from_the_frames_that_the_rows_were_made_of(tmp_path, settings, record, clip):
    path = clip(tmp_path / "v" / "a.mp4", 60)
    source = discover(tmp_path / "v").sources[0]
    with open_reader(source) as reader:
        frames = {frame.time: frame.image for frame in reader}
    made = record("a", 60)
    made.valid[:] = True
    made.valid[20:40] = False
    made.affect[:] = rows(60)
    made.affect[20:40] = np.nan
    made.time[:] = list(frames)
    made.landmarks[:] = ARCFACE_TEMPLATE
    made.size = path.stat().st_size
    session = {**settings.session, "arguments": {"videos": str(tmp_path / "v")}}
    with StoreWriter(tmp_path / "s.zarr", replace(settings, session=session)) as writer:
        writer.append(made)
    from feie.features.store.reader import open_store

    store = open_store(tmp_path / "s.zarr")
    faces, note = faces_of(store, store["a"], slice(0, 60), None)
    assert note == ""
    assert [face.place for face in faces] == [0, 1, 2, 3, 6, 7, 8, 9]  # frame 19 ends where 3 does
    for face in faces:
        row = int(np.flatnonzero(made.time == face.time)[0])
        assert made.valid[row]
        assert abs(row - 6 * (face.place + 0.5)) <= 3
        assert np.array_equal(
            face.image, face_picture(frames[face.time], ARCFACE_TEMPLATE, made.bbox[row], 160)
        )
    (result,) = run(
        InspectOptions(store=store.path, videos=("a",), out=tmp_path / "p.png")
    ).pictures
    assert result.faces == len(faces)
    path.write_bytes(path.read_bytes() + b"more")
    assert "changed" in faces_of(store, store["a"], slice(0, 60), None)[1]
    path.unlink()
    assert "not there" in faces_of(store, store["a"], slice(0, 60), None)[1]


def test_a_source_is_found_by_its_id_too(tmp_path, store, clip):
    """Stores that were imported name tables of features as their sources."""
    clip(tmp_path / "w" / "a" / "1.mkv", 60)
    options = InspectOptions(store=str(store), videos=("a/1",), source=tmp_path / "w",
                             out=tmp_path / "p.png")  # fmt: skip
    assert run(options).pictures[0].faces > 0
    with pytest.raises(UsageError, match="nowhere"):
        run(options.model_copy(update={"source": tmp_path / "nowhere"}))


def test_patterns_make_a_folder_and_failed_videos_are_named(tmp_path, store):
    result = run(InspectOptions(store=str(store), videos=("b", "a/2", "?o*"), out=tmp_path / "p"))
    files = sorted(p.relative_to(tmp_path / "p").as_posix() for p in (tmp_path / "p").rglob("*.*"))
    assert files == ["a/2.png", "b.png", "nobody.png"]
    assert [picture.faces for picture in result.pictures] == [0, 0, 0]
    again = run(InspectOptions(store=str(store), videos=("b*",), out=tmp_path / "q"))
    assert [picture.video for picture in again.pictures] == ["b"]
    assert again.failed == {"broken": "truncated: broken.mp4 ends early"}


def test_a_window_shows_its_frames_only(tmp_path, store):
    options = InspectOptions(store=str(store), videos=("a/1",), out=tmp_path / "p.svg",
                             start=0.5, stop=1.0)  # fmt: skip
    assert run(options).pictures[0].frames == 16
    assert b"16 of 60 frames" in (tmp_path / "p.svg").read_bytes()
    with pytest.raises(UsageError, match=r"has frames from 0\.00 to 1\.97 s"):
        run(options.model_copy(update={"start": 3.0, "stop": None}))


@unhurried
@given(st.lists(st.text("ab./\\%:*\0 é", min_size=1, max_size=6), min_size=2, max_size=2,
                unique=True))  # fmt: skip
def test_no_id_leaves_the_folder_or_takes_the_place_of_another(ids):
    one, two = (Path("/f") / f"{_plain(name)}.png" for name in ids)
    for path in (one, two):
        assert ".." not in path.parts
        assert path.is_relative_to("/f")
        assert "\0" not in str(path)
    plain = [name for name in ids if "//" not in name and not name.startswith("/")]
    plain = [name for name in plain if not name.endswith("/") and "." not in name.split("/")]
    assert len(plain) < 2 or one != two


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["c"], "'c'"),
        (["broken"], "ends early"),
        ([], "--out FILE.html"),
        (["a/*", "--out", "p.png"], "folder"),
        (["a/1", "--out", "p.jpg"], ".svg"),
        (["a/1", "--from", "2", "--to", "1"], "--from 2"),
        (["a/1", "--from", "9"], "1.97"),
        (["a/1", "--source", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_drawn_is_one_error(tmp_path, store, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", str(store), *arguments])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("p*"))


def test_the_command_names_its_picture_after_the_video(tmp_path, store, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", str(store), "a/1", "--json"])
    (picture,) = json.loads(result.stdout)["pictures"]
    assert (picture["file"], picture["frames"], picture["frames_a_cell"]) == ("a-1.png", 60, 1)
    assert (tmp_path / "a-1.png").read_bytes().startswith(b"\x89PNG")


def test_info_counts_shares_reasons_and_rates(store):
    result = json.loads(CliRunner().invoke(app, ["info", str(store), "--json"]).stdout)
    assert result["reasons"] == {"truncated": 1}
    shares = {name: count for name, count in result["face_shares"].items() if count}
    assert shares == {"none": 1, "80 – 90 %": 2, "all": 1}
    assert (result["fps"], result["sizes"]) == ([30.0, 30.0], [[640, 480, 4]])
    assert result["histogram"][0] == [1, 1, 1]
    assert sum(count for _, _, count in result["histogram"]) == 4
    text = CliRunner().invoke(app, ["info", str(store)]).stdout
    assert "80 – 90 %" in text
    assert "truncated" in text
