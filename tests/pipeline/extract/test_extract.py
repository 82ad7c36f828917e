"""`feie extract` as a job: what it writes, skips, redoes, refuses and survives."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

from feie.features.errors import MissingWeightsError, StoreMismatchError, UsageError
from feie.features.extractors.load import load_extractor
from feie.features.faces.bundled import YUNET, read_bundled
from feie.features.faces.detectors import Faces, describe_detector, load_detector
from feie.features.faces.fallback import Fallback
from feie.features.faces.stream import FaceOptions, FaceStream
from feie.features.faces.yunet import YuNet
from feie.features.store.check import check_store
from feie.features.store.reader import open_store
from feie.features.video.sources import discover
from feie.pipeline.engine import local as engine
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractOptions


@pytest.fixture(scope="module")
def videos(tmp_path_factory, clip):
    root = tmp_path_factory.mktemp("videos")
    for i, (name, frames) in enumerate([("b", 9), ("a/x", 70), ("a/y", 1), ("c", 33)]):
        clip(root / f"{name}.mp4", frames, seed=i)
    return root


def run(videos, store, untrained, **options):
    given = {"videos": videos, "store": store, "extractor": str(untrained), "threads": 2}
    given["isolate"] = False  # quicker to start; tests/pipeline/extract/test_faults.py isolates
    return extract.run(ExtractOptions(**{**given, **options}))


def test_every_number_equals_the_plain_path(videos, tmp_path, untrained):
    """Threads, queues and shared batches change nothing: one video, one face at a time."""
    result = run(videos, tmp_path / "s.zarr", untrained, batch_size=16)
    assert (result.videos, result.extracted, result.failed, result.frames) == (4, 4, 0, 113)
    assert result.face_share == 1.0
    store = open_store(tmp_path / "s.zarr")
    assert list(store.rows["id"]) == ["a/x", "a/y", "b", "c"]
    assert check_store(tmp_path / "s.zarr") == []
    extractor = load_extractor(str(untrained))
    for source in discover(videos).sources:
        with FaceStream(source, FaceOptions()) as stream:
            chunks = list(stream)
        faces = np.concatenate([c.aligned for c in chunks])
        plain = np.concatenate([extractor(face[None]).affect for face in faces])
        np.testing.assert_allclose(store[source.video_id].affect, plain, atol=2e-6)
        np.testing.assert_array_equal(
            store[source.video_id].time, np.concatenate([c.time for c in chunks])
        )


def test_threads_and_neighbours_do_not_change_a_bit(videos, tmp_path, untrained):
    run(videos, tmp_path / "one.zarr", untrained, threads=1)
    run(videos, tmp_path / "four.zarr", untrained, threads=4)
    run(videos / "a" / "x.mp4", tmp_path / "alone.zarr", untrained)
    one, four = open_store(tmp_path / "one.zarr"), open_store(tmp_path / "four.zarr")
    for video_id in one.ids:
        np.testing.assert_array_equal(one[video_id].affect, four[video_id].affect)
    alone = open_store(tmp_path / "alone.zarr")
    np.testing.assert_array_equal(one["a/x"].affect, alone[alone.ids[0]].affect)


def test_done_videos_are_skipped_and_changed_ones_redone(videos, tmp_path, untrained, clip):
    root, store = tmp_path / "v", tmp_path / "s.zarr"
    shutil.copytree(videos, root)
    run(root, store, untrained)
    again = run(root, store, untrained)
    assert (again.extracted, again.skipped) == (0, 4)
    os.utime(root / "b.mp4")  # touched, same bytes
    assert run(root, store, untrained).skipped == 4
    clip(root / "b.mp4", 12, seed=9)
    clip(root / "new.mp4", 5)
    third = run(root, store, untrained)
    assert (third.extracted, third.skipped) == (2, 3)
    assert len(open_store(store)["b"]) == 12
    assert open_store(store).ids == ["a/x", "a/y", "b", "c", "new"]


def test_a_dry_run_writes_nothing(videos, tmp_path, untrained):
    planned = run(videos, tmp_path / "s.zarr", untrained, dry_run=True)
    assert planned.planned == ["a/x", "a/y", "b", "c"]
    assert not (tmp_path / "s.zarr").exists()
    run(videos, tmp_path / "s.zarr", untrained)
    assert run(videos, tmp_path / "s.zarr", untrained, dry_run=True).planned == []


def test_a_broken_video_costs_one_video(videos, tmp_path, untrained):
    root, store = tmp_path / "v", tmp_path / "s.zarr"
    shutil.copytree(videos, root)
    (root / "empty.mp4").touch()
    (root / "text.mkv").write_text("no video")
    (root / "notes.txt").write_text("for humans")
    result = run(root, store, untrained)
    assert result.failed == 2
    assert result.failures["empty"].startswith("empty:")
    assert result.failures["text"].startswith("broken:")
    assert any("notes.txt" in name for name in result.ignored)
    assert open_store(store).ids == ["a/x", "a/y", "b", "c"]
    assert set(open_store(store).failures) == {"empty", "text"}
    again = run(root, store, untrained)
    assert (again.extracted, again.skipped, again.failed) == (0, 6, 2)
    shutil.copy(root / "b.mp4", root / "empty.mp4")
    assert run(root, store, untrained).failed == 1
    assert "empty" in open_store(store).ids
    assert check_store(store) == []


def test_numbered_images_keep_their_gaps(tmp_path, untrained):
    import cv2

    folder = tmp_path / "v" / "clip1"
    folder.mkdir(parents=True)
    for number in (1, 2, 5):
        cv2.imwrite(
            str(folder / f"{number:05d}.jpg"), np.full((112, 112, 3), 40 * number, np.uint8)
        )
    run(tmp_path / "v", tmp_path / "s.zarr", untrained, faces="aligned")
    view = open_store(tmp_path / "s.zarr")["clip1"]
    assert view.valid.tolist() == [True, True, False, False, True]
    assert np.isnan(view.affect[2:4]).all()
    assert check_store(tmp_path / "s.zarr") == []


@pytest.fixture
def raw(project, tmp_path):
    """A clip of 320x240 in which one face, of the example, moves about; none in its last five."""
    import av

    path = tmp_path / "raw" / "moving.mp4"
    path.parent.mkdir()
    with av.open(str(project / "data.example" / "videos" / "face-001.mp4")) as given:
        faces = [frame.to_ndarray(format="rgb24") for frame in given.decode(video=0)][:20]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = (
            320,
            240,
            "yuv420p",
            4_000_000,
        )
        for i in range(25):
            image = np.full((240, 320, 3), 90, np.uint8)
            if i < len(faces):
                image[60 + i : 172 + i, 60 + 4 * i : 172 + 4 * i] = faces[i]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_raw_video_needs_nothing_but_feie(raw, tmp_path, untrained, monkeypatch):
    """No detector named, no home folder with weights in it, none that is known at all."""
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    result = run(raw, tmp_path / "s.zarr", untrained)
    assert (result.extracted, result.failures, result.fallback_frames) == (1, {}, 0)
    store = open_store(tmp_path / "s.zarr")
    view = store["moving"]
    assert view.valid.tolist() == [True] * 20 + [False] * 5
    x = view.landmarks[:20, :, 0].mean(axis=1)
    assert np.diff(x) == pytest.approx(4, abs=1.5)
    assert store.provenance["detector"] == describe_detector()
    assert check_store(tmp_path / "s.zarr") == []
    with pytest.raises(StoreMismatchError, match=r"was made with detector (name|follow)"):
        run(raw.parent, tmp_path / "s.zarr", untrained, detector="yunet")


def test_a_continued_store_keeps_its_own_detector(raw, tmp_path, untrained):
    """YuNet alone, not feie's finder, whose first half has the same weights."""
    run(raw, tmp_path / "s.zarr", untrained, detector="yunet")
    shutil.copy(raw, raw.with_name("again.mp4"))
    assert run(raw.parent, tmp_path / "s.zarr", untrained).extracted == 1
    store = open_store(tmp_path / "s.zarr")
    assert store.provenance["detector"]["name"] == "yunet:face_detection_yunet_2023mar"
    np.testing.assert_array_equal(store["again"].landmarks, store["moving"].landmarks)
    with pytest.raises(StoreMismatchError, match=r"was made with detector (name|follow)"):
        run(raw.parent, tmp_path / "s.zarr", untrained, detector="auto")


def test_a_smoothed_store_says_so_and_another_window_is_refused(raw, tmp_path, untrained):
    run(raw, tmp_path / "plain.zarr", untrained)
    run(raw, tmp_path / "steady.zarr", untrained, smooth=7)
    plain, steady = (open_store(tmp_path / f"{name}.zarr") for name in ("plain", "steady"))
    assert steady.provenance["options"]["smooth"] == 7
    assert "smooth" not in plain.provenance["options"]
    x, y = (store["moving"].landmarks[:20] for store in (plain, steady))
    tremble = [np.abs(np.diff(points, 2, axis=0)).mean() for points in (x, y)]
    assert tremble[1] < 0.6 * tremble[0]
    np.testing.assert_allclose(y, x, atol=4)
    np.testing.assert_array_equal(steady["moving"].time, plain["moving"].time)
    with pytest.raises(StoreMismatchError, match="smooth"):
        run(raw, tmp_path / "steady.zarr", untrained, smooth=9)
    with pytest.raises(UsageError, match="odd number of frames"):
        run(raw, tmp_path / "other.zarr", untrained, smooth=8)


def test_detectors_in_turn_are_named_and_what_the_second_found_is_counted(
    raw, tmp_path, untrained, monkeypatch
):
    both = run(raw, tmp_path / "a.zarr", untrained, detector="yunet,auto", isolate=True)
    assert both.fallback_frames == 0
    made = open_store(tmp_path / "a.zarr").provenance["detector"]
    assert made == describe_detector("yunet,auto")
    assert made["fallback"][0]["name"] == "yunet+onet"

    class Unsure(YuNet):
        """Sees a face in every fourth frame."""

        seen = 0

        def detect_many(self, images):
            self.seen += 1
            found = super().detect_many(images)
            return found if self.seen % 4 == 1 else [Faces.none()] * len(images)

        def follow(self, rgb, box):
            return Faces.none()

    path, _ = read_bundled(YUNET)

    def load(_, options, device):
        return Fallback([Unsure(path, "0" * 64, options), load_detector(None, options)])

    monkeypatch.setattr(engine, "load_detector", load)
    result = run(raw, tmp_path / "b.zarr", untrained)
    assert open_store(tmp_path / "b.zarr")["moving"].valid.tolist() == [True] * 20 + [False] * 5
    assert result.fallback_frames == 15
    assert any(line.startswith("in 15 frames only the second") for line in result.lines())


@pytest.mark.parametrize(
    ("detector", "said"), [(None, r"pip install \."), ("scrfd", r"\.insightface.*--detector")]
)
def test_without_weights_one_sentence_says_what_to_do(
    tmp_path, untrained, clip, monkeypatch, never_built, detector, said
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    clip(tmp_path / "v" / "wide.mp4", 5, size=(160, 120))
    before = threading.active_count()
    with pytest.raises(MissingWeightsError, match=said):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained, detector=detector)
    assert threading.active_count() == before


def test_other_options_on_the_same_store_are_refused(videos, tmp_path, untrained):
    run(videos, tmp_path / "s.zarr", untrained)
    with pytest.raises(StoreMismatchError, match="options fps = None"):
        run(videos, tmp_path / "s.zarr", untrained, fps=5)
    with pytest.raises(UsageError, match="same folder"):
        run(videos, videos, untrained)


def test_half_precision_is_another_extractor(videos, tmp_path, untrained):
    run(videos, tmp_path / "s.zarr", untrained)
    with pytest.raises(StoreMismatchError, match="extractor precision = None, now it is 'bf16'"):
        run(videos, tmp_path / "s.zarr", untrained, precision="bf16", retry_failed=True)
    run(videos, tmp_path / "half.zarr", untrained, precision="bf16", device="cpu")
    exact, half = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "half.zarr")
    assert half.provenance["extractor"]["precision"] == "bf16"
    gap = np.abs(exact["a/x"].affect - half["a/x"].affect).max()
    assert 0 < gap < 0.05
    with pytest.raises(UsageError, match="fp16 is for CUDA"):
        run(videos, tmp_path / "no.zarr", untrained, precision="fp16", device="cpu")


def test_embeddings_on_request(videos, tmp_path, untrained):
    run(videos, tmp_path / "s.zarr", untrained, embedding=True)
    embedding = open_store(tmp_path / "s.zarr").array("embedding")
    assert embedding.shape == (113, 8)
    assert embedding.dtype == np.float16
    assert np.isfinite(embedding[:]).all()
    assert check_store(tmp_path / "s.zarr") == []


def test_a_source_that_changes_while_it_is_read_is_a_failure(
    tmp_path, untrained, clip, monkeypatch
):
    from feie.pipeline.engine import threads as stage_one

    clip(tmp_path / "v" / "a.mp4", 5)
    real = stage_one.fingerprint

    def then_it_grows(source, *rest):
        digest = real(source, *rest)
        with source.path.open("ab") as file:
            file.write(b"more")
        return digest

    monkeypatch.setattr(stage_one, "fingerprint", then_it_grows)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert result.failures["a"].startswith("changed:")
    monkeypatch.setattr(stage_one, "fingerprint", real)
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained).extracted == 1


@pytest.mark.slow
def test_a_few_waiting_faces_do_not_block_hundreds_of_failures(tmp_path, untrained, clip):
    """Ten faces wait for a full batch while more failures than may wait pile up behind them."""
    clip(tmp_path / "v" / "a.mp4", 10)
    for i in range(200):
        (tmp_path / "v" / f"b{i:03d}.mp4").write_text("no video")
    done = threading.Event()

    def work() -> None:
        assert run(tmp_path / "v", tmp_path / "s.zarr", untrained).failed == 200
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(60)
    assert open_store(tmp_path / "s.zarr").ids == ["a"]


def test_memory_holds_numbers_and_not_pictures(tmp_path, untrained, clip):
    """Peak memory above that of a short video is a few numbers a frame, not its pictures."""
    import tracemalloc

    peaks = []
    for frames in (500, 1500):
        source = clip(tmp_path / str(frames) / "a.mp4", frames)
        tracemalloc.start()
        run(source.parent, tmp_path / f"{frames}.zarr", untrained, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The pictures of 1,000 frames are 37.6 MB; the queue may hold up to 9.6 MB, by chance.
    assert peaks[1] - peaks[0] < 16e6


def test_finished_videos_are_kept_when_weights_are_missing(
    tmp_path, untrained, clip, monkeypatch, never_built
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in "abc":
        clip(tmp_path / "v" / f"{name}.mp4", 64)
    clip(tmp_path / "v" / "wide.mp4", 5, size=(160, 120))
    with pytest.raises(MissingWeightsError):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained, threads=1)
    assert open_store(tmp_path / "s.zarr").ids == ["a", "b", "c"]


def test_a_detector_that_does_not_load_blames_no_video(tmp_path, untrained, clip, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    clip(tmp_path / "v" / "wide.mp4", 5, size=(160, 120))
    monkeypatch.setattr(engine, "load_detector", broken)
    with pytest.raises(UsageError, match=r"libGL\.so\.1"):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert open_store(tmp_path / "s.zarr").failures == {}


def test_a_failed_first_run_fixes_no_options(videos, tmp_path, untrained):
    with pytest.raises(UsageError, match="frame rate"):
        run(videos, tmp_path / "s.zarr", untrained, fps=2000)
    assert run(videos, tmp_path / "s.zarr", untrained).extracted == 4


def test_the_same_failure_is_told_once(tmp_path, untrained, clip):
    clip(tmp_path / "v" / "a.mp4", 5)
    (tmp_path / "v" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    for _ in range(3):
        assert list(run(tmp_path / "v", tmp_path / "s.zarr", untrained).failures) == ["gone"]
    assert len(open_store(tmp_path / "s.zarr").rows) == 2


@pytest.mark.shared
@pytest.mark.slow
def test_real_clips(shared, tmp_path):
    """Every tenth of a second of every clip; driving_d14 is a close-up that 640 pixels miss."""
    result = extract.run(
        ExtractOptions(
            videos=shared / "videos",
            store=tmp_path / "s.zarr",
            detector=f"scrfd:{shared / 'models' / 'det_500m.onnx'}",
            fps=5,
        )
    )
    assert (result.videos, result.failed) == (23, 0)
    store = open_store(tmp_path / "s.zarr")
    share = store.videos["faces"]
    assert share["clips/no_face"] == 0
    assert share["clips/driving_d14"] >= 0.99
    assert share["clips/single_face"] == 1
    assert 0.3 < share["clips/face_noface"] < 0.55
    assert check_store(tmp_path / "s.zarr") == []


@pytest.mark.shared
def test_a_detector_other_than_the_stores_is_refused_before_any_video(shared, tmp_path, untrained):
    """At once, not when the first video has used it."""
    source = shared / "videos" / "clips" / "single_face.mp4"
    scrfd, yunet = (
        f"{kind}:{shared / 'models' / name}.onnx"
        for kind, name in (("scrfd", "det_500m"), ("yunet", "face_detection_yunet_2023mar"))
    )
    store = tmp_path / "s.zarr"
    run(source, store, untrained, detector=scrfd, fps=3, isolate=False)
    made = open_store(store).provenance
    assert made["detector"]["follow"] == 160
    again = {"detector": yunet, "fps": 3, "isolate": False}
    for what in ({}, {"dry_run": True}):  # with nothing to do, too
        with pytest.raises(StoreMismatchError, match=r"was made with detector (name|follow)"):
            run(source, store, untrained, **again, **what)
    assert run(source, store, untrained, fps=3, isolate=False).skipped == 1  # its own
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "empty.mp4").touch()
    with pytest.raises(StoreMismatchError, match=r"was made with detector (name|follow)"):
        run(tmp_path / "v", store, untrained, **again)
    assert open_store(store).failures == {}
    again = {"detector": scrfd, "fps": 3, "isolate": False, "follow": False}
    with pytest.raises(StoreMismatchError, match="detector follow = 160, now it is 0"):
        run(tmp_path / "v", store, untrained, **again)


@pytest.mark.shared
def test_all_faces_become_ids_of_their_own(shared, tmp_path, untrained):
    """Two people in every frame; tracks are rows of the whole video, in the same times."""
    from feie.pipeline.stores import verify

    name = "head-pose-face-detection-female-and-male.gif"
    (tmp_path / "v").mkdir()
    shutil.copy(shared / "videos" / "clips" / name, tmp_path / "v" / "pair.gif")
    clip_options = {
        "detector": f"scrfd:{shared / 'models' / 'det_500m.onnx'}",
        "all_faces": True,
        "fps": 4,
        "isolate": False,
    }
    store = tmp_path / "s.zarr"
    first = run(tmp_path / "v", store, untrained, **clip_options)
    assert (first.extracted, first.failed) == (1, 0)
    opened = open_store(store)
    assert opened.ids[:2] == ["pair#1", "pair#2"]
    one, two = opened["pair#1"], opened["pair#2"]
    np.testing.assert_array_equal(one.time, two.time)
    assert one.valid.mean() >= two.valid.mean() > 0.5
    both = one.valid & two.valid
    x = [view.landmarks[both].mean(axis=(1, 2)) for view in (one, two)]
    assert (np.sign(x[0] - x[1]) == np.sign(x[0][0] - x[1][0])).all()  # nobody changes places
    assert check_store(store) == []
    assert verify.run(verify.VerifyOptions(store=str(store), videos=tmp_path / "v")).sound
    # Run again: known. Other bytes: all tracks are replaced, and those that are gone are gone.
    assert run(tmp_path / "v", store, untrained, **clip_options).skipped == 1
    (tmp_path / "v" / "pair.gif").write_bytes(b"no video")
    assert run(tmp_path / "v", store, untrained, **clip_options).failed == 1
    assert open_store(store).ids == []
    assert set(open_store(store).failures) == {"pair"}
    shutil.copy(shared / "videos" / "clips" / name, tmp_path / "v" / "pair.gif")
    again = run(tmp_path / "v", store, untrained, **clip_options)
    assert (again.extracted, again.replaced) == (1, 1)
    assert open_store(store).failures == {}
    np.testing.assert_array_equal(open_store(store)["pair#2"].affect, two.affect)
    assert check_store(store) == []


def test_names_that_look_like_tracks_are_refused(tmp_path, untrained, clip):
    clip(tmp_path / "v" / "a#2.mp4", 5)
    with pytest.raises(UsageError, match="rename"):
        run(tmp_path / "v", tmp_path / "s.zarr", untrained, all_faces=True)
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained).extracted == 1


def test_aligned_videos_have_one_track(videos, tmp_path, untrained):
    run(videos, tmp_path / "main.zarr", untrained)
    run(videos, tmp_path / "all.zarr", untrained, all_faces=True)
    main, every = open_store(tmp_path / "main.zarr"), open_store(tmp_path / "all.zarr")
    assert every.ids == [f"{video_id}#1" for video_id in main.ids]
    for video_id in set(main.ids) - {"a/y"}:
        np.testing.assert_array_equal(every[f"{video_id}#1"].affect, main[video_id].affect)
    assert not every["a/y#1"].valid.any()  # one frame is no track, but the video is known
    assert check_store(tmp_path / "all.zarr") == []


def test_the_command_in_the_provenance_makes_an_equal_store(videos, tmp_path, untrained):
    import shlex

    from typer.testing import CliRunner

    from feie.cli import app

    strange = tmp_path / "it's a folder"
    shutil.copytree(videos, strange)
    store = tmp_path / "s.zarr"
    run(strange, store, untrained, fps=12.5, batch_size=16, embedding=True, device="cpu")
    result = CliRunner().invoke(app, ["info", str(store), "--reproduce"])
    command = shlex.split(result.stdout)
    assert command[:4] == ["feie", "extract", "--videos", str(strange)]
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    again = open_store(command[command.index("--store") + 1])
    assert again.path != str(store)
    assert again.fingerprint == open_store(store).fingerprint
    for name in ("affect", "time", "valid", "bbox", "embedding"):
        np.testing.assert_array_equal(again.array(name)[:], open_store(store).array(name)[:])
