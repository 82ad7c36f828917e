"""MTCNN's O-Net: five landmarks of a face that another detector has boxed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from feie.features.errors import UsageError
from feie.features.video.reader import Image

SIDE = 0.9
"""Side of the square that is looked at, in longer sides of YuNet's box: nearest to det_2.5g."""

INPUT = 48
"""Side of the network's input, px."""

_MIRRORED = [1, 0, 2, 4, 3]  # which landmark each becomes in a mirror


class LandmarkNet:
    """O-Net of Zhang et al. 2016 (arXiv 1604.02878), by onnxruntime.

    Each face is looked at as it is and mirrored, and the two opinions on its landmarks are
    averaged. The network's correction of the box is not used. One object may serve several threads.

    Parameters
    ----------
    model : bytes
        The ONNX file.
    path : Path
        Where it came from, for messages.

    Raises
    ------
    UsageError
        The file is damaged, or is no O-Net.
    """

    def __init__(self, model: bytes, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        wrong = f"{path} is damaged or not MTCNN's O-Net: install feie anew"
        try:
            session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes share no public base
            raise UsageError(wrong) from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = [[*value.shape[1:]] for value in (*inputs, *outputs)]
        if shapes != [[3, INPUT, INPUT], [10], [4], [2]]:
            raise UsageError(wrong)
        self._session: Any = session
        self._input, self._outputs = inputs[0].name, [outputs[0].name, outputs[2].name]

    def look(
        self, rgb: Image, bbox: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find the landmarks of each boxed face, and say how sure it is that this is a face.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            The frame.
        bbox : (n, 4) float array
            x0, y0, x1, y1 of each face, px; may reach beyond the frame.

        Returns
        -------
        landmarks : (n, 5, 2) float32 array
            px of the frame, in ArcFace's order.
        score : (n,) float32 array
            Probability in [0, 1], the lesser of the two.
        """
        if not len(bbox):
            return np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
        side = np.maximum(np.rint(SIDE * np.max(bbox[:, 2:] - bbox[:, :2], axis=1)), 1)
        corner = np.rint((bbox[:, :2] + bbox[:, 2:] - side[:, None]) / 2)
        squares = np.column_stack([corner, side]).astype(np.int64)
        faces = np.stack([_cut(rgb, *square) for square in squares.tolist()])
        x = faces.transpose(0, 3, 1, 2).astype(np.float32)
        x = (x - np.float32(127.5)) / np.float32(128)
        out, sure = self._session.run(
            self._outputs, {self._input: np.concatenate([x, x[..., ::-1]])}
        )
        # The network gives all x, then all y, in sides of the square.
        points = out.reshape(2, len(bbox), 2, 5).transpose(0, 1, 3, 2)
        mirrored = points[1][:, _MIRRORED]
        mirrored[..., 0] = 1 - mirrored[..., 0]
        mean = (points[0] + mirrored) / 2
        landmarks = (corner[:, None] + mean * side[:, None, None]).astype(np.float32)
        return landmarks, sure[:, 1].reshape(2, len(bbox)).min(axis=0)


def _cut(rgb: Image, x0: int, y0: int, side: int) -> Image:
    """Cut a square out of a frame at the network's size; black outside the frame."""
    inside = rgb[max(y0, 0) : max(y0 + side, 0), max(x0, 0) : max(x0 + side, 0)]
    if inside.shape[:2] != (side, side):
        part, inside = inside, np.zeros((side, side, 3), np.uint8)
        top, left = max(-y0, 0), max(-x0, 0)
        inside[top : top + part.shape[0], left : left + part.shape[1]] = part
    how = cv2.INTER_AREA if side > INPUT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, (INPUT, INPUT), interpolation=how), np.uint8)
