"""Scripts that start workers: each worker runs the script again, up to its main guard."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType

from feie.features.errors import UsageError


def refuse_unguarded(what: str) -> None:
    """Refuse to start processes from a script's own level, without a main guard.

    Python's `multiprocessing` runs the caller's script again in each process that it spawns:
    without a guard, each would start processes in turn.

    Parameters
    ----------
    what : str
        What starts processes, for the message.

    Raises
    ------
    UsageError
        The call comes from the level of ``__main__``'s file and not from below its
        ``if __name__ == "__main__":``.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") in (
            "__main__",
            "__mp_main__",
        ):
            file, line = frame.f_code.co_filename, frame.f_lineno
            if not _guarded(file, line):
                raise UsageError(
                    f"{what} runs {Path(file).name} again in each worker: put line {line} under "
                    '`if __name__ == "__main__":`'
                )
        frame = frame.f_back


def _guarded(file: str, line: int) -> bool:
    """Whether a line of a file is below a condition on ``__name__``; true if nothing is known."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, ValueError, SyntaxError):  # no file, and then nobody runs it again
        return True
    return any(
        isinstance(node, ast.If)
        and node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0)
        and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
        for node in ast.walk(tree)
    )
