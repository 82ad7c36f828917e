"""What `feie import` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from feie.pipeline.engine.options import local_store
from feie.pipeline.options import Flag, Names, Options

if TYPE_CHECKING:
    from feie.features.formats.reading.imported import ReadOptions


class ImportFeaturesOptions(Options):
    """What `feie import` is asked to do."""

    source: Annotated[
        Path,
        Field(description="A file of features, or a folder of them."),
        Flag(argument=True),
    ]
    store: Annotated[
        Path,
        BeforeValidator(local_store),
        Field(description="Folder of the Zarr store; made or continued."),
        Flag(names=("--store", "--out"), argument=True),
    ] = Path("features.zarr")
    format: Annotated[
        str,
        Field(
            description="`openface`, `pyfeat`, `libreface`, `muse`, `table` (any CSV or Parquet), "
            "`arrays` (.npy, HDF5), or one of `feie dump`."
        ),
        Flag(default="recognised from the first file"),
    ] = "auto"
    groups: Annotated[
        Names,
        Field(description="Groups of columns to import, e.g. `au_r,landmarks`."),
        Flag(default="all but landmarks, meshes and the like"),
    ] = ()
    group: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z_][\w-]*$",
            description="What to call the group of features that have none, e.g. `audio`.",
        ),
        Flag(default="with muse the folder's name, otherwise features"),
    ] = None
    fps: Annotated[
        float | None,
        Field(
            gt=0,
            le=1e6,
            description="Frames per second, where files count frames and do not time them.",
        ),
    ] = None
    all_faces: Annotated[
        bool, Field(description="Keep every face: ids `VIDEO#1`, `VIDEO#2`, one each.")
    ] = False
    dry_run: Annotated[bool, Field(description="List what would be done; write nothing.")] = False
    commit_videos: Annotated[int, Field(gt=0, description="Commit after that many videos…")] = 256
    commit_seconds: Annotated[float, Field(ge=0, description="…or that many seconds.")] = 30.0

    def reading(self) -> ReadOptions:
        """Give what changes the numbers that readers give."""
        from feie.features.formats.reading.imported import ReadOptions

        return ReadOptions(self.groups, self.group or "", self.fps, self.all_faces)

    def arguments(self, format_name: str) -> dict[str, Any]:
        """Give the options that are not the defaults, for `feie info --reproduce`."""
        kept = {"groups", "group", "fps", "all_faces"}
        given = self.model_dump(mode="json", include=kept, exclude_defaults=True)
        return {"source": str(self.source.absolute()), "format": format_name, **given}
