"""A table of one's own: paths of images, and any of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feie.features.mma.data.config import TableConfig, find_data
from feie.features.mma.data.readers.listing import Listing, name_array, person_code, safe_name
from feie.features.mma.data.readers.partition import in_split
from feie.features.mma.data.readers.tables import (
    boxes_of,
    column,
    image_names,
    labels_of,
    read_table,
    texts,
)


def read_listed(config: TableConfig, path: Path, roots: tuple[Path, ...]) -> Listing:
    """Read a table (CSV, TSV, Parquet) of images and labels.

    Columns: ``path`` (or ``name``, ``image``, …); any of ``valence``, ``arousal``,
    ``expression`` (names, or codes, see `classes`), ``AU01`` …; a face box ``x0, y0, x1, y1`` or
    ``face_x, face_y, face_width, face_height``; ``identity``; ``split``. Blanks, -2 and -5
    (valence, arousal), negative expressions, -1 and 999 (action units) are unknown.

    Parameters
    ----------
    config : TableConfig
        `images` may name the folder that the paths are relative to; without it, the table's.
    path : Path
        The table.
    roots : tuple of Path
        Data roots.

    Raises
    ------
    DataError
        No table, no column of paths, or values that cannot be right.
    """
    frame = read_table(path)
    if not config.partition:
        frame = in_split(frame, path, config.split)
    labels = labels_of(frame, str(path), config.classes)
    root = path.parent
    if config.images is not None:
        root = find_data(config.images, (path.parent, *roots), "images")
    identity = None
    header = column(frame, ("identity", "person", "subject"))
    if header is not None:
        # Nobody is known to be the same person as another whose identity is blank.
        persons = [person or f"row {row}" for row, person in enumerate(texts(frame[header]))]
        identity = np.array([person_code(person) for person in persons], dtype=np.int64)
    return Listing(
        title=config.title,
        root=root,
        names=name_array(safe_name(name, str(path)) for name in image_names(frame, str(path))),
        **labels.fields(),
        identity=identity,
        boxes=boxes_of(frame, str(path)),
    )
