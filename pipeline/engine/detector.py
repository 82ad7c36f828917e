"""Which detector a run uses: the one that is named, the store's own, or the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from feie.features.errors import FeieError
from feie.features.faces.detectors import DetectOptions, describe_detector
from feie.features.faces.scrfd import MODEL_PACKS
from feie.pipeline.engine.options import ExtractOptions


def search_of(options: ExtractOptions) -> DetectOptions:
    """Give how frames are searched."""
    # Tracks of all faces need the whole of every frame.
    return DetectOptions() if options.follow and not options.all_faces else DetectOptions(follow=0)


def likely_detector(options: ExtractOptions) -> dict[str, Any] | None:
    """Describe the detector that frames would be searched with; None where there is none."""
    if options.faces == "aligned":
        return None
    try:
        return describe_detector(options.detector, search_of(options))
    except FeieError:  # whether it is needed is for the videos to say
        return None


def own_detector(provenance: Mapping[str, Any]) -> str | None:
    """Find the detector that made a store: as its sessions named it, or where weights are kept.

    Parameters
    ----------
    provenance : dict
        Of the store.

    Returns
    -------
    str or None
        What `--detector` would have to say; None where the store needed none so far, where it is
        the default, and where its weights are not found.
    """
    wanted = (provenance.get("detector") or {}).get("sha256")
    if wanted is None:
        return None
    for spec in (None, *_named(provenance), *(f"scrfd:{pack}" for pack in MODEL_PACKS), "yunet"):
        try:
            if describe_detector(spec)["sha256"] == wanted:
                return spec
        except FeieError:
            continue
    return None


def _named(provenance: Mapping[str, Any]) -> Iterator[str]:
    sessions = list(provenance.get("sessions", ()))
    while sessions:
        session = sessions.pop()
        if spec := session.get("arguments", {}).get("detector"):
            yield str(spec)
        for part in session.get("merged", ()):
            sessions += part["sessions"]
