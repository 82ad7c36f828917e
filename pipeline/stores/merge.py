"""`feie merge`: stores made apart become one; of a single store, what was replaced is left out."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from feie.features.errors import StoreError
from feie.features.files import refuse_link, sync_directory
from feie.features.store.backends.lock import WriterLock
from feie.features.store.merge import choose, chosen_records, joint_detector, joint_settings
from feie.features.store.reader import open_store
from feie.features.store.writer import StoreWriter
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result
from feie.pipeline.stores.options import MergeOptions

__all__ = ["MergeOptions", "MergeResult", "run"]

_WORK = ".merging"
_COMMIT_VIDEOS = 4_096  # nothing can be resumed, so seldom; the writer bounds the rows it holds


class MergeResult(Result):
    """What `feie merge` did.

    Attributes
    ----------
    videos, frames, failed : int
        What the new store holds, failures counted among the videos.
    left_out : int
        Rows that do not count any more: replaced in their store, or held by another one, too.
    """

    store: str
    stores: int
    videos: int
    frames: int
    failed: int
    left_out: int

    def lines(self) -> list[str]:
        """Count what was joined."""
        few = f", {self.failed} of them failed" if self.failed else ""
        said = [
            f"{self.stores} stores: {self.videos} videos{few}, {self.frames} frames → {self.store}"
        ]
        if self.left_out:
            said.append(f"{self.left_out} rows left out: replaced, or held twice")
        return said


def run(options: MergeOptions, progress: ProgressCallback = silent) -> MergeResult:
    """Write the videos of all stores, sorted by id, to a new one.

    The new store appears under its name when it is complete; whatever stops the merge before
    leaves nothing there.

    Raises
    ------
    StoreMismatchError
        The stores differ in something that changes numbers.
    StoreError
        A store cannot be read, or there is something at `out` already.
    """
    stores = [open_store(path) for path in options.stores]
    settings = joint_settings(stores)
    detector = joint_detector(stores)
    choices = choose(stores, last_counts=options.duplicates == "last")
    out = options.out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with WriterLock(out):
        refuse_link(out)
        if out.exists():
            raise StoreError(f"{options.out} exists; merge into a new --out")
        _remove_leftovers(out)
        # Hidden, so that no search for videos or stores comes upon it.
        work = Path(tempfile.mkdtemp(suffix=_WORK, prefix=f".{out.name}.", dir=out.parent))
        try:
            frames = 0
            with StoreWriter(
                work / "store", settings, commit_videos=_COMMIT_VIDEOS, commit_seconds=1e9
            ) as writer:
                if detector is not None:
                    writer.use_detector(detector)
                for done, record in enumerate(chosen_records(stores, choices), start=1):
                    writer.append(record)
                    frames += len(record.time)
                    progress(Progress("videos", done, len(choices)))
            (work / "store").rename(out)
            sync_directory(out.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return MergeResult(
        store=str(options.out),
        stores=len(stores),
        videos=len(choices),
        frames=frames,
        failed=sum(choice.failed for choice in choices),
        left_out=sum(len(store.rows) for store in stores) - len(choices),
    )


def _remove_leftovers(out: Path) -> None:
    """Delete the working folders of merges to this place that were killed; its lock is held.

    Raises
    ------
    LinkError
        One of them is a link.
    """
    left = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]{{8}}{re.escape(_WORK)}")
    for path in out.parent.iterdir():
        if left.fullmatch(path.name):
            refuse_link(path)
            shutil.rmtree(path, ignore_errors=True)
