"""The rooms of the house: each folder says what it is and hands on a few names, at no cost."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import feie

ROOT = Path(feie.__file__).parent
FOLDERS = sorted(
    path.parent
    for part in ("features", "heads", "pipeline")
    for path in (ROOT / part).rglob("__init__.py")
)
# Two hold data only; the third is a single function that picks a reader.
BARE = {"features/extractors/weights", "features/faces/weights", "features/mma/data/readers"}
NAMES = {folder.relative_to(ROOT).as_posix(): folder for folder in FOLDERS}


def package(name):
    return "feie." + name.replace("/", ".")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_says_what_it_is_and_is_no_heap(name):
    folder = NAMES[name]
    about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert about
    assert len(about.partition("\n\n")[0].splitlines()) <= 2
    assert len(list(folder.glob("*.py"))) <= 18


@pytest.mark.parametrize("name", sorted(NAMES.keys() - BARE))
def test_a_folder_hands_on_three_to_six_names_of_its_own(name):
    module = import_module(package(name))
    assert 3 <= len(module.__all__) <= 6
    for public in module.__all__:
        # A name that is also a module's would be one or the other, by what was imported before.
        assert not (NAMES[name] / f"{public}.py").exists()
        value = getattr(module, public)
        home = getattr(value, "__module__", package(name))
        assert home.startswith("feie."), f"{public} is of {home}"
    with pytest.raises(AttributeError):
        module.no_such_name  # noqa: B018


def test_the_folders_themselves_load_nothing_heavy():
    heavy = ("av", "cv2", "h5py", "matplotlib", "onnxruntime", "pandas", "pyarrow", "pydantic",
             "scipy", "torch", "typer", "zarr")  # fmt: skip
    names = [package(name) for name in NAMES if name not in BARE]
    code = f"import sys\nfor name in {names}: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(done.stdout.split())


def test_the_options_of_a_command_load_no_torch():
    from feie.pipeline.jobs import JOBS

    places = {job.options.partition(":")[0] for job in JOBS.values() if job.command}
    names = sorted(f"feie.pipeline.{place}" for place in places | {"grid.options"})
    code = f"import sys\nfor name in {names}: __import__(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "zarr", "matplotlib", "cv2"} & set(done.stdout.split())
