"""HDR videos (PQ, HLG) of phones, and colour matrices that the scaler refuses."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from feie.features.video.colour import tone_mapped
from feie.features.video.file import VideoReader

PQ, HLG = 16, 18
M1, M2 = 2610 / 16384, 2523 / 4096 * 128
C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_code(light: np.ndarray) -> np.ndarray:
    """Inverse EOTF of BT.2100 table 4: cd/m2 to the signal."""
    y = (np.asarray(light, float) / 10000) ** M1
    return ((C1 + C2 * y) / (1 + C3 * y)) ** M2


def hlg_code(scene: np.ndarray) -> np.ndarray:
    """OETF of BT.2100 table 5: light of the scene to the signal."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    e = np.asarray(scene, float)
    return np.where(e <= 1 / 12, np.sqrt(3 * e), a * np.log(np.maximum(12 * e - b, 1e-9)) + c)


def grey(signal: np.ndarray) -> np.ndarray:
    return np.repeat(np.round(signal * 65535).astype(np.uint16)[None, :, None], 3, axis=2)


def test_light_of_pq_comes_out_as_the_same_light_on_an_sdr_screen() -> None:
    """Up to 0.7 of white (203 cd/m2) a BT.1886 screen shows what BT.2100's does."""
    light = np.linspace(0.5, 0.7 * 203, 50)
    shown = tone_mapped(grey(pq_code(light)), PQ)
    assert np.ptp(shown.astype(int), axis=2).max() <= 1  # grey stays grey
    np.testing.assert_allclose(shown[0, :, 1], 255 * (light / 203) ** (1 / 2.4), atol=1.5)


def test_the_brightest_light_is_rolled_off_and_rises() -> None:
    light = np.geomspace(100, 10000, 200)
    shown = tone_mapped(grey(pq_code(light)), PQ)[0, :, 1].astype(int)
    assert (np.diff(shown) >= 0).all()
    assert shown[-1] in (254, 255)
    assert shown[np.searchsorted(light, 203)] == pytest.approx(255 * 0.85 ** (1 / 2.4), abs=2)


def test_hlg_and_pq_of_the_same_light_agree() -> None:
    scene = np.linspace(0.001, 0.2, 50)
    display = 1000 * scene**1.2  # OOTF of a display of 1,000 cd/m2
    from_hlg, from_pq = (
        tone_mapped(grey(hlg_code(scene)), HLG),
        tone_mapped(grey(pq_code(display)), PQ),
    )
    assert np.abs(from_hlg.astype(int) - from_pq).max() <= 1


def test_colours_of_bt709_come_back_from_bt2020() -> None:
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    rng = np.random.default_rng(0)
    linear = rng.uniform(0.02, 0.65, (20, 30, 3))
    code = np.round(pq_code(203 * linear @ to_2020.T) * 65535).astype(np.uint16)
    np.testing.assert_allclose(tone_mapped(code, PQ), 255 * linear ** (1 / 2.4), atol=2)
    narrow = np.round(pq_code(203 * linear) * 65535).astype(np.uint16)
    np.testing.assert_allclose(
        tone_mapped(narrow, PQ, wide=False), 255 * linear ** (1 / 2.4), atol=2
    )


def write(path: Path, params: str, values: list[float]) -> Path:
    """A 10-bit HEVC clip of grey frames with these full-range signals."""
    try:
        av.Codec("libx265", "w")
    except ValueError:
        pytest.skip("this PyAV cannot write HEVC")
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx265", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p10le"
        stream.options = {"x265-params": f"log-level=none:qp=4:{params}"}
        for i, value in enumerate(values):
            frame = av.VideoFrame(96, 80, "yuv420p10le")
            for plane, code in zip(frame.planes, (64 + value * 876, 512, 512), strict=True):
                plane.update(np.full(plane.buffer_size // 2, round(code), np.uint16))
            frame.pts, frame.time_base = i, Fraction(1, 30)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "transfer"), [("PQ", "smpte2084"), ("HLG", "arib-std-b67")])
def test_an_hdr_file_is_read_as_sdr_and_says_so(tmp_path: Path, name: str, transfer: str) -> None:
    light = np.array([20.0, 80.0, 140.0])
    signal = pq_code(light) if name == "PQ" else hlg_code((light / 1000) ** (1 / 1.2))
    params = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    with VideoReader(write(tmp_path / "a.mp4", params, signal.tolist())) as reader:
        images = [frame.image for frame in reader]
        assert reader.remarks.notes[0].startswith(f"HDR ({name}) tone-mapped")
        assert len(reader.remarks.notes) == 1
    middle = [float(np.median(image)) for image in images if image is not None]
    np.testing.assert_allclose(middle, 255 * (light / 203) ** (1 / 2.4), atol=3)


def test_bt2020_without_hdr_is_left_alone(tmp_path: Path) -> None:
    params = "colorprim=bt2020:transfer=bt2020-10:colormatrix=bt2020nc"
    with VideoReader(write(tmp_path / "a.mkv", params, [0.25, 0.5])) as reader:
        images = [frame.image for frame in reader]
        assert reader.remarks.notes == []
    np.testing.assert_allclose([np.median(i) for i in images], [64, 128], atol=2)  # type: ignore[arg-type]


def labelled(path: Path, matrix: int, transfer: int) -> Path:
    """Grey-blue frames whose H.264 header names a matrix and a transfer by number (H.273)."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_trc = matrix, transfer
        for _ in range(12):
            planes = np.full((120, 96), 140, np.uint8)
            planes[:80] = 120
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.colorspace, frame.color_trc = matrix, transfer
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with av.open(str(path)) as written:
        context = next(written.decode(video=0))
        assert (context.colorspace, context.color_trc) == (matrix, transfer)
    return path


@pytest.mark.parametrize(
    ("matrix", "transfer"),
    [(8, 1), (10, 1), (11, 1), (12, 1), (13, 1), (14, 1), (2, 9), (2, 10)],
)
def test_matrices_and_transfers_that_the_scaler_refuses(
    tmp_path: Path, matrix: int, transfer: int
) -> None:
    def images(path: Path) -> tuple[list[np.ndarray], list[str]]:
        with VideoReader(path) as reader:
            return [f.image for f in reader if f.image is not None], reader.remarks.notes

    plain, said = images(labelled(tmp_path / "a.mp4", 2, 2))
    assert said == []
    found, notes = images(labelled(tmp_path / "b.mp4", matrix, transfer))
    assert len(found) == 12
    np.testing.assert_array_equal(found, plain)
    refused = (
        f"colour matrix {matrix} of ITU-T H.273 is not known to FFmpeg's scaler: read as BT.601, "
        "its default"
    )
    assert notes == ([refused] if matrix > 2 else [])
