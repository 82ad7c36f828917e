"""Signs of life of the thread that works on a video, so that a hang can be told from work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feie.features.faces.stream import FaceStream


class Liveness:
    """Counts what the reading of one video has got done; whoever watches looks for a change.

    Attributes
    ----------
    waiting : bool
        The thread waits for others (a full queue, the detector's weights): no sign of a hang.
    fingerprint : str
        Of the source, once it is known.
    """

    def __init__(self) -> None:
        self.waiting = False
        self.fingerprint = ""
        self._beats = 0
        self._stream: FaceStream | None = None

    def beat(self) -> None:
        """Note that something was done."""
        self._beats += 1

    def follow(self, stream: FaceStream) -> None:
        """Count the frames that this stream decodes, too."""
        self._stream = stream

    @property
    def count(self) -> int:
        """What was done so far: blocks hashed and frames decoded."""
        return self._beats + (self._stream.frames_read if self._stream else 0)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Wait for others inside this block."""
        self.waiting = True
        try:
            yield
        finally:
            self._beats += 1
            self.waiting = False
