"""What `feie import` can be asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from feie.features.formats.reading.imported import ReadOptions
from feie.pipeline.engine.options import local_store


class ImportFeaturesOptions(BaseModel):
    """What `feie import` is asked to do; see ``feie import --help`` for each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Path
    format: str = "auto"
    store: Annotated[Path, BeforeValidator(local_store)] = Path("features.zarr")
    groups: tuple[str, ...] = ()
    group: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w-]*$")
    fps: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    all_faces: bool = False
    dry_run: bool = False
    commit_videos: int = Field(default=256, gt=0)
    commit_seconds: float = Field(default=30.0, ge=0)

    def reading(self) -> ReadOptions:
        """Give what changes the numbers that readers give."""
        return ReadOptions(self.groups, self.group or "", self.fps, self.all_faces)

    def arguments(self, format_name: str) -> dict[str, Any]:
        """Give the options that are not the defaults, for `feie info --reproduce`."""
        kept = {"groups", "group", "fps", "all_faces"}
        given = self.model_dump(mode="json", include=kept, exclude_defaults=True)
        return {"source": str(self.source.absolute()), "format": format_name, **given}
