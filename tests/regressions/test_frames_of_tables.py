"""Reports: a face that enters late shifts every row; all stamps 0; 1,000 frames a second.

Tools that write a row a frame leave out what they saw no face in, and time image sequences by 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from feie.features.errors import UsageError
from feie.features.formats.reading.rows import BEFORE, EVERY_KTH, LEFT_OUT
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.heads.data.frame_labels import lay_over, load_frame_labels
from feie.pipeline.dump.job import DumpOptions
from feie.pipeline.dump.job import run as dump
from feie.pipeline.imports.job import ImportFeaturesOptions, run

FPS = 25
FRAMES, LATE = 60, 12


def imported(source, store, **options):
    return run(ImportFeaturesOptions(source=source, store=store, **options))


def truth(frame):
    """The number that a tool measures at a frame, counted from 0."""
    return np.sin(0.7 * frame)


def openface(path, frames, step=1 / FPS):
    frames = np.asarray(frames)
    table = pd.DataFrame({"frame": frames + 1, "timestamp": (frames * step).round(3)})
    table["confidence"], table["success"], table["AU01_r"] = 0.9, 1, truth(frames)
    table.to_csv(path, index=False)


def pyfeat(path, frames):
    frames = np.asarray(frames)
    box = dict.fromkeys(("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight"), 9.0)
    pd.DataFrame({**box, "AU01": truth(frames), "frame": frames}).to_csv(path, index=False)


def libreface(path, frames):
    frames = np.asarray(frames)
    table = pd.DataFrame({"frame_idx": frames, "frame_time_in_ms": frames / FPS})
    table.assign(au_1_intensity=truth(frames)).to_csv(path, index=False)


def from_zero(path, frames):
    frames = np.asarray(frames)
    pd.DataFrame({"frame": frames, "a": truth(frames)}).to_csv(path, index=False)


def from_one(path, frames):
    from_zero(path, frames)
    table = pd.read_csv(path)
    table.assign(frame=table.frame + 1).to_parquet(path.with_suffix(".parquet"))
    path.unlink()


@pytest.mark.parametrize("tool", [openface, pyfeat, libreface, from_zero, from_one])
def test_a_late_face_leaves_every_row_at_its_frame(tmp_path, tool):
    source, store = tmp_path / "in", tmp_path / "s.zarr"
    source.mkdir()
    tool(source / "late.csv", [*range(LATE, 30), *range(33, FRAMES)])
    tool(source / "whole.csv", range(FRAMES))
    timed = tool in (openface, libreface)
    result = imported(source, store, **({} if timed else {"fps": FPS}))
    assert (result.notes[BEFORE], result.notes[LEFT_OUT]) == (1, 1)
    video = open_store(store)["late"]
    seen = np.r_[LATE:30, 33:FRAMES]
    np.testing.assert_array_equal(np.flatnonzero(video.valid), seen)
    np.testing.assert_allclose(video.affect[seen, 0], truth(seen), rtol=1e-6)
    np.testing.assert_allclose(video.time, np.arange(FRAMES) / FPS, atol=1e-3)
    assert not check_store(store)


def test_labels_by_frame_and_by_time_meet_the_same_rows(tmp_path):
    frames = np.arange(FRAMES)
    openface(tmp_path / "v.csv", frames[LATE:])
    imported(tmp_path / "v.csv", tmp_path / "s.zarr")
    video = open_store(tmp_path / "s.zarr")["v"]
    laid = {}
    for place, values in (("frame", frames), ("time", frames / FPS)):
        table = pd.DataFrame({"id": "v", place: values, "valence": truth(frames), "arousal": 0.1})
        table.assign(split="train").to_csv(tmp_path / "labels.csv", index=False)
        labels = load_frame_labels(tmp_path / "labels.csv")
        at = video.time if place == "time" else len(video.time)
        laid[place], behind = lay_over(labels.places[0], labels.values[0], at)
        assert behind == 0
    np.testing.assert_array_equal(laid["frame"], laid["time"])
    np.testing.assert_allclose(laid["frame"][video.valid, 0], video.affect[video.valid, 0], 1e-6)


def test_frame_numbers_survive_a_dump(tmp_path):
    openface(tmp_path / "v.csv", range(LATE, FRAMES))
    imported(tmp_path / "v.csv", tmp_path / "s.zarr")
    for form, column, first in (("openface", "frame", 1), ("parquet", "frame", 0)):
        out = tmp_path / form
        dump(DumpOptions(store=str(tmp_path / "s.zarr"), out=out, format=form))
        file = next(p for p in ([out] if out.is_file() else sorted(out.rglob("v.*"))))
        table = pd.read_csv(file) if form == "openface" else pd.read_parquet(file)
        there = table[table["AU01_r"].notna()]
        np.testing.assert_array_equal(there[column] - first, np.arange(LATE, FRAMES))
        np.testing.assert_allclose(there["AU01_r"], truth(there[column] - first), rtol=1e-6)


def test_a_part_of_a_recording_keeps_its_own_times(tmp_path):
    frames = np.arange(LATE, FRAMES)
    table = pd.DataFrame({"frame": frames, "time": 3600 + (frames - LATE) / FPS})
    table.assign(a=truth(frames)).to_csv(tmp_path / "late.csv", index=False)
    from_zero(tmp_path / "other.csv", range(FRAMES))
    table = pd.read_csv(tmp_path / "other.csv").assign(time=np.arange(FRAMES) / FPS)
    table.to_csv(tmp_path / "other.csv", index=False)
    imported(tmp_path, tmp_path / "s.zarr")
    time = open_store(tmp_path / "s.zarr")["late"].time
    np.testing.assert_allclose(time, 3600 + (np.arange(FRAMES) - LATE) / FPS)


def test_whether_frames_count_from_one_is_told_by_time_where_all_begin_late(tmp_path):
    for first in (0, 1):
        folder = tmp_path / str(first)
        folder.mkdir()
        frames = np.arange(LATE, FRAMES)
        table = pd.DataFrame({"frame": frames + first, "time": frames / FPS, "a": 0.5})
        table.to_csv(folder / "v.csv", index=False)
        imported(folder, tmp_path / f"{first}.zarr")
        assert np.flatnonzero(open_store(tmp_path / f"{first}.zarr")["v"].valid)[0] == LATE


@pytest.mark.parametrize(
    ("frames", "rows", "noted"),
    [
        (range(0, 100, 5), 20, True),
        (range(10, 100, 5), 20, True),
        ([12, 19], 20, False),  # a face that was seen twice is no file of every seventh frame
        ([12, 14, 20], 21, False),
    ],
)
def test_files_of_every_kth_frame_are_told_from_faces_that_are_seen_rarely(
    tmp_path, frames, rows, noted
):
    pyfeat(tmp_path / "v.csv", frames)
    result = imported(tmp_path / "v.csv", tmp_path / "s.zarr", fps=FPS)
    video = open_store(tmp_path / "s.zarr")["v"]
    assert (len(video.time), EVERY_KTH in result.notes) == (rows, noted)
    np.testing.assert_allclose(video.time[video.valid], np.asarray(frames) / FPS)


def test_a_first_frame_beyond_all_reason_is_refused(tmp_path):
    openface(tmp_path / "v.csv", range(2_000_000, 2_000_060))
    with pytest.raises(UsageError, match=r"column frame leaps from 1 to 2000001"):
        imported(tmp_path / "v.csv", tmp_path / "s.zarr")


# ---- time ----------------------------------------------------------------------------------------


def muse(path, frames, step):
    frames = np.arange(frames)
    table = pd.DataFrame({"timestamp": frames * step, "segment_id": 1, "a": truth(frames)})
    table.to_csv(path, index=False)


def array(path, frames, step):
    import h5py

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["v/features"] = truth(np.arange(frames))[:, None]
        file["v/time"] = np.arange(frames) * step


def faces(path, frames, step):
    openface(path, range(frames), step)


@pytest.mark.parametrize("tool", [faces, muse, array])
def test_stamps_that_are_all_alike_time_nothing(tmp_path, tool):
    tool(tmp_path / "v.csv", FRAMES, 0.0)
    (file,) = tmp_path.iterdir()
    with pytest.raises(UsageError, match=r"all its 60 time stamps are 0: say .* with --fps"):
        imported(file, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    imported(file, tmp_path / "s.zarr", fps=FPS)
    video = open_store(tmp_path / "s.zarr")[open_store(tmp_path / "s.zarr").ids[0]]
    np.testing.assert_allclose(video.time, np.arange(FRAMES) / FPS)
    assert video.fps == FPS


def test_a_later_rate_corrects_a_store(tmp_path):
    source, store = tmp_path / "in", tmp_path / "s.zarr"
    source.mkdir()
    for name in "abc":
        openface(source / f"{name}.csv", range(FRAMES), 0.001)
    imported(source, store)
    openface(source / "d.csv", range(FRAMES), 0.0)
    assert list(imported(source, store).failures) == ["d"]

    def stop(event):
        if event.stage == "videos" and event.done == 2:
            raise KeyboardInterrupt

    options = ImportFeaturesOptions(source=source, store=store, fps=FPS, commit_videos=1)
    with pytest.raises(KeyboardInterrupt):
        run(options, stop)
    # The run that goes on need not say it again.
    result = imported(source, store)
    assert (result.imported, result.skipped, result.failed) == (2, 2, 0)
    found = open_store(store)
    assert found.provenance["options"]["import_fps"] == FPS
    for name in "abcd":
        np.testing.assert_allclose(found[name].time, np.arange(FRAMES) / FPS)
    assert not check_store(store)
    assert imported(source, store, fps=FPS).skipped == 4

    (source / "a.csv").unlink()
    with pytest.raises(UsageError, match=r"1 videos .* e\.g\. 'a', .*keep their old times"):
        imported(source, store, fps=50)
    assert open_store(store).fingerprint == found.fingerprint


@pytest.mark.parametrize("tool", [faces, array])
def test_an_implausible_rate_is_spoken_of(tmp_path, tool):
    tool(tmp_path / "v.csv", FRAMES, 0.001)
    (file,) = tmp_path.iterdir()
    notes = imported(file, tmp_path / "s.zarr").notes
    assert any("give 1000 frames a second" in note and "--fps" in note for note in notes)
    assert not any("--fps" in n for n in imported(file, tmp_path / "t.zarr", fps=FPS).notes)


def test_a_folder_of_two_tools_names_the_format_that_was_taken(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    openface(source / "a.csv", range(FRAMES))
    pyfeat(source / "b.csv", range(FRAMES))
    result = imported(source, tmp_path / "s.zarr")
    assert (result.format, result.imported, list(result.failures)) == ("openface", 1, ["b"])
    for part in ("b.csv is no file of format openface", "no column success", "--format"):
        assert part in result.failures["b"]


def test_labels_without_a_frame_0_are_spoken_of(tmp_path):
    for first, noted in ((0, False), (1, True)):
        rows = [f"{v},{f + first},0.1,0.2,train" for v in "ab" for f in range(9)]
        text = "\n".join(["id,frame,valence,arousal,split", *rows, ""])
        (tmp_path / "labels.csv").write_text(text)
        notes = load_frame_labels(tmp_path / "labels.csv").notes
        assert any("count from 0" in note for note in notes) == noted
