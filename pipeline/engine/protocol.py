"""What engines and their callers tell each other of sources that are done; loads no big library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from feie.features.errors import VideoError
from feie.features.schema import Schema
from feie.features.store.records import VideoRecord
from feie.features.video.remarks import Remarks
from feie.features.video.sources import Source


@dataclass
class Finished:
    """One source that is done.

    Attributes
    ----------
    records : list of VideoRecord
        What the store is to hold of it; a source that cannot be processed has a `message`.
    fallback_frames : int
        Frames in which only the second or a later detector found a face, see `Fallback`.
    remarks : Remarks
        On its pictures; none where it failed.
    """

    source: Source
    records: list[VideoRecord]
    fallback_frames: int = 0
    remarks: Remarks = field(default_factory=Remarks)


@dataclass(frozen=True)
class Provenance:
    """What an engine says of the numbers that it makes.

    Attributes
    ----------
    schema : Schema
        Columns of ``affect``.
    extractor : dict
        ``name`` and ``sha256`` of the weights.
    embedding_dim : int
        Width of the embedding that is kept; 0 for none.
    device : str
        Where the network runs.
    versions : dict of str to str
        Of the libraries, in the engine's process.
    detector : dict, or None
        What the detector would say of itself, if a video needed one; None where there is none.
    """

    schema: Schema
    extractor: dict[str, Any]
    embedding_dim: int
    device: str
    versions: dict[str, str] = field(compare=False)
    detector: dict[str, Any] | None = None


class Engine(Protocol):
    """Turns sources into records: in this process, in a child of it, or on a cluster."""

    @property
    def provenance(self) -> Provenance:
        """What it says of the numbers that it makes."""

    @property
    def detector(self) -> dict[str, Any] | None:
        """What the detector says of itself, once a video has needed one."""

    @property
    def frames(self) -> int:
        """Frames seen so far, for the progress report."""

    def records(self, sources: Iterable[Source]) -> Iterator[Finished | None]:
        """Give one `Finished` a source, in the order of the sources; None now and then."""

    def close(self) -> None:
        """End what was started, at once."""


def failure(source: Source, error: VideoError, fingerprint: str = "") -> Finished:
    """Give what became of a source that failed; see `VideoRecord.failure`."""
    record = VideoRecord.failure(
        source.video_id,
        str(error),
        source=source.relative,
        size=source.size,
        mtime_ns=source.mtime_ns,
        fingerprint=fingerprint,
    )
    return Finished(source, [record])
