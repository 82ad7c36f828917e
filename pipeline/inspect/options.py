"""What `feie inspect` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from feie.pipeline.options import Flag, Options, StoreArgument


class InspectOptions(Options):
    """What `feie inspect` is asked to do."""

    store: StoreArgument = "features.zarr"
    videos: Annotated[
        tuple[str, ...],
        Field(description="Ids, or patterns of ids such as `'session1/*'`."),
        Flag(argument=True),
    ] = ()
    out: Annotated[
        Path | None,
        Field(
            description="One video: a .png, .pdf or .svg. Several: a folder. A .html: one page "
            "about all videos (or those named)."
        ),
        Flag(names=("--out", "--html"), default="named after the video; pictures/"),
    ] = None
    source: Annotated[
        Path | None,
        Field(description="Folder of the videos, to show faces."),
        Flag(default="where they were extracted from"),
    ] = None
    start: Annotated[
        float | None, Field(description="First second to show."), Flag(names=("--from",))
    ] = None
    stop: Annotated[
        float | None, Field(description="Last second to show."), Flag(names=("--to",))
    ] = None
    html: Annotated[
        Path | None,
        Field(description="A page about all videos, or those named; the same as `out` so named."),
        Flag(hidden=True),
    ] = None

    @property
    def page(self) -> Path | None:
        """The page to write, in place of pictures."""
        if self.html is None and self.out is not None and self.out.suffix.lower() == ".html":
            return self.out
        return self.html
