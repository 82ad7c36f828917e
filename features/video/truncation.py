"""How long a video file claims to be, in bytes: the surest sign that one was cut short."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

# Boxes that stand at the top of mp4 and mov files; anything else there may be stray bytes,
# whose "size" means nothing.
_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"mfra", b"sidx", b"styp"}
    | {b"uuid", b"meta", b"udta", b"pnot", b"emsg", b"prft", b"ssix"}
)
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Some writers count a header twice or leave out a padding byte.
_SLACK = 16


def is_cut(path: Path) -> bool:
    """Tell whether a file is shorter than its own structure says.

    Known are mp4 and mov (boxes), mkv and webm (the segment), avi (the RIFF chunk), wmv (the
    file properties) and gif (its blocks: one that breaks off; a missing trailer, and bytes behind
    it, are no sign). Other formats, and files written to a
    stream without sizes, claim nothing and are never cut.

    Parameters
    ----------
    path : Path
        An existing file.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        head = file.read(65536)
        if head.startswith(b"GIF8"):
            file.seek(0)
            return _gif_breaks_off(file)
        return size + _SLACK < _promised(file, head, size)


def _gif_breaks_off(file: BinaryIO) -> bool:
    """Whether a gif ends within a block, or after a block that announces a picture."""

    def palette(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    screen = file.read(13)
    if len(screen) < 13 or len(file.read(palette(screen[10]))) < palette(screen[10]):
        return True
    announced = False
    while kind := file.read(1):
        if kind == b"!":
            label = file.read(1)
            announced = label == b"\xf9" or (announced and bool(label))
        elif kind == b",":
            place = file.read(9)
            if len(place) < 9 or len(file.read(palette(place[8]) + 1)) <= palette(place[8]):
                return True
            announced = False
        else:  # the trailer, or stray bytes
            return False
        while count := file.read(1):
            if not count[0]:
                break
            if len(file.read(count[0])) < count[0]:
                return True
        else:
            return True
    return announced


def _promised(file: BinaryIO, head: bytes, size: int) -> int:
    """Give the number of bytes that the file claims to have; 0 for no claim."""
    if head.startswith(b"RIFF"):
        claim = int.from_bytes(head[4:8], "little")
        return 0 if claim in (0, 0xFFFFFFFF) else claim + 8
    if head.startswith(_EBML):
        return _segment_end(head)
    if head.startswith(_ASF):
        at = head.find(_ASF_FILE)
        return int.from_bytes(head[at + 40 : at + 48], "little") if at > 0 else 0
    if head[4:8] in _BOXES:
        return _last_box_end(file, size)
    return 0


def _segment_end(head: bytes) -> int:
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return 0
    # A number of n bytes starts with n - 1 zero bits and a one; all ones behind it: unknown.
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return 0 if value == (1 << 7 * length) - 1 else at + length + value


def _last_box_end(file: BinaryIO, size: int) -> int:
    end = 0
    while end + 8 <= size:
        file.seek(end)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if header[4:8] not in _BOXES or length == 0:  # 0: up to the end of the file
            return 0
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            return 0
        end += length
    return end
