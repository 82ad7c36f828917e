"""What is refused of a file of a store before it is unpacked or believed."""

from __future__ import annotations

import re

from feie.features.files import json_object

MOST_BYTES = 256 << 20
"""A chunk's size unpacked; feie's own stay below 32 MB."""

_CHUNK = re.compile(r"(^|/)c(/\d+)*$")
_BLOSC_HEADER = 16


def refuse_file(key: str, data: bytes) -> None:
    """Refuse metadata that are no JSON object, and a chunk whose header announces too much.

    The header is blosc's, which compresses all of feie's chunks; the others are bounded by the
    shape of their array's chunks, see `StoreContents.array`.

    Raises
    ------
    ValueError
    """
    if key.endswith("zarr.json"):
        json_object(data)
    if _CHUNK.search(key) is None or len(data) < _BLOSC_HEADER:
        return
    # Blosc's header: version, of its codec, flags, size of an element; then sizes of four bytes.
    announced = int.from_bytes(data[4:8], "little")
    if data[0] in (1, 2) and announced > MOST_BYTES:
        raise ValueError(
            f"a chunk of {len(data)} bytes says that it unpacks to {announced >> 20} MB, more than "
            f"the {MOST_BYTES >> 20} MB that a chunk may have"
        )
