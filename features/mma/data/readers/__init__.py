"""Readers of data sets: from the files that a lab holds to labels and places of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from feie.features.errors import DataError
from feie.features.mma.data.config import (
    AffectNetConfig,
    AffWild2Config,
    EmotioNetConfig,
    ListingConfig,
    TableConfig,
    find_data,
)
from feie.features.mma.data.readers.affectnet import read_affectnet
from feie.features.mma.data.readers.affwild2 import read_affwild2
from feie.features.mma.data.readers.emotionet import read_emotionet
from feie.features.mma.data.readers.listing import Listing, without_missing, without_outside
from feie.features.mma.data.readers.partition import read_partition, take_partition
from feie.features.mma.data.readers.table import read_listed


def read_listing(config: ListingConfig, roots: tuple[Path, ...]) -> Listing:
    """Read a data set, keep what the configuration asks for, and count what is left out.

    Parameters
    ----------
    config : ListingConfig
        Which data set, and what of it.
    roots : tuple of Path
        Data roots.

    Raises
    ------
    DataError
        The data set or a file of it is missing or cannot be right, or nothing is left.
    """
    place = find_data(config.data, roots, "data")
    folder = place if place.is_dir() else place.parent
    if not isinstance(config, TableConfig) and place != folder:
        raise DataError(f"{place} is a file: give the folder of the data set, and the file as "
                        "annotations")  # fmt: skip
    if isinstance(config, AffectNetConfig):
        listing = read_affectnet(config, place, roots)
    elif isinstance(config, AffWild2Config):
        listing = read_affwild2(config, place, roots)
    elif isinstance(config, EmotioNetConfig):
        listing = read_emotionet(config, place, roots)
    elif isinstance(config, TableConfig):
        listing = read_listed(config, place, roots)
    else:
        raise TypeError(f"no reader for {type(config).__name__}")
    if config.partition:
        found = (find_data(name, (folder, *roots), "partition") for name in config.partition)
        partitions = [read_partition(path, config.split) for path in found]
        listing = take_partition(listing, partitions, config.tolerance)
    if config.outside == "drop":
        listing = without_outside(listing)
    if not isinstance(config, AffWild2Config | EmotioNetConfig):  # these looked for themselves
        listing = without_missing(listing, config.tolerance)
    if config.every > 1:
        rows = np.arange(len(listing)) % config.every != 0
        listing = listing.drop(rows, f"not every {config.every}th")
    if not len(listing):
        reasons = ", ".join(f"{count} {reason}" for reason, count in listing.dropped.items())
        raise DataError(f"{config.title}: no image is left ({reasons or 'none is listed'})")
    return replace(listing, title=config.title)
