"""SCRFD and RetinaFace, insightface's detectors: finding their weights and running them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces import DetectOptions, Faces, ScaledDetector
from feie.features.frames import Image

MODEL_PACKS = ("buffalo_s", "buffalo_sc", "buffalo_m", "buffalo_l", "antelopev2")
"""insightface's model packs in the order in which a bare ``scrfd`` looks for them: the lightest
detector first."""

LICENCE = "insightface's weights are for non-commercial research only"

_OUTPUTS = {9, 15}  # scores, boxes and landmarks at three or five strides


def find_weights(spec: str) -> Path:
    """Find the weights of an insightface detector, as insightface does; never downloads.

    Parameters
    ----------
    spec : str
        A file that ends in ``.onnx``; the name of a model pack, looked for below
        ``~/.insightface/models``; or empty for the first pack of `MODEL_PACKS` that is there.

    Raises
    ------
    MissingWeightsError
        No such file, no such pack, or a pack without a detector.
    """
    if spec.lower().endswith(".onnx"):
        path = Path(spec).expanduser()
        if not path.is_file():
            raise MissingWeightsError(
                f"there is no detector {path}; put the file there, or give another as "
                f"--detector scrfd:FILE ({LICENCE})"
            )
        return path
    if Path(spec).is_file():
        raise UsageError(f"{spec} is no ONNX file; give --detector scrfd:FILE.onnx")
    root = Path("~/.insightface/models").expanduser()
    for pack in [spec] if spec else MODEL_PACKS:
        # The archive of antelopev2 unpacks into a folder of its own name inside.
        for folder in (root / pack, root / pack / pack):
            found = sorted((*folder.glob("det_*.onnx"), *folder.glob("scrfd_*.onnx")))
            if found:
                return found[0]
    pack = spec or "buffalo_s"
    raise MissingWeightsError(
        f"no face detector found: put insightface's {pack} detector "
        f"({_usual_file(pack)}) into {root / pack}, or give a file as --detector scrfd:FILE or "
        f"yunet:FILE ({LICENCE}; YuNet's are not bound so)"
    )


def _usual_file(pack: str) -> str:
    return {
        "buffalo_l": "det_10g.onnx",
        "buffalo_m": "det_2.5g.onnx",
        "antelopev2": "scrfd_10g_bnkps.onnx",
    }.get(pack, "det_500m.onnx")


class Scrfd(ScaledDetector):
    """An insightface detector with five landmarks, on the CPU.

    Its numbers do not depend on the number of threads; one object may serve several threads.

    Parameters
    ----------
    path : Path
        ONNX file.
    sha256 : str
        Hash of the file.
    options : DetectOptions
        How to search.
    threads : int
        Threads within one call.

    Raises
    ------
    UsageError
        The file is damaged, or is no such detector.
    """

    def __init__(self, path: Path, sha256: str, options: DetectOptions, threads: int) -> None:
        super().__init__(f"scrfd:{path.stem}", sha256, options)
        # Heavy imports wait until a detector is really needed.
        import onnxruntime
        from insightface.model_zoo.scrfd import SCRFD

        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads
        session_options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from decoding and from the extractor.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The exported graphs promise output shapes of a 640 input, which is warned of each call.
        session_options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(path), session_options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes share no public base
            raise UsageError(
                f"{path} is damaged or not an ONNX model; copy it anew ({LICENCE})"
            ) from error
        shape = session.get_inputs()[0].shape
        if len(session.get_outputs()) not in _OUTPUTS or len(shape) != 4:
            raise UsageError(
                f"{path} is not a SCRFD or RetinaFace detector with landmarks; put "
                f"det_500m.onnx, det_2.5g.onnx or det_10g.onnx there ({LICENCE})"
            )
        if any(isinstance(side, int) and side > 0 for side in shape[2:]):
            raise UsageError(
                f"{path} takes inputs of {shape[3]}x{shape[2]} px only, and several sizes are "
                "needed; use an export with dynamic input"
            )
        self._model: Any = SCRFD(session=session)
        self._model.prepare(-1, det_thresh=options.threshold, nms_thresh=options.overlap)

    def _find(self, canvas: Image) -> Faces:
        height, width = canvas.shape[:2]
        found, landmarks = self._model.detect(canvas, input_size=(width, height))
        found = np.asarray(found, np.float32).reshape(-1, 5)
        return Faces(found[:, :4], found[:, 4], np.asarray(landmarks, np.float32).reshape(-1, 5, 2))
