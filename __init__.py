"""feie: facial expression intensity estimation from video, offline, in two stages.

``feie.open_store("features.zarr")["video id"].affect`` gives the numbers of stage one, and
`feie.VideoDataset` and `feie.loader` feed them to torch. The commands of ``feie --help`` are
functions of the same names: ``feie.extract(videos="reactions")``,
``feie.train_head(labels="labels.csv")``, …; each returns what the command prints with ``--json``.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

# onnxruntime's builds write a device id below the home folder and call home unless told otherwise
# before their first import; every process that may import it imports this first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.2.0"

_HOMES = {
    "FeieError": "feie.features.errors",
    "Store": "feie.features.store.reader",
    "VideoBatch": "feie.heads.data.loader",
    "VideoDataset": "feie.heads.data.dataset",
    "VideoItem": "feie.heads.data.dataset",
    "VideoView": "feie.features.store.reader",
    "collate": "feie.heads.data.loader",
    "load_labels": "feie.heads.data.labels",
    "loader": "feie.heads.data.loader",
    "open_store": "feie.features.store.reader",
}


def __getattr__(name: str) -> Any:
    # Late, so that `import feie` and `feie --help` load neither zarr nor torch. What type checkers
    # see of it is in __init__.pyi.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if not name.startswith("_"):
        from feie.pipeline.jobs import JOBS

        if name in JOBS:
            from feie.pipeline.functions import job

            return job(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from feie.pipeline.jobs import JOBS

    return sorted([*globals(), *_HOMES, *JOBS])
