"""feie: facial expression intensity estimation from video, offline, in two stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feie.features.store.reader import open_store as open_store

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, so that `import feie` and `feie --help` load neither zarr nor torch.
    if name == "open_store":
        from feie.features.store.reader import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
