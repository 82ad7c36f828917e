"""What is to be said of a video's pictures besides their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Remarks:
    """Remarks on one video.

    Attributes
    ----------
    notes : list of str
        What was done to its pictures besides decoding them; a store keeps it.
    warnings : int
        Lines that image libraries (libpng, libjpeg) had to say.
    damaged : list of str
        Names of images that do not decode, or not wholly.
    """

    notes: list[str] = field(default_factory=list)
    warnings: int = 0
    damaged: list[str] = field(default_factory=list)
