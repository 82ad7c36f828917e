"""Pseudo-label the action units of a pack with a teacher (see `feie.features.mma.teacher`)."""

from __future__ import annotations

import h5py
import numpy as np

from feie.features.files import written_whole
from feie.features.mma.data.crops import pack_faces
from feie.features.mma.data.packs import read_pack
from feie.features.mma.teacher import Teacher, guessed_units
from feie.pipeline.extractor.options import LabelUnitsOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Result

__all__ = ["LabelUnitsOptions", "LabelUnitsResult", "run"]


class LabelUnitsResult(Result):
    """How many images there are, and in how many the teacher saw a face."""

    images: int
    labelled: int

    def lines(self) -> list[str]:
        """Count what was labelled."""
        return [f"{self.labelled} of {self.images} images labelled: the teacher saw a face there"]


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
