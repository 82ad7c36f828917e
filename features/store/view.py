"""One video of a store: its numbers by name, each array read when it is first asked for."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feie.features.errors import StoreError, UnknownNameError
from feie.features.text import suggest

if TYPE_CHECKING:
    from feie.features.store.contents import StoreContents

_ROUNDING = 1e-3


class VideoView:
    """One video of a store; ``store["video id"]`` gives it.

    Opening it reads nothing. An array is read when it is first asked for and then kept with this
    object: it may be changed without any effect on the store.

    Attributes
    ----------
    id : str
        The video's path below the folder of videos, without suffix.
    faces : float
        Share of frames with a face, in [0, 1].

    Examples
    --------
    >>> import feie
    >>> video = feie.open_store("features.zarr")["face-001"]
    >>> len(video), video.fps
    (48, 30.0)
    >>> video.affect.shape
    (48, 26)
    >>> smile = video.au("AU12")
    >>> smile.shape, bool(smile[video.valid].max() <= 1)
    ((48,), True)
    """

    def __init__(
        self, store: StoreContents, video_id: str, start: int, stop: int, faces: float
    ) -> None:
        self._store = store
        self._rows = slice(start, stop)
        self.id = video_id
        self.faces = faces

    def __len__(self) -> int:
        """Give the number of frames, with or without a face."""
        return self._rows.stop - self._rows.start

    def __repr__(self) -> str:
        return f"<video {self.id!r}: {len(self)} frames, {self.faces:.0%} with a face>"

    @cached_property
    def _entry(self) -> dict[str, Any]:
        return {str(k): v for k, v in self._store.videos.loc[self.id].to_dict().items()}

    @property
    def fps(self) -> float:
        """Frames a second; NaN or 0 where the source does not say."""
        return float(self._entry["fps"])

    @property
    def width(self) -> int:
        """Width of the displayed frame in pixels."""
        return int(self._entry["width"])

    @property
    def height(self) -> int:
        """Height of the displayed frame in pixels."""
        return int(self._entry["height"])

    @property
    def source(self) -> str:
        """The file, or folder of frames, below the folder of videos."""
        return str(self._entry["source"])

    @cached_property
    def affect(self) -> NDArray[np.float32]:
        """Affect vectors, shape (frames, columns); rows of NaN where no face was found."""
        values = self._read("affect")
        if values.shape[1]:
            self._refuse_blank("affect", ~np.isnan(values[:, 0]))
        return values

    @cached_property
    def time(self) -> NDArray[np.float64]:
        """Presentation time stamps in seconds, shape (frames,)."""
        return self._read("time")

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Whether a face was found, shape (frames,)."""
        flags = self._read("valid")
        self._refuse_blank("valid", flags)
        return flags

    @cached_property
    def face_score(self) -> NDArray[np.float32]:
        """Detector scores, shape (frames,); NaN without one."""
        return self._read("face_score")

    @cached_property
    def bbox(self) -> NDArray[np.float32]:
        """Face boxes x0, y0, x1, y1 in pixels, shape (frames, 4)."""
        return self._read("bbox")

    @cached_property
    def landmarks(self) -> NDArray[np.float32]:
        """Five ArcFace points in pixels, shape (frames, 5, 2)."""
        return self._read("landmarks")

    @cached_property
    def embedding(self) -> NDArray[np.float16]:
        """The extractor's embedding of each face, shape (frames, features).

        Raises
        ------
        UnknownNameError
            The store keeps none.
        """
        if not self._store.has_embedding:
            raise UnknownNameError(
                f"{self._store.path} keeps no embeddings; `feie extract --embedding` does"
            )
        return self._read("embedding")

    def column(self, name: str) -> NDArray[np.float32]:
        """Give one column of the affect vector, shape (frames,).

        Raises
        ------
        UnknownNameError
            The store has no such column; the message names similar ones.

        Examples
        --------
        >>> store["face-001"].column("valence").shape
        (48,)
        """
        columns = self._store.columns
        if name not in columns:
            raise UnknownNameError(
                f"{self._store.path} has no column {name!r}{suggest(name, columns)}"
            )
        return self.affect[:, columns.index(name)]

    def group(self, name: str) -> NDArray[np.float32]:
        """Give the columns of one group, shape (frames, columns of the group).

        Their names are ``store.schema.group(name)``.

        Raises
        ------
        UnknownNameError
            The store has no such group; the message names those it has.

        Examples
        --------
        >>> store["face-001"].group("va").shape
        (48, 2)
        """
        return self.affect[:, slice(*self._span(name))]

    @property
    def valence(self) -> NDArray[np.float32]:
        """How pleasant the expression is, in [-1, 1], shape (frames,)."""
        return self.column("valence")

    @property
    def arousal(self) -> NDArray[np.float32]:
        """How active the expression is, in [-1, 1], shape (frames,)."""
        return self.column("arousal")

    @property
    def expressions(self) -> NDArray[np.float32]:
        """Probabilities of the expressions, shape (frames, expressions); rows sum to 1.

        Their names are ``store.schema.group("expr")``.
        """
        return self.group("expr")

    def expression(self, name: str) -> NDArray[np.float32]:
        """Give the probability of one expression, in [0, 1], shape (frames,).

        Raises
        ------
        UnknownNameError
            The store has no such expression; the message names those it has.

        Examples
        --------
        >>> store["face-001"].expression("happiness").shape
        (48,)
        >>> store["face-001"].expression("joy")
        Traceback (most recent call last):
        ...
        feie.features.errors.UnknownNameError: features.zarr has no expression 'joy'; \
it has neutral, anger, disgust, fear, happiness, sadness, surprise
        """
        return self._member("expr", "expression", name.lower(), name)

    @property
    def aus(self) -> NDArray[np.float32]:
        """Probabilities of the action units, in [0, 1], shape (frames, action units).

        Their names are ``store.schema.group("au")``.
        """
        return self.group("au")

    def au(self, name: str | int) -> NDArray[np.float32]:
        """Give the probability of one action unit, in [0, 1], shape (frames,).

        Parameters
        ----------
        name : str or int
            ``"AU12"``, ``"au12"`` or ``12``.

        Raises
        ------
        UnknownNameError
            The store has no such action unit; the message names those it has.

        Examples
        --------
        >>> video = store["face-001"]
        >>> smiling = (video.au("AU06") > 0.5) & (video.au("AU12") > 0.5)
        >>> smiling.dtype, smiling.shape
        (dtype('bool'), (48,))
        """
        number = re.fullmatch(r"(?:AU)?0*([0-9]+)", str(name).strip(), re.IGNORECASE)
        plain = f"AU{int(number[1]):02d}" if number else str(name)
        return self._member("au", "action unit", plain, name)

    def to_pandas(self, *, faces: bool = False) -> pd.DataFrame:
        """Give the video as a table, a row a frame.

        Parameters
        ----------
        faces : bool
            Add ``face_score`` and the box ``x0, y0, x1, y1``.

        Returns
        -------
        pandas.DataFrame
            Index ``time`` in seconds; the columns of the affect vector (float32), and ``valid``.

        Examples
        --------
        >>> table = store["face-001"].to_pandas()
        >>> table.shape, table.index.name
        ((48, 27), 'time')
        >>> list(table.columns[:3])
        ['valence', 'arousal', 'neutral']
        """
        index = pd.Index(self.time, name="time")
        table = pd.DataFrame(self.affect, index=index, columns=list(self._store.columns))
        table["valid"] = self.valid
        if faces:
            table["face_score"] = self.face_score
            table[["x0", "y0", "x1", "y1"]] = self.bbox
        return table

    def _span(self, group: str) -> tuple[int, int]:
        groups = self._store.groups
        if group not in groups:
            raise UnknownNameError(
                f"{self._store.path} has no group {group!r}; it has {', '.join(groups)}"
            )
        return groups[group]

    def _member(self, group: str, kind: str, plain: str, asked: str | int) -> NDArray[np.float32]:
        if group not in self._store.groups:
            raise UnknownNameError(
                f"{self._store.path} has no group {group!r}, but {', '.join(self._store.groups)}; "
                f"column() reads any column by its name{suggest(plain, self._store.columns)}"
            )
        start, stop = self._span(group)
        members = self._store.columns[start:stop]
        if plain not in members:
            raise UnknownNameError(
                f"{self._store.path} has no {kind} {asked!r}; it has {', '.join(members)}"
            )
        return self.affect[:, start + members.index(plain)]

    def _read(self, name: str) -> NDArray[Any]:
        return self._store.read_cached(name, self._rows)

    def _refuse_blank(self, name: str, shown: NDArray[np.bool_]) -> None:
        """Tell a chunk that is gone, which reads as nothing, from frames without a face."""
        if len(self) and not abs(float(shown.mean()) - self.faces) <= _ROUNDING:
            raise StoreError(
                f"{self._store.path} is damaged: {name} of {self.id!r} shows a face in "
                f"{shown.mean():.1%} of the frames, the index says {self.faces:.1%}; "
                f"run `feie verify {self._store.path}`"
            )
