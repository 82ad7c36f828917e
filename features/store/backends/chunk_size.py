"""How large a chunk may become when it is unpacked: known before anything is unpacked."""

from __future__ import annotations

import re

MOST_BYTES = 256 << 20
"""A chunk's size unpacked; feie's own stay below 32 MB."""

_CHUNK = re.compile(r"(^|/)c(/\d+)*$")
_BLOSC_HEADER = 16


def refuse_bomb(key: str, data: bytes) -> None:
    """Refuse a chunk, compressed by blosc as all of feie's, whose header announces too much.

    The others are bounded by the shape of their array's chunks, see `StoreContents.array`.

    Raises
    ------
    ValueError
    """
    if _CHUNK.search(key) is None or len(data) < _BLOSC_HEADER:
        return
    # Blosc's header: version, of its codec, flags, size of an element; then sizes of four bytes.
    announced = int.from_bytes(data[4:8], "little")
    if data[0] in (1, 2) and announced > MOST_BYTES:
        raise ValueError(
            f"a chunk of {len(data)} bytes says that it unpacks to {announced >> 20} MB, more than "
            f"the {MOST_BYTES >> 20} MB that a chunk may have"
        )
