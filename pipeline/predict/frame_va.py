"""`feie predict` with a frame-level head: valence and arousal of every frame."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feie.features.errors import StoreError
from feie.features.store.reader import Store, open_store
from feie.heads.data.inputs import find_columns
from feie.heads.data.labels import normalise_id
from feie.heads.runs.frame_checkpoint import load_frame_head
from feie.pipeline.train.frame_data import read_frames


def predict_frames(folder: Path, path: str) -> tuple[bytes, Store, int]:
    """Predict every frame of a store.

    Parameters
    ----------
    folder : Path
        Of the head.
    path : str
        Of the store.

    Returns
    -------
    bytes
        CSV, see `frame_lines`.
    Store
    int
        Videos without a face.

    Raises
    ------
    FeieError
        The head cannot read the store.
    """
    head, store = load_frame_head(folder), open_store(path)
    if not store.ids:
        raise StoreError(f"{path} holds no video that was extracted without failure")
    columns = find_columns(store.schema, head.inputs, path)
    ids = store.ids
    frames = read_frames(store, columns, head.inputs, ids)
    whole = ~np.isnan(frames.values).any(axis=1)
    owner = np.repeat(np.arange(len(ids)), frames.lengths)
    faceless = int((np.bincount(owner[whole], minlength=len(ids)) == 0).sum())
    prediction = head.predict(frames)
    names = [normalise_id(video) for video in ids]
    return frame_lines(store, names, ids, frames.offsets, prediction), store, faceless


def frame_lines(
    store: Store,
    names: Sequence[str],
    videos: Sequence[str],
    offsets: NDArray[np.int64],
    prediction: NDArray[np.float64],
) -> bytes:
    """Write ``id,frame,time,valence,arousal``: frames count from 0, times are seconds."""
    text = io.StringIO()
    text.write("id,frame,time,valence,arousal\n")
    for i, (name, video) in enumerate(zip(names, videos, strict=True)):
        quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name
        rows = prediction[offsets[i] : offsets[i + 1]]
        text.writelines(
            f"{quoted},{number},{time:.6f},{valence:.6f},{arousal:.6f}\n"
            for number, (time, (valence, arousal)) in enumerate(
                zip(store[video].time, rows, strict=True)
            )
        )
    return text.getvalue().encode()
