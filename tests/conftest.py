"""Fixtures that every test may use."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from feie.features.schema import AFFECT
from feie.features.store.records import StoreSettings, VideoRecord

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Let Ctrl-C reach the commands under test where a shell runs the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root: the place of README.md and data.example."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real faces, detectors and clips; the test skips where it is absent."""
    path = Path(os.environ.get("FEIE_SHARED", ROOT.parent / "shared"))
    if not (path / "videos").is_dir():
        pytest.skip(f"no shared material at {path} (set FEIE_SHARED)")
    return path


@pytest.fixture(scope="session")
def settings() -> StoreSettings:
    """What a store made by tests says of its origin."""
    return StoreSettings(
        schema=AFFECT,
        extractor={"name": "mma-test", "sha256": "e" * 64},
        options={"faces": "auto", "fps": None},
        session={"versions": {"feie": "test"}},
    )


@pytest.fixture(scope="session")
def detector_named() -> dict[str, object]:
    """What a detector says of itself."""
    return {"name": "scrfd:test", "sha256": "d" * 64, "threshold": 0.5}


def make_record(video_id: str, frames: int, seed: int = 0, message: str = "") -> VideoRecord:
    """A plausible record: values in range, every fifth frame without a face."""
    rng = np.random.default_rng([seed, len(video_id), *video_id.encode()])
    n = 0 if message else frames
    valid = np.arange(n) % 5 != 4
    affect = rng.random((n, len(AFFECT)), np.float32)
    affect[:, 2:9] /= affect[:, 2:9].sum(1, keepdims=True)
    landmarks = rng.random((n, 5, 2), np.float32) * 100
    bbox = np.tile(np.array([10, 10, 90, 90], np.float32), (n, 1))
    score = rng.random(n, np.float32)
    for array in (affect, landmarks, bbox, score):
        array[~valid] = np.nan
    return VideoRecord(
        id=video_id,
        source=f"{video_id}.mp4",
        size=1000 + n,
        mtime_ns=seed,
        fingerprint=f"sha256:{seed:08x}",
        fps=30.0,
        width=640,
        height=480,
        affect=affect,
        time=np.arange(n) / 30.0,
        valid=valid,
        face_score=score,
        bbox=bbox,
        landmarks=landmarks,
        message=message,
    )


@pytest.fixture(scope="session")
def record():
    """`make_record`, for tests that need several."""
    return make_record


EXAMPLE_LENGTHS = {"face-001": 48, "face-002": 40, "face-003": 55, "face-004": 60,
                   "face-005": 30, "face-006": 50}  # fmt: skip


@pytest.fixture(scope="session")
def example_folder(tmp_path_factory, settings, detector_named) -> Path:
    """A folder with a small store, ``features.zarr``, and its ``labels.csv``."""
    from feie.features.store.writer import StoreWriter

    folder = tmp_path_factory.mktemp("example")
    with StoreWriter(folder / "features.zarr", settings) as writer:
        writer.use_detector(detector_named)
        for video_id, frames in EXAMPLE_LENGTHS.items():
            writer.append(make_record(video_id, frames))
        writer.append(make_record("face-007", 0, message="empty: no bytes"))
    splits = ("train", "train", "train", "train", "val", "val")
    rows = [
        f"{video},{split},{(i * 37 % 10) / 10},{(i * 53 % 7) / 7:.3f}"
        for i, (video, split) in enumerate(zip(EXAMPLE_LENGTHS, splits, strict=True))
    ]
    text = "\n".join(["id,split,Amusement,Fear", *rows, ""])
    (folder / "labels.csv").write_text(text)
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory) -> Path:
    """Weights of a small untrained network: real in every way but in what they know."""
    import torch

    from feie.features.mma.network import MMANetwork, NetworkConfig
    from feie.features.mma.weights import save_weights

    torch.manual_seed(0)
    config = NetworkConfig(stem=(8, 8), widths=(8, 16), depths=(1, 1), embedding=8)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    save_weights(path, "untrained", MMANetwork(config), 112, {})
    return path


def write_clip(path: Path, frames: int, size: tuple[int, int] = (112, 112), seed: int = 0) -> Path:
    """Encode a short clip of drifting blobs; there is no face in it."""
    import av

    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(40, 0).repeat(40, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            image = np.ascontiguousarray(np.roll(base, 3 * i, 1)[: size[1], : size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clip():
    """`write_clip`, for tests that need videos of their own."""
    return write_clip


@pytest.fixture
def never_built(monkeypatch) -> dict[str, list[Path]]:
    """A checkout without the face finder's weights, and no package that carries them.

    Gives the places of each file as they were.
    """
    from feie.features.faces import bundled

    before = {name: bundled.places(name) for name in bundled.BUNDLED}
    monkeypatch.setattr(bundled, "_WHEEL", Path(os.devnull, "wheel"))
    monkeypatch.setattr(
        bundled,
        "_SOURCES",
        {name: {"package": "feie-no-such-package", "sha256": ""} for name in bundled.BUNDLED},
    )
    return before


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Open a page in headless Chromium: its DOM once its scripts ran, and its console."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser on the path ({', '.join(names)})")
    profile = tmp_path_factory.mktemp("chromium")

    def visit(page: Path, width: int = 1280) -> tuple[str, list[str]]:
        command = [
            program,
            f"--window-size={width},600",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
        ]
        command += ["--disable-dev-shm-usage", "--enable-logging=stderr", "--dump-dom"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=4000"]
        done = subprocess.run(
            [*command, page.as_uri()], capture_output=True, text=True, timeout=240, check=True
        )
        console = re.findall(r"CONSOLE(?:\(\d+\)|:\d+)\] (.*)", done.stderr)
        return done.stdout, console

    return visit
