"""GIFs with text behind their end, padding, or no trailer: all frames, and cut ones still fail."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feie.features.errors import VideoError
from feie.features.video.file import VideoReader
from feie.features.video.truncation import is_cut


@pytest.fixture
def gif(tmp_path: Path) -> bytes:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(20)]
    path = tmp_path / "whole.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    content = path.read_bytes()
    assert content.endswith(b"\0;")
    return content


def frames(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    with VideoReader(path) as reader:
        return sum(1 for _ in reader)


@pytest.mark.parametrize(
    "ending",
    [
        *(b";", b"", b";\n", b";\0\0\0\0", b";;;", b"\0;", b"\0\0\0\0"),
        b"; and a word about who made it, ended by no semicolon",
        b";" + bytes(range(256)) * 40,
    ],
)
def test_whatever_stands_at_the_end(tmp_path: Path, gif: bytes, ending: bytes) -> None:
    assert frames(tmp_path / "a.gif", gif[:-1] + ending) == 20


def test_a_gif_that_breaks_off_is_truncated(tmp_path: Path, gif: bytes) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "a.gif"
    boundaries = 0
    for size in sorted(rng.integers(14, len(gif) - 3, 60)):
        path.write_bytes(gif[:size])
        if is_cut(path):
            with pytest.raises(VideoError) as caught:
                frames(path, gif[:size])
            assert caught.value.reason == "truncated"
        else:
            boundaries += 1
    assert boundaries <= 1  # between two frames, which no byte of the file denies
