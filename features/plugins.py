"""Code of others: what installed packages offer, and files that the user names."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import decode_source, module_from_spec
from os.path import expanduser
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

from feie.features.errors import FeieError, UsageError

PluginGroup = Literal["feie.extractors", "feie.heads"]
"""Entry points of installed packages that feie looks at."""


@dataclass(frozen=True)
class Plugin:
    """A class or function that makes an extractor or a head.

    Attributes
    ----------
    spec : str
        How it was called: the name of an entry point, or ``FILE.py:NAME``.
    sha256 : str
        Hex digest of the file of its module; of that one file only.
    made_by : callable
    """

    spec: str
    sha256: str
    made_by: Callable[..., Any]

    @property
    def name(self) -> str:
        """The spec without folders."""
        path, _, name = self.spec.rpartition(":")
        return f"{Path(path).name}:{name}" if path else self.spec

    def make(self, **arguments: Any) -> Any:
        """Call it.

        Raises
        ------
        UsageError
            It does not take these arguments, or raises anything but a `FeieError`.
        """
        self._check_arguments(arguments)
        try:
            return self.made_by(**arguments)
        except FeieError:
            raise
        except Exception as error:  # whatever it is, it is the plugin's
            raise UsageError(f"{self.spec} cannot be made: {_said(error)}") from error

    def _check_arguments(self, arguments: Mapping[str, Any]) -> None:
        try:
            taken = inspect.signature(self.made_by)
        except (TypeError, ValueError):  # of C, perhaps: it says so itself
            return
        try:
            taken.bind(**arguments)
        except TypeError:
            names = ", ".join(arguments)
            named = getattr(self.made_by, "__name__", "it")
            wanted = f"{named}({names})"
            if isinstance(self.made_by, type):
                wanted = f"__init__(self, {names})"
            raise UsageError(
                f"{self.spec} needs `{wanted}`; it takes {taken} (docs/extending.md shows one)"
            ) from None


def names_file(spec: str) -> bool:
    """Whether a spec is ``FILE.py:NAME``: code that runs because the user named its file."""
    path, _, name = spec.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def plugin_names(group: PluginGroup) -> list[str]:
    """Names that installed packages offer."""
    return sorted({entry.name for entry in entry_points(group=group)})


def find_plugin(spec: str, group: PluginGroup) -> Plugin | None:
    """Find the plugin of that name among the installed packages, or in the file that is named.

    Nothing is run but the one module.

    Parameters
    ----------
    spec : str
        The name of an entry point, or ``FILE.py:NAME``.
    group : str

    Returns
    -------
    Plugin or None
        None where no installed package offers the name.

    Raises
    ------
    UsageError
        There is no such file, it has no such name, it does not run, or two packages offer the
        name.
    """
    if names_file(spec):
        path, _, name = spec.rpartition(":")
        module, sha256 = _module_of(Path(expanduser(path)))
        if not callable(found := getattr(module, name, None)):
            raise UsageError(f"{path} defines no {name}; give FILE.py:NAME of a class in it")
        return Plugin(spec, sha256, found)
    entries: set[EntryPoint] = {e for e in entry_points(group=group) if e.name == spec}
    if not entries:
        return None
    if len({entry.value for entry in entries}) > 1:
        offers = ", ".join(sorted(entry.value for entry in entries))
        raise UsageError(f"two packages offer {spec!r} as {group} ({offers}): uninstall one")
    return _offered(spec, entries.pop())


def _offered(spec: str, entry: EntryPoint) -> Plugin:
    try:
        found = entry.load()
        content = Path(sys.modules[entry.module].__file__ or "").read_bytes()
    except Exception as error:  # an installed package may be broken in any way
        raise UsageError(f"{spec!r} ({entry.value}) does not load: {_said(error)}") from error
    return Plugin(spec, hashlib.sha256(content).hexdigest(), found)


class _Content(InspectLoader):
    """Runs the very bytes that the digest is of: neither a newer file nor an older cache."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content

    def get_source(self, fullname: str) -> str:
        return decode_source(self._content)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._content, str(self._path))


def _module_of(path: Path) -> tuple[ModuleType, str]:
    """Run a file as a module, once, and give its digest."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    name = f"feie_plugin_{sha256}"
    if name in sys.modules:
        return sys.modules[name], sha256
    loader = _Content(path, content)
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    # Dataclasses and pydantic look their module up while it runs.
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path} does not run: {_said(error)}") from error
    return module, sha256


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
