"""libpng's and libjpeg's chatter: counted per video, not printed a line a picture."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from feie.features.store.reader import open_store
from feie.pipeline.engine.options import ExtractOptions
from feie.pipeline.extract import job as extract

NOISE = np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8)


def encoded(suffix: str) -> bytes:
    ok, data = cv2.imencode(suffix, NOISE)
    assert ok
    return data.tobytes()


def with_bad_profile(png: bytes) -> bytes:
    """A colour profile that libpng warns of, as old editors wrote it."""
    body = b"iCCP" + b"name\0\0" + zlib.compress(b"no profile at all")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def folder(path: Path, contents: dict[str, bytes]) -> None:
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)


@pytest.mark.parametrize("threads", [1, 4])
def test_words_are_counted_for_their_video_and_not_printed(
    tmp_path, untrained, capfd, threads: int
) -> None:
    png, jpg = encoded(".png"), encoded(".jpg")
    names = [f"{number:05}" for number in range(1, 31)]
    for clean in "ace":
        folder(tmp_path / "v" / clean, {f"{name}.png": png for name in names})
    folder(tmp_path / "v" / "b", {f"{name}.png": with_bad_profile(png) for name in names})
    middle = len(jpg) // 2
    hurt = {f"{name}.jpg": jpg for name in names}
    hurt["00007.jpg"] = jpg[:middle] + bytes(40) + jpg[middle + 40 :]
    hurt["00009.jpg"] = b"no picture"
    folder(tmp_path / "v" / "d", hurt)
    options = {"videos": tmp_path / "v", "store": tmp_path / "s.zarr", "threads": threads}
    result = extract.run(ExtractOptions(**options, extractor=str(untrained)))
    assert result.failures == {}
    printed = capfd.readouterr()
    assert "libpng" not in printed.err + printed.out
    assert "JPEG" not in printed.err + printed.out
    assert set(result.warnings) == {"b", "d"}
    assert result.warnings["b"] % 30 == 0
    assert result.damaged == {"d": ["00007.jpg", "00009.jpg"]}
    said = result.lines()
    total = sum(result.warnings.values())
    counts = f"b ({result.warnings['b']}), d ({result.warnings['d']})"
    assert f"libpng and libjpeg warned {total} times: {counts}" in said
    assert "damaged images (2): d: 00007.jpg, 00009.jpg" in said
    assert open_store(tmp_path / "s.zarr")["d"].valid.sum() == 29


def test_what_others_print_goes_on_to_standard_error(tmp_path) -> None:
    program = (
        "import os, sys; from feie.features.video.chatter import CHATTER\n"
        "CHATTER.catch(); print('from python', file=sys.stderr)\n"
        "made, words = CHATTER.listen(lambda: os.write(2, b'libpng warning: x\\nfrom C\\n'))\n"
        "assert words == ['libpng warning: x'], words\n"
        "os.write(2, b'later\\n'); CHATTER.pass_on()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Twice from C: what is heard first is heard again, alone.
    assert set(done.stderr.split("\n")) == {"", "from C", "from python", "later"}
