"""Words that the picture of a video and the page about a store share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def made_by(weights: Mapping[str, Any]) -> str:
    """Name an extractor or a detector of a store's provenance, with the start of its hash."""
    name, digest = weights.get("name", "?"), weights.get("sha256")
    return f"{name} {digest[:12]}" if digest else f"imported {name} files"
