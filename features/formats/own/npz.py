"""NumPy archives: one ``.npz`` a video."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import VideoError, one_line
from feie.features.formats.own.reader import Described, FolderFormat, VideoRows
from feie.features.formats.writing.format import Folder
from feie.features.formats.writing.plan import DumpPlan
from feie.features.formats.writing.rows import VideoBatch


def encode(batch: VideoBatch, plan: DumpPlan) -> Iterator[bytes]:
    """Write an archive a video; see `Folder.encode`."""
    columns = np.array(plan.schema.columns, np.str_)
    for video in batch:
        said = video.videos[0]
        about = {
            "columns": columns,
            "id": np.array(said.video_id),
            "fps": np.array(said.fps),
        }
        yield _archive({**video.arrays(), **about})


def _archive(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Give what `numpy.savez` would write, but for the time of day in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getbuffer())
    return out.getvalue()


def decode(path: Path, what: Described) -> VideoRows:
    """Read an archive of `encode`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in what.array_names()}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise VideoError("broken", f"{path.name} cannot be read: {one_line(error)}") from None


DUMP = Folder(
    name="npz",
    suffix=".npz",
    layout=(
        "One NumPy archive a video, named by its id; nothing in it is pickled.",
        "",
        "- `affect` float32 (frames, columns), `columns`, `time` float64 (frames, seconds),",
        "  `valid` bool (frames), `id`, `fps`",
    ),
    geometry=True,
    encode=encode,
)
FORMAT = FolderFormat("feie-npz", "a NumPy archive a video of feie dump", "npz", decode)
