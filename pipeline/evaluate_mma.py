"""`feie evaluate-mma`: score an extractor on every image of a pack of faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from feie.features.detect import Detector, load_detector
from feie.features.extractors import Extractor, load_extractor
from feie.features.mma.config import PartConfig
from feie.features.mma.crops import CROP_SEARCH, Alignment, pack_faces
from feie.features.mma.packs import Pack, read_pack
from feie.features.mma.sampling import take_part
from feie.features.mma.scores import Scores, score_pack
from feie.features.mma.vocabulary import ASSUMED_CODES, Codes
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
        Torch device, or ``auto``.
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
    expression_codes : {"names", "classes", "aff-wild2"} or None
        What says which expression a label means: its name, the pack's own list of classes, or
        Aff-Wild2's order, which is assumed for codes without such a list.
    aligned, detected, fixed : int
        Images taken as aligned, aligned by the detector, and by the fixed crop.
    """

    data: str
    extractor: str
    sha256: str
    detector: str | None
    expression_codes: Codes | None
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
    said = ASSUMED_CODES if pack.codes == "aff-wild2" else ""
    progress(Progress("images", 0, len(pack), message=said))
    affect, alignment = _predict(extractor, pack, detector, progress)
    return EvaluateMmaResult(
        **score_pack(pack, affect, options.repeats).model_dump(),
        **vars(alignment),
        data=options.data.name,
        extractor=extractor.name,
        sha256=extractor.sha256,
        detector=options.detector,
        expression_codes=pack.codes,
    )


def _predict(
    extractor: Extractor, pack: Pack, detector: Detector | None, progress: ProgressCallback
) -> tuple[NDArray[np.float32], Alignment]:
    """Align and extract batch by batch: a pack decoded whole may not fit into memory."""
    affect = np.empty((len(pack), len(extractor.schema)), dtype=np.float32)
    alignment = Alignment()
    for start in range(0, len(pack), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(pack)))
        faces, counts = pack_faces(pack.select(rows), detector)
        affect[rows] = extractor(np.repeat(faces, 3 // faces.shape[3], axis=3)).affect
        alignment += counts
        progress(Progress("images", start + len(rows), len(pack)))
    return affect, alignment
