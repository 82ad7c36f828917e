"""Thumbnails and previews that stand before the video: the stream that players show is read."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from feie.features.video.file import VideoReader


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("marked", [True, False])
def test_the_default_stream_is_read_not_the_first(
    tmp_path: Path, suffix: str, marked: bool
) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as out:
        still: Any = out.add_stream("mjpeg", rate=25)
        still.width, still.height, still.pix_fmt = 64, 64, "yuvj420p"
        video: Any = out.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 96, 80, "yuv420p"
        if marked:
            still.disposition, video.disposition = Disposition(0), Disposition.default
        out.mux(still.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        for i in range(30):
            image = np.full((80, 96, 3), i, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        out.mux(video.encode())
        out.mux(still.encode())
    with VideoReader(path) as reader:
        assert (reader.width, reader.height) == (96, 80)
        assert len(list(reader)) == 30
