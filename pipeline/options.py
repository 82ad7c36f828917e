"""What an option is called and says on a command line, declared where the option is declared.

Knows no command line: `feie.cli` turns the fields of an options model into a command, and
`pipeline.jobs` into the signature of a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Flag:
    """How a field of an options model looks on a command line; its description is the help.

    Stands in the field's ``Annotated[…]``; a field without one is ``--its-name``.

    Attributes
    ----------
    names : tuple of str
        Other than ``--its-name``; later ones are older names that go on working.
    default : str, optional
        Words for a default that is no value, e.g. ``one a core``.
    panel : str, optional
        Heading under which the help lists it.
    argument : bool
        Positional.
    typed : type, optional
        What is typed, where a validator of the field reads text, e.g. ``str`` for ``0,1,2``.
    hidden : bool
        Only for Python: not on the command line.
    """

    names: tuple[str, ...] = ()
    default: str | None = None
    panel: str | None = None
    argument: bool = False
    typed: Any = None
    hidden: bool = False


def flag_of(field: FieldInfo) -> Flag:
    """Give the `Flag` of a field."""
    return next((m for m in field.metadata if isinstance(m, Flag)), Flag())


class Options(BaseModel):
    """Base of every job's options: frozen, and nothing that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
