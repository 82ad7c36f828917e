from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from feie.features.errors import UsageError, VideoError
from feie.features.video.file import VideoReader, open_reader
from feie.features.video.folder import FolderReader
from feie.features.video.reader import Frame
from feie.features.video.sources import discover
from feie.features.video.truncation import is_cut

CODECS = {
    "mp4": "libx264",
    "mov": "libx264",
    "mkv": "libx264",
    "webm": "libvpx",
    "avi": "mpeg4",
    "flv": "flv",
    "wmv": "wmv2",
    "gif": "gif",
    "mpg": "mpeg2video",
    "ts": "libx264",
}


def picture(i: int, width: int = 96, height: int = 80) -> np.ndarray:
    """Black, with a red square on the left above, and frame i's number of white columns."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 4, : width // 4] = (255, 0, 0)
    image[height // 2 :, : 2 * i] = 255
    return image


def write(
    path: Path,
    times: list[int],
    codec: str | None = None,
    size: tuple[int, int] = (96, 80),
    options: dict[str, str] | None = None,
    audio: int = 0,
) -> Path:
    """A video of pictures 0, 1, … at `times`, in units of 1/30 s, and `audio` frames of silence."""
    codec = codec or CODECS[path.suffix[1:]]
    try:
        av.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(path), "w", options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.options = {"bf": "0", "g": "12"}
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        sound: Any = out.add_stream("mp2", rate=44100) if audio else None
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(i, *size))
            frame.pts, frame.time_base = time, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        for i in range(audio):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1152), np.int16), format="s16", layout="mono"
            )
            silence.sample_rate, silence.pts = 44100, i * 1152
            silence.time_base = Fraction(1, 44100)
            out.mux(sound.encode(silence))
        if sound:
            out.mux(sound.encode())
    return path


def read(path: Path, fps: float | None = None) -> list[Frame]:
    with VideoReader(path, fps=fps) as reader:
        return list(reader)


def shown(frame: Frame) -> int:
    """The i of a decoded picture."""
    assert frame.image is not None
    row = frame.image[frame.image.shape[0] * 3 // 4, :, 1]
    return round(float((row > 128).sum()) / 2)


def reason(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        read(path)
    assert path.name in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize("suffix", sorted(CODECS))
def test_every_frame_in_order_with_its_time(tmp_path: Path, suffix: str) -> None:
    frames = read(write(tmp_path / f"a.{suffix}", list(range(20))))
    assert [shown(f) for f in frames] == list(range(20))
    times = np.array([f.time for f in frames])
    # gif counts in 1/100 s and the containers of ms; mpg and ts start late.
    np.testing.assert_allclose(times - times[0], np.arange(20) / 30, atol=0.0101)
    assert frames[0].image is not None
    assert frames[0].image.shape == (80, 96, 3)
    assert frames[0].image.dtype == np.uint8
    red, green, blue = frames[0].image[5, 5].astype(int)
    assert red > 150
    assert max(green, blue) < 80


@pytest.mark.parametrize("suffix", sorted(set(CODECS) - {"mpg", "ts"}))
def test_cut_files_are_truncated(tmp_path: Path, suffix: str) -> None:
    data = write(tmp_path / f"a.{suffix}", list(range(60)), size=(64, 48)).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for kept in (0.1, 0.5, 0.95):
        cut.write_bytes(data[: int(len(data) * kept)])
        assert reason(cut) == "truncated", kept


@pytest.mark.parametrize("suffix", ["mpg", "ts"])
def test_streams_without_sizes_give_what_is_there_when_cut(tmp_path: Path, suffix: str) -> None:
    data = write(tmp_path / f"a.{suffix}", list(range(60))).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) // 2])
    assert not is_cut(cut)
    assert 5 < len(read(cut)) < 60


def test_lost_packets_at_the_end_are_truncation_even_in_a_whole_file(tmp_path: Path) -> None:
    # The bytes are there, but the last third is zeroed, as a download with holes leaves it.
    data = bytearray(write(tmp_path / "a.mkv", list(range(60))).read_bytes())
    data[len(data) * 2 // 3 :] = bytes(len(data) - len(data) * 2 // 3)
    (tmp_path / "a.mkv").write_bytes(data)
    assert reason(tmp_path / "a.mkv") == "truncated"


def test_sound_may_outlast_the_picture(tmp_path: Path) -> None:
    for suffix in ("mkv", "avi", "mp4"):
        path = write(tmp_path / f"a.{suffix}", list(range(20)), audio=120)
        assert len(read(path)) == 20


def test_variable_rate_and_late_start_keep_their_times(tmp_path: Path) -> None:
    times = [15, 16, 20, 21, 35, 36, 60]
    with VideoReader(write(tmp_path / "a.mkv", times)) as reader:
        frames = list(reader)
        np.testing.assert_allclose([f.time for f in frames], np.array(times) / 30, atol=1e-3)
        assert reader.fps == pytest.approx(6 / 1.5, rel=1e-3)


def test_an_avi_of_repeated_frames_is_whole(tmp_path: Path) -> None:
    # Repeats are chunks of 0 bytes: the file lasts longer than its packets do.
    assert len(read(write(tmp_path / "a.avi", [8]))) == 1


def test_fps_resamples_by_time_to_the_latest_earlier_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", [3, 4, 5, 6, 7, 8, 9, 21, 22, 27])
    frames = read(path, fps=5.0)  # grid at 3, 9, 15, 21, 27 thirtieths
    np.testing.assert_allclose([f.time for f in frames], 0.1 + np.arange(5) / 5, atol=1e-9)
    assert [shown(f) for f in frames] == [0, 6, 6, 7, 9]
    # Matroska's rounding to milliseconds must not repeat or lose frames at the same rate.
    same = write(tmp_path / "b.mkv", list(range(40)))
    assert [shown(f) for f in read(same, fps=30.0)] == list(range(40))


@pytest.mark.parametrize(
    ("matrix", "corner", "shape"),
    [
        ((0, 1, -1, 0), (0, -1), (96, 80)),  # a telephone held upright: a quarter clockwise
        ((0, -1, 1, 0), (-1, 0), (96, 80)),
        ((-1, 0, 0, -1), (-1, -1), (80, 96)),
        ((-1, 0, 0, 1), (0, -1), (80, 96)),  # a selfie, mirrored
    ],
)
def test_display_matrix_is_applied(
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> None:
    path = write(tmp_path / "a.mp4", [0, 1, 2])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2: matrix a b u c d v x y w
    for place, value in zip((0, 1, 3, 4), matrix, strict=True):
        data[at + 4 * place : at + 4 * place + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        image = next(iter(reader)).image
        assert (reader.height, reader.width) == shape
    assert image is not None
    assert image.shape[:2] == shape
    y, x = (5 if side == 0 else -5 for side in corner)
    assert image[y, x, 0] > 150  # where the red corner comes to lie
    assert (image[..., 0] > 150).mean() < 0.1


def test_non_square_pixels_are_stretched(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(3))))
        out.mux(stream.encode())
    with VideoReader(path) as reader:
        assert (reader.width, reader.height) == (128, 80)
        image = next(iter(reader)).image
    assert image is not None
    assert image.shape == (80, 128, 3)


def test_odd_sizes_hevc_and_cover_art(tmp_path: Path) -> None:
    path = tmp_path / "odd.avi"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("rawvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = 33, 21, "bgr24"
        for i in range(4):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i, 33, 21))))
        out.mux(stream.encode())
    frames = read(path)
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[3].image, picture(3, 33, 21))
    hevc = write(tmp_path / "h.mov", list(range(12)), codec="libx265")
    assert [shown(f) for f in read(hevc)] == list(range(12))


def test_what_is_no_video_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    rng = np.random.default_rng(0)
    png = cv2.imencode(".png", picture(3))[1].tobytes()
    assert reason(file("empty.mp4", b"")) == "empty"
    assert reason(file("text.mp4", b"I am a text.\n" * 50)) == "broken"
    assert reason(file("noise.mkv", rng.bytes(20000))) == "broken"
    assert reason(file("picture.mp4", png)) == "broken"
    assert reason(file("list.mp4", b"#EXTM3U\n#EXTINF:1,\nempty.mp4\n#EXT-X-ENDLIST\n")) == "broken"
    assert reason(tmp_path / "gone.mp4") == "missing"
    # Nothing of ffmpeg's own chatter may reach the terminal.
    assert capfd.readouterr() == ("", "")


def test_audio_only(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        sound: Any = out.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate = 44100
        out.mux(sound.encode(silence))
        out.mux(sound.encode())
    assert reason(path) == "no-video-stream"


def broken_packets(path: Path, share: float) -> Path:
    """Overwrite the bytes of a share of the packets of a motion-JPEG file, evenly spread."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    bad = np.linspace(0, len(places) - 1, round(share * len(places)) + 2).astype(int)[1:-1]
    for i in bad:
        start, size = places[i]
        assert start is not None
        data[start + 16 : start + size] = bytes(size - 16)
    path.write_bytes(data)
    return path


def test_a_few_broken_packets_are_skipped_and_many_are_fatal(tmp_path: Path) -> None:
    def motion_jpeg(name: str) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as out:
            stream: Any = out.add_stream("mjpeg", rate=30)
            stream.width, stream.height, stream.pix_fmt = 96, 80, "yuvj420p"
            for i in range(40):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i))))
            out.mux(stream.encode())
        return path

    with VideoReader(broken_packets(motion_jpeg("few.avi"), 0.05)) as reader:
        assert len(list(reader)) == 38
        assert reader.corrupt == 2
    assert reason(broken_packets(motion_jpeg("many.avi"), 0.5)) == "broken"


def images(folder: Path, numbers: list[int]) -> Path:
    folder.mkdir()
    for n in numbers:
        cv2.imwrite(str(folder / f"{n:05d}.png"), picture(n % 40)[..., ::-1])
    return folder


def test_numbered_images_with_gaps(tmp_path: Path) -> None:
    reader = FolderReader(images(tmp_path / "f", [2, 3, 6]))
    frames = list(reader)
    np.testing.assert_allclose([f.time for f in frames], np.arange(6) / 30)
    assert [f.image is None for f in frames] == [True, False, False, True, True, False]
    assert shown(frames[5]) == 6
    np.testing.assert_array_equal(frames[1].image, picture(2))
    assert (reader.width, reader.height, reader.fps) == (96, 80, 30.0)
    # Numbering from 0, another rate, and resampling.
    zero = FolderReader(images(tmp_path / "zero", [0, 2]))
    assert [f.time for f in zero] == [0.0, 1 / 30, 2 / 30]
    source = discover(tmp_path / "f").sources[0]
    with open_reader(source, fps=5.0, folder_fps=10.0) as slow:
        slow_frames = list(slow)
    assert [f.time for f in slow_frames] == [0.0, 0.2, 0.4]
    assert [f.image is None for f in slow_frames] == [True, False, True]


def test_folders_that_cannot_be_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def failure(folder: Path) -> str:
        with pytest.raises(VideoError) as caught:
            list(FolderReader(folder))
        return caught.value.reason

    images(tmp_path / "dates", [20260101])
    assert failure(tmp_path / "dates") == "broken"
    images(tmp_path / "twice", [1])
    (tmp_path / "twice" / "1.jpg").write_bytes(b"x")
    assert failure(tmp_path / "twice") == "broken"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jpg").write_bytes(b"not a JPEG")
    (tmp_path / "bad" / "2.png").write_bytes(b"")
    assert failure(tmp_path / "bad") == "no-frames"
    images(tmp_path / "half", [1, 2, 3])
    (tmp_path / "half" / "00002.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert failure(tmp_path / "half") == "broken"
    assert failure(tmp_path / "nowhere") == "missing"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 1e6])
def test_impossible_rates(tmp_path: Path, fps: float) -> None:
    path = write(tmp_path / "a.mp4", [0, 1])
    with pytest.raises(UsageError, match="fps"):
        VideoReader(path, fps=fps)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", ["face_noface.mov", "noface_face.mov", "single_face.mp4", "no_face.mp4"]
)
def test_real_time_stamps_are_those_of_the_packets(shared: Path, name: str) -> None:
    path = shared / "videos" / "clips" / name
    with av.open(str(path)) as container:
        packets = [
            float(p.pts * p.time_base)
            for p in container.demux(video=0)
            if p.size and p.pts is not None and p.time_base and not p.is_discard
        ]
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader]
    np.testing.assert_allclose(times, sorted(packets), atol=1e-9)


@pytest.mark.shared
def test_header_that_counts_too_many_frames(shared: Path) -> None:
    path = shared / "videos" / "clips" / "no_face.mp4"
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 98
    assert len(read(path)) == 95
