"""What `feie doctor`, `feie models` and `feie demo` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from feie.pipeline.options import Flag, Options


class DoctorOptions(Options):
    """What `feie doctor` is asked to do."""

    folder: Annotated[Path, Field(description="Where stores would be written.")] = Path()


class ModelsOptions(Options):
    """What `feie models` is asked to do."""

    action: Annotated[
        Literal["list", "fetch", "add"],
        Field(description="`list`, `fetch NAME`, or `add NAME FILE`."),
        Flag(argument=True),
    ] = "list"
    name: Annotated[str | None, Field(description="A name of the list."), Flag(argument=True)] = (
        None
    )
    file: Annotated[
        Path | None,
        Field(description="What to add: a file, or archive, that was downloaded already."),
        Flag(argument=True),
    ] = None
    yes: Annotated[bool, Field(description="Accept terms that forbid commercial use, unasked.")] = (
        False
    )
    mirror: Annotated[
        str | None,
        Field(description="Folder on the web to take the file from."),
        Flag(default="its makers'"),
    ] = None


class DemoOptions(Options):
    """What `feie demo` is asked to do."""

    data: Annotated[
        Path,
        Field(description="The example clips and their labels, from a checkout of feie."),
    ] = Path("data.example")
    out: Annotated[Path, Field(description="Where store and runs go.")] = Path("feie-demo")
    seed: Annotated[int, Field(description="Seed of the head.")] = 0
