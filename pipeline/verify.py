"""`feie verify`: whether a store keeps every MUST of the specification, to the last byte."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from feie.features.store.check import check_store
from feie.features.store.reader import refuse_absent
from feie.pipeline.progress import ProgressCallback, silent


class VerifyOptions(BaseModel):
    """Which store to check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = "features.zarr"


class VerifyResult(BaseModel):
    """What was found.

    Attributes
    ----------
    sound : bool
        No rule is broken.
    violations : list of (str, str)
        Number of the rule in ``features/SPEC.md`` and what breaks it.
    """

    store: str
    sound: bool
    violations: list[tuple[str, str]]


def run(options: VerifyOptions, progress: ProgressCallback = silent) -> VerifyResult:
    """Read every committed chunk of a store and check it against the specification.

    Raises
    ------
    StoreNotFoundError
        Nothing is there to be checked.
    """
    refuse_absent(options.store)
    found = [(v.rule, v.message) for v in check_store(options.store)]
    return VerifyResult(store=options.store, sound=not found, violations=found)
