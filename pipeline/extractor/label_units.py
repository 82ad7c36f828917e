"""Pseudo-label the action units of a pack with a teacher (see `feie.features.mma.teacher`)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict

from feie.features.files import written_whole
from feie.features.mma.data.crops import pack_faces
from feie.features.mma.data.packs import read_pack
from feie.features.mma.teacher import Teacher, guessed_units
from feie.pipeline.progress import Progress, ProgressCallback, silent


class LabelUnitsOptions(BaseModel):
    """Which pack to label.

    Attributes
    ----------
    data : Path
        HDF5 pack.
    teacher : Path
        MediaPipe's ``face_landmarker.task``.
    out : Path
        The HDF5 file of ``name`` and ``au`` to write, for ``pseudo_units`` of a source.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    teacher: Path
    out: Path


class LabelUnitsResult(BaseModel):
    """How many images there are, and in how many the teacher saw a face."""

    images: int
    labelled: int


def run(options: LabelUnitsOptions, progress: ProgressCallback = silent) -> LabelUnitsResult:
    """Guess the action units of every image, aligned by the fixed crop.

    Raises
    ------
    DataError, MissingWeightsError
        A pack or teacher that cannot be used.
    """
    teacher = Teacher(options.teacher)
    pack = read_pack(options.data)
    faces, _ = pack_faces(pack)
    units = np.empty(pack.units.shape, dtype=np.float32)
    for row, face in enumerate(faces):
        units[row] = guessed_units(teacher(np.repeat(face, 3 // face.shape[2], axis=2)))
        if row % 100 == 0:
            progress(Progress("images", row, len(faces)))
    with written_whole(options.out) as out, h5py.File(out, "w") as file:
        file["name"] = [name.encode() for name in pack.names]
        file["au"] = units
        file.attrs["source"] = f"pseudo-labels by {options.teacher.name} on {options.data.name}"
    labelled = int((~np.isnan(units).all(axis=1)).sum())
    return LabelUnitsResult(images=len(pack), labelled=labelled)
