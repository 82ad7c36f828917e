"""What a run of extract says and keeps: HDR, faceless videos, clocks, replaced files, failures."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from feie.features.errors import VideoError
from feie.features.store.reader import open_store
from feie.features.video.file import VideoReader
from feie.pipeline.engine.options import ExtractOptions
from feie.pipeline.extract import job as extract
from feie.pipeline.extract.job import ExtractResult


def run(videos: Path, store: Path, weights: Path, **options: Any) -> ExtractResult:
    given = {"videos": videos, "store": store, "extractor": str(weights), "isolate": False}
    return extract.run(ExtractOptions(**{**given, **options}))


def unstamped(path: Path, frames: int = 12) -> Path:
    """An mp4 whose frames all have time stamp 0 and no plausible rate, as of an image sequence."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 112, 112, "yuv420p"
        packets = []
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((112, 112, 3), 10 * i, np.uint8))
            frame.pts, frame.time_base = i, Fraction(1, 30)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode()]:
            packet.pts = packet.dts = packet.duration = 0
            out.mux(packet)
    return path


def test_a_video_without_any_clock_is_asked_for_its_rate(tmp_path, untrained) -> None:
    (tmp_path / "v").mkdir()
    path = unstamped(tmp_path / "v" / "a.mp4")
    said = pytest.raises(VideoError, match=r"no time stamps.*--image-fps")
    with said as caught, VideoReader(path) as reader:
        list(reader)
    assert caught.value.reason == "no-clock"
    with VideoReader(path, unstamped_fps=25) as reader:
        np.testing.assert_allclose([f.time for f in reader], np.arange(12) / 25)
        assert reader.fps == pytest.approx(25)
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, image_fps=25)
    assert result.failures == {}
    np.testing.assert_allclose(open_store(tmp_path / "s.zarr")["a"].time, np.arange(12) / 25)


def test_image_fps_times_image_folders_and_is_kept(tmp_path, untrained) -> None:
    (tmp_path / "v" / "a").mkdir(parents=True)
    for number in range(1, 6):
        picture = np.full((112, 112, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "v" / "a" / f"face_{number:04}.png"), picture)
    run(tmp_path / "v", tmp_path / "s.zarr", untrained, image_fps=12.5)
    store = open_store(tmp_path / "s.zarr")
    np.testing.assert_allclose(store["a"].time, np.arange(5) / 12.5)
    assert store.provenance["options"]["image_fps"] == 12.5
    assert store.provenance["sessions"][0]["arguments"]["image_fps"] == 12.5
    run(tmp_path / "v", tmp_path / "plain.zarr", untrained)
    plain = open_store(tmp_path / "plain.zarr")
    np.testing.assert_allclose(plain["a"].time, np.arange(5) / 30)
    assert "image_fps" not in plain.provenance["options"]


@pytest.mark.shared
def test_videos_without_a_face_are_named(shared, tmp_path, untrained, clip) -> None:
    clip(tmp_path / "v" / "somebody.mp4", 5)
    clip(tmp_path / "v" / "nobody.mp4", 5, size=(160, 120))
    detector = f"scrfd:{shared / 'models' / 'det_500m.onnx'}"
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained, detector=detector)
    assert result.faceless == ["nobody"]
    assert "no face in 1 videos: nobody" in result.lines()


def test_only_other_bytes_replace(tmp_path, untrained, clip, monkeypatch) -> None:
    path = clip(tmp_path / "v" / "a.mp4", 5)
    clip(tmp_path / "v" / "b.mp4", 5)
    good = path.read_bytes()
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.mp4")
    first = run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert set(first.failures) == {"a"}
    path.unlink()
    path.write_bytes(good)
    again = run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert (again.extracted, again.replaced, again.failures) == (1, 0, {})
    clip(tmp_path / "v" / "a.mp4", 9, seed=1)
    assert run(tmp_path / "v", tmp_path / "s.zarr", untrained).replaced == 1


def test_a_failure_is_said_once_and_plainly(tmp_path, untrained, clip) -> None:
    clip(tmp_path / "v" / "a.mp4", 5)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video at all" * 100)
    said: list[str] = []
    options = {"videos": tmp_path / "v", "store": tmp_path / "s.zarr", "extractor": untrained}
    result = extract.run(
        ExtractOptions(**{**options, "extractor": str(untrained), "isolate": False}),
        lambda report: said.append(report.message),
    )
    [line] = [line for line in [*said, *result.lines()] if "broken" in line]
    assert line == "failed broken: broken.mp4 is not readable as a video"
    assert result.exit_code == 3


def test_what_was_done_to_pictures_is_said_and_kept(tmp_path, untrained) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 112, 112, "yuv420p"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = 18, 9
        for i in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((112, 112, 3), 30 * i, np.uint8))
            frame = frame.reformat(format="yuv420p")
            frame.color_trc, frame.color_primaries = 18, 9
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    for isolate in (False, True):
        store = tmp_path / f"s-{isolate}.zarr"
        result = run(tmp_path / "a.mp4", store, untrained, isolate=isolate)
        [remark] = result.remarks
        assert remark.startswith("HDR (HLG) tone-mapped to SDR")
        assert remark.endswith("(1: a)")
        [session] = open_store(store).provenance["sessions"]
        assert session["notes"] == {remark.removesuffix(" (1: a)"): ["a"]}


def test_an_unlisted_folder_is_a_failure_but_for_lost_found(
    tmp_path, untrained, clip, monkeypatch
) -> None:
    clip(tmp_path / "v" / "a.mp4", 5)
    true = os.scandir

    def scandir(path):
        if Path(path).name in ("lost+found", "theirs"):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (tmp_path / "v" / "lost+found").mkdir()
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert (result.extracted, result.exit_code) == (1, 0)
    assert any(line.startswith("lost+found: this folder cannot") for line in result.lines())
    (tmp_path / "v" / "theirs").mkdir()
    result = run(tmp_path / "v", tmp_path / "s.zarr", untrained)
    assert (result.skipped, result.exit_code) == (1, 3)
    assert set(result.failures) == {"theirs/"}
