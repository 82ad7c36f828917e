"""Write `__init__.pyi`: what type checkers and editors see of `import feie`.

``python tests/tools/make_stub.py`` after an option of a job has changed; a test compares the two.
"""

from __future__ import annotations

import ast
import inspect
import types
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import feie
from feie.pipeline.functions import job
from feie.pipeline.jobs import JOBS, options_model
from feie.pipeline.options import options_of

HEAD = '''"""What type checkers see of feie; made by tests/tools/make_stub.py, not by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

'''


def spell(annotation: Any, imports: dict[str, str]) -> str:
    """Write a type as callers may give it: paths also as text, tuples as any sequence."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args)).replace(chr(39), chr(34))}]"
    if origin in (Union, types.UnionType):
        parts = [spell(part, imports) for part in args]
        return " | ".join(dict.fromkeys(" | ".join(parts).split(" | ")))
    if origin is Annotated:
        return spell(args[0], imports)
    if origin is tuple:
        inner = [spell(part, imports) for part in args if part is not ...]
        if len(inner) == len(args):
            return f"tuple[{', '.join(inner)}]"
        return f"Sequence[{inner[0]}]"
    if annotation is Path:
        return "str | Path"
    if annotation is type(None):
        return "None"
    if annotation.__module__ != "builtins":
        imports[annotation.__name__] = annotation.__module__
    return str(annotation.__name__)


def names_of(module: str) -> dict[str, str]:
    """Say where the classes that a module names come from, those for type checkers included."""
    tree = ast.parse(inspect.getsource(import_module(module)))
    homes = {node.name: module for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            homes.update({name.name: node.module for name in node.names})
    return homes


def function(name: str, imports: dict[str, str]) -> str:
    """Write one job's signature and what it does."""
    found = job(name)
    lines = []
    for option in options_of(options_model(name)).values():
        kind = spell(option.annotation, imports)
        if option.name in ("store", "stores") and "Path" not in kind:  # a path or an address
            kind = kind.replace("str", "str | Path")
        default = option.default
        default = str(default) if isinstance(default, Path) else default
        simple = default in (None, ()) or isinstance(default, str | int | float | bool)
        shown = repr(default).replace("'", '"') if simple else "..."
        lines.append(f"{option.name}: {kind}" + ("" if option.required else f" = {shown}"))
    imports["ProgressCallback"] = "feie.pipeline.progress"
    lines.append("progress: ProgressCallback = ...")
    result = inspect.signature(found).return_annotation
    homes = names_of(f"feie.pipeline.{JOBS[name].run}")
    imports.update({part: homes[part] for part in result.split(" | ")})
    options = "".join(f"    {line},\n" for line in lines)
    about = (inspect.getdoc(found) or "").splitlines()[0]
    return f'def {name}(\n    *,\n{options}) -> {result}:\n    """{about}"""\n'


def stub() -> str:
    """Write the whole stub."""
    imports: dict[str, str] = {}
    functions = [function(name, imports) for name in JOBS]
    again = {**feie._HOMES, **imports}
    lines = []
    for name in sorted(again, key=lambda n: (again[n], n)):
        public = f" as {name}" if name in feie._HOMES else ""
        lines.append(f"from {again[name]} import {name}{public}")
    names = "\n".join(lines)
    return f"{HEAD}{names}\n\n__version__: str\n\n" + "\n".join(functions)


if __name__ == "__main__":
    Path(__file__).resolve().parents[2].joinpath("__init__.pyi").write_text(stub())
