"""`feie verify`: whether a store keeps every MUST of the specification, to the last byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from feie.features.errors import UsageError, VideoError
from feie.features.store.check import check_store
from feie.features.store.reader import Store, open_store, refuse_absent
from feie.features.video.sources import Source, discover, file_source, files_below, fingerprint
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result
from feie.pipeline.stores.options import VerifyOptions

__all__ = ["VerifyOptions", "VerifyResult", "run"]


class VerifyResult(Result):
    """What was found.

    Attributes
    ----------
    sound : bool
        No rule is broken, and no source that was looked at has changed.
    violations : list of (str, str)
        Number of the rule in ``features/SPEC.md`` and what breaks it.
    sources_same : int
        Sources with the bytes that the store's numbers were made from.
    sources_changed : list of str
        Sources, below the folder, with other bytes now; or that cannot be read.
    sources_absent : list of str
        Sources that are not there: moved, or kept elsewhere.
    """

    store: str
    sound: bool
    violations: list[tuple[str, str]]
    sources_same: int = 0
    sources_changed: list[str] = []
    sources_absent: list[str] = []

    @property
    def exit_code(self) -> int:
        """1 where it is not sound."""
        return 0 if self.sound else 1

    def lines(self) -> list[str]:
        """Name every broken rule and changed source, and say what it comes to."""
        said = [f"failed {rule}: {message}" for rule, message in self.violations]
        said += [
            f"failed {name}: it is not what its numbers were made from"
            for name in self.sources_changed
        ]
        looked_at = self.sources_same + len(self.sources_changed) + len(self.sources_absent)
        if looked_at:
            said.append(
                f"{looked_at} sources: {self.sources_same} the same, "
                f"{len(self.sources_changed)} changed, {len(self.sources_absent)} not there"
            )
        state = "is damaged" if self.violations else "keeps its specification"
        return [*said, f"{self.store} {state}"]


def run(options: VerifyOptions, progress: ProgressCallback = silent) -> VerifyResult:
    """Read every committed chunk of a store and check it against the specification.

    Raises
    ------
    StoreNotFoundError
        Nothing is there to be checked.
    UsageError
        No such folder of videos.
    """
    refuse_absent(options.store)
    found = [(v.rule, v.message) for v in check_store(options.store)]
    result = VerifyResult(store=options.store, sound=not found, violations=found)
    if options.videos is not None:
        if not options.videos.exists():
            raise UsageError(f"{options.videos} does not exist; --videos wants the videos' folder")
        if result.sound:  # an index that is damaged says nothing of sources
            _compare_sources(open_store(options.store), options.videos, result, progress)
            result.sound = not result.sources_changed
    return result


def _compare_sources(
    store: Store, root: Path, result: VerifyResult, progress: ProgressCallback
) -> None:
    """Hash each source that is there; one without a fingerprint cannot be compared."""
    imported = "import_format" in store.provenance["options"]
    there = {source.relative: source for source in _sources(root, imported)}
    rows = store.videos[store.videos["fingerprint"] != ""].drop_duplicates("source")
    for done, (name, known) in enumerate(zip(rows["source"], rows["fingerprint"], strict=True), 1):
        source = there.get(str(name))
        if source is None:
            result.sources_absent.append(str(name))
        elif _now(source) == known:
            result.sources_same += 1
        else:
            result.sources_changed.append(str(name))
        progress(Progress("sources", done, len(rows)))


def _sources(root: Path, imported: bool) -> Iterable[Source]:
    """Find videos, or, of an imported store, files of any kind."""
    if imported:
        if not root.is_dir():
            return (file_source(root, root.name),)
        return (file_source(path, relative) for path, relative in files_below(root))
    try:
        return discover(root).sources
    except UsageError:  # an empty folder: every source is absent
        return ()


def _now(source: Source) -> str:
    try:
        return fingerprint(source)
    except (VideoError, OSError):
        return ""
