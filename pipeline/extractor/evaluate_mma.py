"""`feie evaluate-mma`: score an extractor on every face of a pack or of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from feie.features.errors import DataError, UsageError
from feie.features.extractors.load import Extractor, load_extractor
from feie.features.faces.detectors import Detector, load_detector
from feie.features.mma.augment import equalised
from feie.features.mma.data.config import DataConfig, PackConfig, PartConfig
from feie.features.mma.data.crops import CROP_SEARCH, Change
from feie.features.mma.data.face_rows import FaceRows, in_order
from feie.features.mma.data.labelled import Labelled
from feie.features.mma.data.targets import relabel
from feie.features.mma.scoring.confusion import check_picture, draw_confusion
from feie.features.mma.scoring.scores import Scores, score_pack
from feie.features.mma.training.sampling import load_faces
from feie.features.mma.vocabulary import Codes
from feie.pipeline.extractor.accounts import dropped, remarks
from feie.pipeline.extractor.options import EvaluateMmaOptions
from feie.pipeline.progress import Progress, ProgressCallback, silent
from feie.pipeline.result import Cell, Result, Table, interval

__all__ = ["EvaluateMmaOptions", "EvaluateMmaResult", "run"]

_BATCH = 64
_READ: TypeAdapter[DataConfig] = TypeAdapter(DataConfig)


class EvaluateMmaResult(Scores, Result):
    """Scores, and what they were measured with.

    Attributes
    ----------
    data : str
        File name of the pack, or name of the data set and its split.
    reader : str
        As asked for.
    extractor, sha256 : str
        Name and digest of the weights.
    detector : str or None
        As asked for.
    equalised : bool
        As asked for.
    expression_codes : {"names", "classes", "aff-wild2"} or None
        What says which expression a label means: its name, the data set's own list of classes, or
        Aff-Wild2's order, which is assumed for codes without such a list.
    aligned, landmarks, detected, fixed : int
        Images taken as aligned, aligned by the data set's landmarks, by the detector, and by the
        fixed crop.
    dropped : dict of str to int
        Images that a data set names and that were not scored, by reason.
    unreadable : list of str
        Images of a data set that could not be read; of a pack, one such image is an error.
    picture : Path or None
        The confusion matrix as a picture.
    """

    data: str
    reader: str
    extractor: str
    sha256: str
    detector: str | None
    equalised: bool
    expression_codes: Codes | None
    aligned: int
    landmarks: int
    detected: int
    fixed: int
    dropped: dict[str, int]
    unreadable: list[str]
    picture: Path | None = None

    def tables(self) -> list[Table]:
        """Give the figures with their intervals, then counts, recall and F1."""
        rows: list[tuple[Cell, ...]] = [
            (name, value, interval(self.intervals.get(name)))
            for name, value in self.headline().items()
        ]
        rows += [(f"outside its expressions: {k}", n, "") for k, n in self.outside.items()]
        rows += [(f"left out: {reason}", n, "") for reason, n in self.dropped.items()]
        rows += [(f"recall {name}", value, "") for name, value in self.recall.items()]
        rows += [(f"F1 {name}", value, "") for name, value in self.au_f1.items()]
        copies = " as equalised copies" if self.equalised else ""
        title = f"{self.data}: {self.n} images{copies}, {self.extractor}"
        return [Table(title, ("figure", "value", "95 % interval"), rows)]

    def lines(self) -> list[str]:
        """Say what was assumed of the labels, and what could not be read."""
        said = []
        if self.expression_codes == "aff-wild2":
            said.append("expression codes were taken in Aff-Wild2's order (0 neutral … 6 surprise)")
        if self.unreadable:
            few = ", ".join(self.unreadable[:10])
            said.append(f"{len(self.unreadable)} images cannot be read: {few}")
        if self.picture is not None:
            said.append(f"confusion matrix → {self.picture}")
        return said


def run(options: EvaluateMmaOptions, progress: ProgressCallback = silent) -> EvaluateMmaResult:
    """Score an extractor on a pack or a data set.

    Raises
    ------
    DataError, MissingWeightsError, UsageError
        Data, weights, a detector or a device that cannot be used.
    """
    config = _data_config(options)
    extractor = load_extractor(options.extractor, options.device)
    detector = load_detector(options.detector, CROP_SEARCH) if options.detector else None
    if options.picture is not None:
        check_picture(options.picture)
    data, faces = _load(config, detector, equalised if options.equalised else None)
    if options.picture is not None and not (relabel(data, extractor.schema).expression >= 0).any():
        raise UsageError(f"--picture: {config.title} labels no expression of {extractor.name}")
    for said in remarks(data):
        progress(Progress("images", 0, len(data), message=said))
    progress(Progress("images", 0, len(data)))
    affect, readable = _predict(extractor, data, faces, progress)
    if not readable.any():
        raise DataError(f"{config.title}: none of its images can be read")
    scored = data if readable.all() else data.select(np.flatnonzero(readable))
    title = options.data.name if options.reader == "pack" else Path(config.title).name
    scores = score_pack(scored, affect[readable], options.repeats, extractor.schema)
    if options.picture is not None:
        draw_confusion(scores.confusion, f"{title}, {extractor.name}", options.picture)
    return EvaluateMmaResult(
        **scores.model_dump(),
        **vars(faces.alignment),
        data=title,
        reader=options.reader,
        extractor=extractor.name,
        sha256=extractor.sha256,
        detector=options.detector,
        equalised=options.equalised,
        expression_codes=data.codes,
        dropped=dropped(data),
        unreadable=[str(data.names[row]) for row in faces.unreadable],
        picture=options.picture,
    )


def _data_config(options: EvaluateMmaOptions) -> DataConfig:
    """Make of the options what a training configuration would say of the data.

    Raises
    ------
    UsageError
        An option that the reader does not have.
    """
    names = ("split", "partition", "images", "annotations", "outside", "every", "tolerance")
    given: dict[str, Any] = {
        "reader": options.reader,
        "pack" if options.reader == "pack" else "data": str(options.data),
        "crops": "detected" if options.detector else "fixed",
    }
    for name in names:
        if name in options.model_fields_set:
            value = getattr(options, name)
            given[name] = (
                [str(path) for path in value]
                if isinstance(value, tuple)
                else str(value)
                if isinstance(value, Path)
                else value
            )
    if options.without is not None:
        if options.reader != "pack":
            raise UsageError("--without is for packs: a data set says by its files what is in it")
        given["without"] = str(options.without)
    if options.held_out is not None:
        given["part"] = PartConfig(
            held_out=options.held_out, keep="held-out", by=options.held_out_by
        )
    try:
        return _READ.validate_python(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][-1]).replace("_", "-")
        raise UsageError(
            f"--{name} is for data sets of image files: say with --reader which one this is"
        ) from error


def _load(
    config: DataConfig, detector: Detector | None, change: Change | None
) -> tuple[Labelled, FaceRows]:
    if isinstance(config, PackConfig) and not Path(config.pack).is_file():
        raise DataError(f"no pack at {config.pack}: give the path of an HDF5 file of faces")
    if not isinstance(config, PackConfig) and not Path(config.data).exists():
        raise DataError(f"no data at {config.data}: give the folder of the data set, or the table")
    if isinstance(config, PackConfig) and config.without and not Path(config.without).is_file():
        raise DataError(f"no pack at {config.without}: --without takes an HDF5 file of faces")
    return load_faces(config, (Path(),), detector, change=change)


def _predict(
    extractor: Extractor, data: Labelled, faces: FaceRows, progress: ProgressCallback
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read, align and extract batch by batch: data decoded whole may not fit into memory."""
    affect = np.empty((len(data), len(extractor.schema)), dtype=np.float32)
    readable = np.zeros(len(data), dtype=np.bool_)
    chunks = [np.arange(i, min(i + _BATCH, len(data))) for i in range(0, len(data), _BATCH)]
    for rows, (read, good) in zip(chunks, in_order(faces.read, chunks, 1), strict=True):
        seen = [extractor.crop.fit(face) for face in np.repeat(read, 3 // read.shape[3], axis=3)]
        affect[rows] = extractor(np.stack(seen)).affect
        readable[rows] = good
        progress(Progress("images", int(rows[-1]) + 1, len(data)))
    return affect, readable
