"""The ICT face model: a neutral head, identity modes and FACS-like expression deltas.

The file is a light HDF5 copy of ICT-FaceKit (FaceXModel), MIT licence, (c) 2020 USC Institute
for Creative Technologies. One unit is one centimetre; x points to the subject's left, y up and
z out of the face. The user gives its path; nothing of it is shipped with feie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from feie.features.errors import DataError
from feie.features.synthetic.arrays import Floats, Ints


class MeshPart(IntEnum):
    """What a triangle is made of."""

    FACE = 0
    HEAD = 1
    SOCKET = 2
    GUMS = 3
    TEETH = 4
    EYE = 5
    LASHES = 6


# Material of the file -> part. Wet layers (occlusion, fluid, blend) and the flat iris discs,
# which lie inside the eyeball, are left out: irises are painted on the eyeball instead.
PARTS = {
    "M_Face": MeshPart.FACE,
    "M_BackHead": MeshPart.HEAD,
    "M_GumsTongue": MeshPart.GUMS,
    "M_Teeth": MeshPart.TEETH,
    "M_ScleraLeft": MeshPart.EYE,
    "M_ScleraRight": MeshPart.EYE,
    "M_EyeLashes": MeshPart.LASHES,
}
# Mouth and eye sockets share the material of the back of the head; ICT documents their range.
SOCKET_VERTICES = range(11248, 14062)
# Landmark vertices in the file's numbering: tip of the nose, corner of the mouth on the
# subject's left. Eye centres are the means of the lid margins, found as holes of the face.
NOSE_TIP = 4841
MOUTH_CORNER = 6156


@dataclass(frozen=True)
class FaceMesh:
    """A morphable head, cut down to what is drawn.

    Attributes
    ----------
    neutral : (V, 3) float32
        Mean neutral head, cm.
    identity : (K, V, 3) float32
        Identity modes, to be added with standard-normal-like weights.
    expression : dict of str to (V, 3) float32
        Expression deltas by the file's names, at full strength.
    triangles : (T, 3) int64
        Vertex indices, counter-clockwise seen from outside.
    part : (T,) int64
        `MeshPart` of each triangle.
    uv : (V, 2) float32
        Texture coordinates of the face in [0, 1], v up; meaningless outside `MeshPart.FACE`.
    eyes : tuple of two int64 arrays
        Eyeball vertices: the subject's right eye (left in the image), then the left.
    landmarks : tuple of five int64 arrays
        Vertices whose mean is a landmark, in ArcFace order: eye left in the image, eye right
        in the image, nose, mouth corner left in the image, mouth corner right in the image.
    lips : (2,) int64
        Inner edge of the upper and of the lower lip on the midline.
    """

    neutral: Floats
    identity: Floats
    expression: Mapping[str, Floats]
    triangles: Ints
    part: Ints
    uv: Floats
    eyes: tuple[Ints, Ints]
    landmarks: tuple[Ints, Ints, Ints, Ints, Ints]
    lips: Ints

    def shape(self, identity: Floats, weights: Mapping[str, float]) -> Floats:
        """Vertices of a person with an expression.

        Parameters
        ----------
        identity : (V, 3) float32
            A neutral head, e.g. of `person`.
        weights : dict of str to float
            Expression weights by name; 1 is the delta as stored.

        Returns
        -------
        (V, 3) float32
            A new array.
        """
        vertices = identity.copy()
        for name, weight in weights.items():
            if weight:
                vertices += np.float32(weight) * self.expression[name]
        return vertices

    def person(self, weights: Floats) -> Floats:
        """Neutral head, (V, 3) float32, of a person with identity weights (K,)."""
        flat = self.identity.reshape(len(self.identity), -1)
        delta: Floats = weights.astype(np.float32) @ flat
        return self.neutral + delta.reshape(self.neutral.shape)

    def landmark_points(self, vertices: NDArray[np.floating]) -> Floats:
        """Landmarks, (5, D), of vertex positions (V, D), whether visible or not."""
        return np.stack([vertices[i].mean(axis=0) for i in self.landmarks]).astype(np.float32)


def normals_operator(triangles: Ints, count: int) -> sparse.csr_matrix:
    """Sparse (V, T) matrix that sums triangle normals into vertex normals."""
    rows = triangles.ravel()
    columns = np.repeat(np.arange(len(triangles)), 3)
    ones = np.ones(len(rows), np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), shape=(count, len(triangles)))


def vertex_normals(vertices: Floats, triangles: Ints, operator: sparse.csr_matrix) -> Floats:
    """Compute unit vertex normals, (V, 3): area-weighted means of the normals of the triangles."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    u, v = (b - a).T, (c - a).T
    cross = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    summed = operator @ np.stack(cross, axis=1)
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    unit: Floats = (summed / np.maximum(length, 1e-12)).astype(np.float32)
    return unit


def load_ict(path: Path) -> FaceMesh:
    """Read the ICT face model.

    Parameters
    ----------
    path : Path
        HDF5 file with ``neutral``, ``identity_delta``, ``expression_delta``,
        ``expression_name``, ``faces``, ``face_material``, ``face_uv`` and ``uv``.

    Raises
    ------
    DataError
        The file is missing or is not this model.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the path of the ICT face model (HDF5)")
    try:
        with h5py.File(path) as file:
            neutral = file["neutral"][:]
            identity = file["identity_delta"][:].astype(np.float32)
            delta = file["expression_delta"][:].astype(np.float32)
            names = [name.decode() for name in file["expression_name"][:]]
            quads = file["faces"][:].astype(np.int64)
            material = file["face_material"][:].astype(str)
            quad_uv = file["face_uv"][:]
            uv_table = file["uv"][:]
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: not an ICT face model in HDF5 ({error})") from error

    wanted = np.isin(material, list(PARTS))
    quads, material, quad_uv = quads[wanted], material[wanted], quad_uv[wanted]
    part = np.array([PARTS[name] for name in material], np.int64)
    socket = np.array(SOCKET_VERTICES)
    part[(part == MeshPart.HEAD) & np.isin(quads, socket).all(axis=1)] = MeshPart.SOCKET

    uv = np.zeros((len(neutral), 2), np.float32)
    on_face = part == MeshPart.FACE
    uv[quads[on_face].ravel()] = uv_table[quad_uv[on_face].ravel()]

    four = quads[:, 3] >= 0
    triangles = np.concatenate([quads[:, :3], quads[four][:, [0, 2, 3]]])
    part = np.concatenate([part, part[four]])
    used, compact = np.unique(triangles, return_inverse=True)
    triangles = compact.reshape(triangles.shape)
    index = {int(old): new for new, old in enumerate(used)}

    holes = _eye_holes(quads[on_face], neutral)
    mirror = int(np.abs(neutral - neutral[MOUTH_CORNER] * [-1, 1, 1]).sum(axis=1).argmin())
    right_eye, left_eye = (np.array([index[int(v)] for v in hole]) for hole in holes)
    landmarks = (
        right_eye,
        left_eye,
        np.array([index[NOSE_TIP]]),
        np.array([index[mirror]]),
        np.array([index[MOUTH_CORNER]]),
    )
    kept = neutral[used]
    eyeball = np.unique(triangles[part == MeshPart.EYE])
    return FaceMesh(
        neutral=kept,
        identity=np.ascontiguousarray(identity[:, used]),
        expression={name: np.ascontiguousarray(delta[i, used]) for i, name in enumerate(names)},
        triangles=triangles,
        part=part,
        uv=uv[used],
        eyes=(eyeball[kept[eyeball, 0] < 0], eyeball[kept[eyeball, 0] > 0]),
        landmarks=landmarks,
        lips=np.array([index[5532], index[5519]]),
    )


def _eye_holes(quads: Ints, neutral: Floats) -> tuple[Ints, Ints]:
    """Lid margins: the two holes of the face beside the nose, left in the image first."""
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    edges.sort(axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = unique[count == 1]
    graph = sparse.coo_matrix(
        (np.ones(len(rim)), (rim[:, 0], rim[:, 1])), shape=(len(neutral), len(neutral))
    )
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    loops = [np.flatnonzero(label == k) for k in np.unique(label[rim])]
    eyes = [loop for loop in loops if np.ptp(neutral[loop, 0]) < 3.5]
    if len(eyes) != 2:
        raise DataError(f"the face model has {len(eyes)} eye holes; expected the two of ICT")
    first, second = sorted(eyes, key=lambda loop: float(neutral[loop, 0].mean()))
    return first, second
