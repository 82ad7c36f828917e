"""Time stamps with faults: a sample of zero duration, doubled, missing and wild stamps, new clocks.

From reports of recorders whose one bad stamp moved every later frame of a video.
"""

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from feie.features.errors import VideoError
from feie.features.video.clock import rising
from feie.features.video.file import VideoReader

STEP = 1 / 30
STEADY = [i * STEP for i in range(40)]
VARIABLE = [*(i / 5 for i in range(20)), *(4 + i / 30 for i in range(20))]


def timed(stamps: list[float], step: float = STEP) -> list[float]:
    return [time for time, _ in rising(((s, None) for s in stamps), step)]


@pytest.mark.parametrize("true", [STEADY, VARIABLE, [60 + s for s in STEADY]])
@pytest.mark.parametrize("place", [0, 1, 17, 20, 21, 38, 39])
@pytest.mark.parametrize("fault", [10_000.0, -10_000.0, math.nan, "doubled", "back"])
def test_one_faulty_stamp_costs_its_own_frame_only(
    true: list[float], place: int, fault: float | str
) -> None:
    if isinstance(fault, str) and place == 0:
        pytest.skip("nothing stands before the first")
    stamps = list(true)
    stamps[place] = {"doubled": true[place - 1], "back": true[place - 1] - 0.4}.get(fault, fault)  # type: ignore[call-overload,arg-type]
    given = timed(stamps)
    wrong = [i for i, (a, b) in enumerate(zip(given, true, strict=True)) if a != b]
    if fault == "doubled":  # which of the two is the faulty one cannot be known
        assert wrong in ([], [place], [place - 1])
    else:
        assert set(wrong) <= {place}
    assert all(a < b for a, b in itertools.pairwise(given))
    # Close to the truth: within the gap in which it stands, or a step at the ends.
    assert abs(given[place] - true[place]) <= 0.21


def test_pauses_and_late_starts_are_no_faults() -> None:
    paused = [*STEADY, *(300 + s for s in STEADY)]
    assert timed(paused) == paused
    slow = [3600 + 15.0 * i for i in range(20)]
    assert timed(slow, 15.0) == slow
    assert timed([5.0]) == [5.0]
    assert timed([]) == []


def test_several_faults_in_a_row() -> None:
    stamps = list(STEADY)
    stamps[10:14] = [stamps[9]] * 4
    stamps[25:28] = [math.nan, 7_000.0, 0.0]
    given = timed(stamps)
    np.testing.assert_allclose(given, STEADY, atol=1e-9)


def test_a_clock_that_begins_anew_goes_on() -> None:
    given = timed([*STEADY, *STEADY, *STEADY])
    np.testing.assert_allclose(given, [i * STEP for i in range(120)], atol=1e-9)


def test_a_clock_that_finds_back() -> None:
    astray = [*STEADY[:15], *(i * STEP - 500 for i in range(15, 25)), *STEADY[25:]]
    np.testing.assert_allclose(timed(astray), STEADY, atol=1e-9)


@pytest.mark.parametrize("stamp", [math.nan, 0.0, 7.5])
def test_no_clock_at_all_counts_frames(stamp: float) -> None:
    given = timed([stamp] * 20)
    first = 0.0 if math.isnan(stamp) else stamp
    np.testing.assert_allclose(given, [first + i * STEP for i in range(20)], atol=1e-9)


def test_the_end_of_a_cut_file_is_told_behind_its_last_frame() -> None:
    def cut() -> Any:
        yield from ((s, None) for s in STEADY)
        raise VideoError("truncated", "it ends early")

    seen = []
    with pytest.raises(VideoError, match="it ends early"):
        seen.extend(time for time, _ in rising(cut(), STEP))
    assert seen == STEADY


def clip(path: Path, ticks: list[int], wild: dict[int, int]) -> Path:
    """A video with frames at `ticks` of 1 ms, but for some packets' presentation stamps."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        stream.options = {"bf": "0"}
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((80, 96, 3), 5 * i % 256, np.uint8))
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            packets += stream.encode(frame)
        for i, packet in enumerate([*packets, *stream.encode()]):
            if i in wild:
                packet.pts = wild[i]
            out.mux(packet)
    return path


def test_rate_and_resampling_of_a_file_follow_the_true_times(tmp_path: Path) -> None:
    ticks = [200 * i for i in range(20)] + [4000 + 33 * i for i in range(80)]
    path = clip(tmp_path / "a.mkv", ticks, {40: 10_000_000})
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader]
        assert reader.fps == pytest.approx(99 / 6.607, rel=1e-6)
    np.testing.assert_allclose(times, np.array(ticks) / 1000, atol=0.034)
    assert times[-1] == pytest.approx(6.607)
    assert sum(abs(a - b / 1000) > 1e-9 for a, b in zip(times, ticks, strict=True)) <= 1
    with VideoReader(path, fps=15) as reader:
        assert len(list(reader)) == 100  # 0 to 6.6 s
