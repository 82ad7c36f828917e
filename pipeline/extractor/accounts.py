"""What the commands of the MMA tell of their data: counts, remarks, and images that are broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from feie.features.mma.data.labelled import Labelled
from feie.features.mma.data.readers.listing import Listing
from feie.features.mma.training.sampling import Source
from feie.features.mma.vocabulary import ASSUMED_CODES

_NAMED = 10


def summary(source: Source) -> dict[str, int]:
    """Count how faces were aligned, which labels there are, and what was left out."""
    data = source.data
    counts = {
        "images": len(data),
        "expression": int((data.expression >= 0).sum()),
        "outside": sum(data.outside.values()),
        "valence_arousal": int((~np.isnan(data.valence_arousal).any(axis=1)).sum()),
        "units": int((~np.isnan(data.units).all(axis=1)).sum()),
    }
    left_out = {f"left out: {reason}": count for reason, count in dropped(data).items()}
    return vars(source.faces.alignment) | counts | left_out


def dropped(data: Labelled) -> dict[str, int]:
    """Give how many images a data set names that are left out, by reason."""
    return dict(data.dropped) if isinstance(data, Listing) else {}


def remarks(data: Labelled) -> list[str]:
    """Say what a user should know of some data before they are used."""
    said = [ASSUMED_CODES] if data.codes == "aff-wild2" else []
    if isinstance(data, Listing):
        said += data.remarks
        said += [f"{count} left out: {reason}" for reason, count in data.dropped.items()]
    return said


def unreadable(source: Source) -> list[str]:
    """Name the images that could not be read so far."""
    return [str(source.data.names[row]) for row in source.faces.unreadable]


def newly_unreadable(sources: Mapping[str, Source], named: dict[str, int]) -> Iterator[str]:
    """Name the unreadable images of each source where there are more than the last time.

    Parameters
    ----------
    sources : dict of str to Source
        The sources.
    named : dict of str to int
        How many of each were named before; brought up to date.
    """
    for name, source in sources.items():
        broken = unreadable(source)
        if len(broken) > named.get(name, 0):
            some = ", ".join(broken[:_NAMED]) + (", …" if len(broken) > _NAMED else "")
            yield f"{name}: {len(broken)} unreadable images, replaced by others: {some}"
        named[name] = len(broken)
