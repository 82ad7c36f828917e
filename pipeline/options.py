"""What an option is called and says on a command line, declared where the option is declared.

Knows no command line: `feie.cli` turns the fields of an options model into a command, and
`pipeline.jobs` into the signature of a function. Both see a model as `options_of` shows it: flat.
A model with a choice of parts, such as heads, takes the options of the part beside its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from feie.features.errors import UsageError


@dataclass(frozen=True)
class Flag:
    """How a field of an options model looks on a command line; its description is the help.

    Stands in the field's ``Annotated[…]``; a field without one is ``--its-name``.

    Attributes
    ----------
    names : tuple of str
        Other than ``--its-name``; later ones are older names that go on working.
    also : tuple of str
        Further names, as good as the first and shown beside it.
    default : str, optional
        Words for a default that is no value, e.g. ``one a core``.
    panel : str, optional
        Heading under which the help lists it.
    argument : bool
        Positional; where `names` are given, by name too.
    typed : type, optional
        What is typed, where a validator of the field reads text, e.g. ``str`` for ``0,1,2``.
    hidden : bool
        Only for Python: not on the command line.
    """

    names: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    default: str | None = None
    panel: str | None = None
    argument: bool = False
    typed: Any = None
    hidden: bool = False


def flag_of(field: FieldInfo) -> Flag:
    """Give the `Flag` of a field; of several, as of an alias of a type, each adds to the others."""
    flag, plain = Flag(), Flag()
    for found in (m for m in field.metadata if isinstance(m, Flag)):
        said = {f.name: getattr(found, f.name) for f in fields(Flag)}
        flag = replace(flag, **{k: v for k, v in said.items() if v != getattr(plain, k)})
    return flag


class Options(BaseModel):
    """Base of every job's options: frozen, and nothing that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _one_of_several(cls, given: Any) -> Any:
        """Take one where an option has several, as in ``inspect(videos="one/id")``."""
        if not isinstance(given, dict):
            return given
        alone = {k for k, v in given.items() if isinstance(v, str | Path) and _several(cls, k)}
        return {name: (value,) if name in alone else value for name, value in given.items()}


def _several(model: type[BaseModel], name: str) -> bool:
    """Tell an option that is a sequence of texts or paths and reads no text by itself."""
    field = model.model_fields.get(name)
    if field is None or any(isinstance(m, BeforeValidator) for m in field.metadata):
        return False
    kinds = get_args(field.annotation) if get_args(field.annotation)[-1:] == (NoneType,) else ()
    return any(
        get_origin(kind) is tuple and get_args(kind)[0] in (str, Path)
        for kind in (*kinds, field.annotation)
    )


def split_commas(value: object) -> object:
    """Read ``va,au`` as ("va", "au"); what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    parts = tuple(part.strip() for part in value.split(","))
    if not all(parts):
        raise ValueError("give one or several with commas between them, such as va,au")
    return parts


Names = Annotated[tuple[str, ...], BeforeValidator(split_commas), Flag(typed=str)]
"""Names, written with commas between them where they are typed."""

StoreArgument = Annotated[
    str,
    Field(description="The Zarr store of affect vectors, a path or fsspec URL."),
    Flag(names=("--store",), argument=True),
]
"""The store that a job reads, named by its place or as ``--store``."""


@dataclass(frozen=True)
class Option:
    """One option of a job, as a command line or a caller in Python sees it.

    Attributes
    ----------
    name : str
        Of the field.
    field : FieldInfo
    flag : Flag
    choice : str
        Of an option that belongs to some choices of another one: the name of that other one,
        e.g. ``head``; empty for most.
    kinds : tuple of str
        Those choices, e.g. ``("mrnn",)``.
    annotation : type
        What may be given.
    default : object
        Its value; `PydanticUndefined` where there is none.
    """

    name: str
    field: FieldInfo
    flag: Flag
    annotation: Any
    default: Any
    choice: str = ""
    kinds: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called on a command line: the first name, and those as good."""
        first = self.flag.names[0] if self.flag.names else "--" + self.name.replace("_", "-")
        return first, *self.flag.also

    @property
    def typed_as(self) -> str:
        """What messages call it: its name, or its place where it has no other."""
        by_place = self.flag.argument and not self.flag.names
        return self.name.upper() if by_place else self.names[0]

    @property
    def old_names(self) -> tuple[str, ...]:
        """What it was called before."""
        return self.flag.names[1:]

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.is_required()

    @property
    def typed(self) -> Any:
        """Type of what is typed: any sequence is a list, and None is never typed."""
        kind = self.flag.typed or self.annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        return list[get_args(kind)[0]] if get_origin(kind) in (tuple, list) else kind  # type: ignore[misc]

    @property
    def several(self) -> bool:
        """Whether it can be repeated."""
        return get_origin(self.typed) is list

    @property
    def bounds(self) -> str:
        """Least and largest value, in words; empty where there are none."""
        found = {
            name: getattr(limit, name)
            for limit in self.field.metadata
            for name in ("ge", "gt", "le", "lt")
            if getattr(limit, name, None) is not None
        }
        if self.typed is int and "gt" in found:
            found["ge"] = found.pop("gt") + 1
        if {"ge", "le"} <= found.keys():
            return f"{found['ge']:g} to {found['le']:g}"
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        return " and ".join(f"{words[name]} {value:g}" for name, value in found.items())

    @property
    def help(self) -> str:
        """What it does, and its bounds."""
        text = self.field.description or ""
        return f"{text} [{self.bounds}]" if self.bounds else text


def options_of(model: type[BaseModel]) -> dict[str, Option]:
    """Give the options of a model by their names, those of a discriminated union beside it."""
    found: dict[str, Option] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        members = _members(field)
        if not members:
            found[name] = Option(name, field, flag_of(field), field.annotation, default)
            continue
        kinds = tuple(members)
        first = getattr(default, str(field.discriminator))
        found[name] = Option(name, field, flag_of(field), Literal[kinds], first)
        for kind, member in members.items():
            for option in options_of(member).values():
                if option.name == field.discriminator or option.flag.hidden:
                    continue
                before = found.get(option.name, option)
                if before is not option and before.choice != name:
                    raise TypeError(f"{member.__name__}.{option.name} has a namesake in the model")
                found[option.name] = replace(before, choice=name, kinds=(*before.kinds, kind))
    return found


def _members(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Give the models of a discriminated union by what tells them apart."""
    if not isinstance(field.discriminator, str):
        return {}
    members: dict[str, type[BaseModel]] = {}
    for model in get_args(field.annotation):
        told = model.model_fields[field.discriminator].annotation
        if get_origin(told) is Literal:
            members |= dict.fromkeys(get_args(told), model)
    return members


def gathered(
    options: Mapping[str, Option],
    named: Mapping[str, Any],
    older: Mapping[str, Any],
    words: Sequence[str],
) -> dict[str, Any]:
    """Put together what was typed by name, by an older name and by place.

    Parameters
    ----------
    options : dict of str to Option
    named, older : dict of str
        Values by the names of fields.
    words : sequence of str
        What was typed by place. An option that was named leaves its place to the next.

    Raises
    ------
    UsageError
        More words than places.
    """
    found, rest = {**older, **named}, tuple(words)
    for option in (o for o in options.values() if o.flag.argument):
        if option.name not in found and rest:
            found[option.name] = rest if option.several else rest[0]
            rest = () if option.several else rest[1:]
    if rest:
        raise UsageError(f"{rest[0]!r} is one word too many; see --help")
    return found
