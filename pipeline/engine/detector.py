"""Which detector a run uses: the one that is named, the store's own, or the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from feie.features.errors import FeieError, MissingWeightsError
from feie.features.faces.detectors import DetectOptions, describe_detector, find_detector
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
        What `--detector` would have to say; None where the store needed none so far, and where
        its weights are not found.
    """
    made = provenance.get("detector")
    if not made:
        return None
    try:
        return find_detector(made, _named(provenance))
    except MissingWeightsError:
        return None


def _named(provenance: Mapping[str, Any]) -> Iterator[str]:
    sessions = list(provenance.get("sessions", ()))
    while sessions:
        session = sessions.pop()
        if spec := session.get("arguments", {}).get("detector"):
            yield str(spec)
        for part in session.get("merged", ()):
            sessions += part["sessions"]
