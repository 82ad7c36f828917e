"""SCRFD and RetinaFace, insightface's detectors: finding their weights and running them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import MissingWeightsError, UsageError
from feie.features.faces.detection import DetectOptions, Faces, ScaledDetector
from feie.features.video.reader import Image

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
        path = Path(expanduser(spec))
        if not path.is_file():
            raise MissingWeightsError(
                f"there is no detector {path}; put the file there, or give another as "
                f"--detector scrfd:FILE ({LICENCE})"
            )
        return path
    if Path(spec).is_file():
        raise UsageError(f"{spec} is no ONNX file; give --detector scrfd:FILE.onnx")
    root = Path(expanduser("~/.insightface/models"))
    for pack in [spec] if spec else MODEL_PACKS:
        # The archive of antelopev2 unpacks into a folder of its own name inside.
        for folder in (root / pack, root / pack / pack):
            found = sorted((*folder.glob("det_*.onnx"), *folder.glob("scrfd_*.onnx")))
            if found:
                return found[0]
    pack = spec or "buffalo_s"
    raise MissingWeightsError(
        f"no face detector found: put insightface's {pack} detector "
        f"({_usual_file(pack)}) into {root / pack} (`feie models fetch {pack}` does), or give "
        f"a file as --detector scrfd:FILE ({LICENCE}; --detector auto needs none of them)"
    )


def _usual_file(pack: str) -> str:
    return {
        "buffalo_l": "det_10g.onnx",
        "buffalo_m": "det_2.5g.onnx",
        "antelopev2": "scrfd_10g_bnkps.onnx",
    }.get(pack, "det_500m.onnx")


class Scrfd(ScaledDetector):
    """An insightface detector with five landmarks.

    Its numbers do not depend on the number of threads; one object may serve several threads.
    insightface reads the layout of the network's outputs; decoding them is done here, for the
    places above the threshold only and for several images at a time.

    Parameters
    ----------
    path : Path
        ONNX file.
    sha256 : str
        Hash of the file.
    options : DetectOptions
        How to search.
    threads : int
        Threads within one call, on a CPU.
    device : str
        ``cpu``, or ``cuda:N`` where onnxruntime has CUDA; the CPU where it has not.

    Raises
    ------
    UsageError
        The file is damaged, or is no such detector.
    """

    def __init__(
        self, path: Path, sha256: str, options: DetectOptions, threads: int, device: str = "cpu"
    ) -> None:
        super().__init__(f"scrfd:{path.stem}", sha256, options)
        # Heavy imports wait until a detector is really needed.
        from insightface.model_zoo.scrfd import SCRFD

        self._path = path
        self._threads = threads
        self._providers = onnx_providers(device)
        try:
            session = self._session(str(path))
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
        self._one = session
        self._several: Any = None if isinstance(shape[0], int) else session
        self._building = threading.Lock()
        self._model: Any = SCRFD(session=session)
        self._model.prepare(0, det_thresh=options.threshold, nms_thresh=options.overlap)

    def _session(self, model: str | bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the cores from decoding and from the extractor.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The exported graphs promise output shapes of a 640 input, which is warned of each call.
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model, options, providers=self._providers)

    def _session_for(self, count: int) -> Any:
        """Give a session that takes so many images at a time."""
        if count == 1:
            return self._one
        with self._building:
            if self._several is None:
                # The exported graphs say batch 1 and would take any: only the label forbids it.
                import onnx

                graph = onnx.load(str(self._path))
                for value in (*graph.graph.input, *graph.graph.output):
                    value.type.tensor_type.shape.dim[0].dim_param = "N"
                del graph.graph.value_info[:]
                self._several = self._session(graph.SerializeToString())
        return self._several

    def _find(self, canvases: Sequence[Image]) -> list[Faces]:
        import cv2

        model = self._model
        count, (height, width) = len(canvases), canvases[0].shape[:2]
        mean = (model.input_mean,) * 3
        blob = cv2.dnn.blobFromImages(
            canvases, 1.0 / model.input_std, (width, height), mean, swapRB=True
        )
        outputs = self._session_for(count).run(model.output_names, {model.input_name: blob})
        found: list[list[NDArray[np.float32]]] = [[] for _ in canvases]
        for level, stride in enumerate(model._feat_stride_fpn):
            anchors = model._num_anchors
            scores, boxes, points = (
                _per_image(outputs[level + part * model.fmc], count, anchors) for part in range(3)
            )
            centres = _centres(height // stride, width // stride, stride, anchors)
            for i, kept in enumerate(scores[:, :, 0] >= self._search.threshold):
                if (at := np.flatnonzero(kept)).size:
                    xy = centres[at]
                    reach = boxes[i, at] * stride
                    marks = np.tile(xy, 5) + points[i, at] * stride
                    corners = (xy - reach[:, :2], xy + reach[:, 2:])
                    found[i].append(np.hstack([*corners, scores[i, at], marks]))
        return [self._best(np.vstack(rows)) if rows else Faces.none() for rows in found]

    def _best(self, rows: NDArray[np.float32]) -> Faces:
        """Keep the best of overlapping finds; rows are box, score, landmarks: (n, 15)."""
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        rows = rows[self._model.nms(rows[:, :5])]
        return Faces(rows[:, :4], rows[:, 4], rows[:, 5:].reshape(-1, 5, 2))


def _per_image(output: NDArray[np.float32], count: int, anchors: int) -> NDArray[np.float32]:
    """Bring one output into the form (images, places, channels).

    Exports without a batch dimension flatten (places, images, anchors, channels) into rows.
    """
    if output.ndim == 3:
        return output
    rows = output.reshape(-1, count, anchors, output.shape[-1])
    return rows.transpose(1, 0, 2, 3).reshape(count, -1, output.shape[-1])


@lru_cache(maxsize=64)
def _centres(height: int, width: int, stride: int, anchors: int) -> NDArray[np.float32]:
    """Give x, y of each anchor of a level, px of the input: (height * width * anchors, 2)."""
    y, x = np.mgrid[:height, :width]
    grid = np.stack([x, y], axis=-1).astype(np.float32) * stride
    return np.repeat(grid.reshape(-1, 2), anchors, axis=0)


def onnx_providers(device: str) -> list[Any]:
    """Give onnxruntime's execution providers for a device, the CPU's always last.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda:N``. CUDA needs the package onnxruntime-gpu; without it the CPU works.
    """
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    kind, _, number = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        # TF32 would round each product to ten bits.
        providers.insert(
            0, ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0})
        )
    return providers
