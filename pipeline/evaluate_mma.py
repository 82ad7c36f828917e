"""`feie evaluate-mma`: score an extractor on every image of a pack of faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from feie.features.detect import load_detector
from feie.features.extractors import load_extractor
from feie.features.mma.config import PartConfig
from feie.features.mma.crops import CROP_SEARCH, Alignment, pack_faces
from feie.features.mma.packs import read_pack
from feie.features.mma.sampling import take_part
from feie.features.mma.scores import Scores, score_pack
from feie.pipeline.progress import Progress, ProgressCallback, silent

_BATCH = 64


class EvaluateMmaOptions(BaseModel):
    """Options of `feie evaluate-mma`.

    Attributes
    ----------
    data : Path
        HDF5 pack, see `feie.features.mma.packs.read_pack`.
    weights : str
        Bundled name or path of a ``.safetensors`` file.
    detector : str, optional
        Aligns images that are not 112x112, e.g. ``scrfd:FILE``; where it finds nothing, and
        without it, one fixed crop does. No image is dropped.
    held_out : float, optional
        Score only the share of images that `train-mma` holds out by the same number.
    repeats : int
        Bootstrap resamples.
    device : str
        Torch device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    weights: str = "mma-lite"
    detector: str | None = None
    held_out: float | None = Field(default=None, gt=0, lt=1)
    repeats: int = Field(default=1000, ge=0)
    device: str = "cpu"


class EvaluateMmaResult(Scores):
    """Scores, and what they were measured with.

    Attributes
    ----------
    data : str
        File name of the pack.
    extractor, sha256 : str
        Name and digest of the weights.
    detector : str or None
        As asked for.
    aligned, detected, fixed : int
        Images taken as aligned, aligned by the detector, and by the fixed crop.
    """

    data: str
    extractor: str
    sha256: str
    detector: str | None
    aligned: int
    detected: int
    fixed: int


def run(options: EvaluateMmaOptions, progress: ProgressCallback = silent) -> EvaluateMmaResult:
    """Score an extractor on a pack.

    Raises
    ------
    DataError, MissingWeightsError, UsageError
        A pack, weights, detector or device that cannot be used.
    """
    extractor = load_extractor(options.weights, options.device)
    detector = load_detector(options.detector, CROP_SEARCH) if options.detector else None
    pack = read_pack(options.data)
    if options.held_out is not None:
        pack = take_part(pack, PartConfig(held_out=options.held_out, keep="held-out"))
    progress(Progress("images", 0, len(pack), message=f"aligning {len(pack)} images"))
    faces, alignment = pack_faces(pack, detector)
    affect = np.empty((len(faces), len(extractor.schema)), dtype=np.float32)
    for start in range(0, len(faces), _BATCH):
        part = faces[start : start + _BATCH]
        rgb = np.repeat(part, 3 // part.shape[3], axis=3)
        affect[start : start + len(part)] = extractor(rgb).affect
        progress(Progress("images", start + len(part), len(pack)))
    return _result(
        options,
        score_pack(pack, affect, options.repeats),
        alignment,
        extractor.name,
        extractor.sha256,
    )


def _result(
    options: EvaluateMmaOptions, scores: Scores, alignment: Alignment, name: str, sha256: str
) -> EvaluateMmaResult:
    return EvaluateMmaResult(
        **scores.model_dump(),
        **vars(alignment),
        data=options.data.name,
        extractor=name,
        sha256=sha256,
        detector=options.detector,
    )
