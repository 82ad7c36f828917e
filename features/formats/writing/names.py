"""Names of files and groups for video ids: nobody's id leads out of the folder or meets another."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence

_UNSAFE = re.compile(r'[%<>:"|?*\\\x00-\x1f\x7f-\x9f]')
_DEVICES = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?:\..*)?")
_LONGEST_PART = 160  # bytes; 255 is what file systems take, with suffix and temporary names


def safe_names(ids: Sequence[str], suffix: str, taken: Collection[str] = ()) -> list[str]:
    """Give each video id a relative path, ``/``-separated, below any folder.

    An id that is a plain relative path keeps its shape, as most do: ``a/b`` with suffix ``.csv``
    is ``a/b.csv``. Characters that some file system refuses, parts such as ``..`` and names of
    Windows devices are percent-encoded; what would still meet another name where case or Unicode
    form do not count, or be too long, gets a hash of the id.

    Parameters
    ----------
    ids : sequence of str
        Distinct ids.
    suffix : str
        With its dot; may be empty.
    taken : collection of str
        First parts that are not free.
    """
    files = {_folded(name) for name in taken}
    folders: set[str] = set()
    names = []
    for video_id in ids:
        name = "/".join(_safe_part(part) for part in video_id.split("/")) + suffix
        if len(name.encode()) > 1_000 or _clashes(name, files, folders):
            digest = hashlib.sha256(video_id.encode(errors="surrogatepass")).hexdigest()[:32]
            name = f"%id/{digest}{suffix}"
        folded = _folded(name)
        files.add(folded)
        folders.update(_parents(folded))
        names.append(name)
    return names


def is_below(name: str) -> bool:
    """Tell whether a name from an index, which may be anybody's work, stays in its folder."""
    return not {"", ".", ".."} & set(name.split("/")) and "\\" not in name


def _safe_part(part: str) -> str:
    """Encode one part of an id; distinct parts stay distinct."""
    text = _UNSAFE.sub(lambda found: _percent(found[0]), part)
    if not text:
        return "%"
    if _DEVICES.fullmatch(text.casefold()) or text[0] in ". ":
        text = _percent(text[0]) + text[1:]
    if text[-1] in ". ":
        text = text[:-1] + _percent(text[-1])
    if len(text.encode(errors="surrogatepass")) > _LONGEST_PART:
        digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:16]
        return f"%{digest}"
    return text


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def _folded(name: str) -> str:
    """Give what a file system that is blind to case and Unicode form compares."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _clashes(name: str, files: set[str], folders: set[str]) -> bool:
    folded = _folded(name)
    return folded in files or folded in folders or any(p in files for p in _parents(folded))
