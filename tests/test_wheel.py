"""What a user installs: the wheel holds feie and nothing else, and nothing of it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def names(project, tmp_path_factory) -> list[str]:
    """Names in the wheel: the one that CI built, or one built here through the sdist."""
    given = os.environ.get("FEIE_WHEEL")
    if given is None:
        pytest.importorskip("build")
        target = tmp_path_factory.mktemp("dist")
        subprocess.run(
            [sys.executable, "-m", "build", "--outdir", str(target), str(project)],
            check=True,
            capture_output=True,
        )
        given = str(next(target.glob("*.whl")))
    with zipfile.ZipFile(given) as wheel:
        return wheel.namelist()


def test_only_feie_lands_in_site_packages(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"feie"}


def test_every_module_is_in_it(names, project):
    folders = ("pipeline", "features", "heads")
    sources = [project / "__init__.py", project / "cli.py"]
    sources += [p for folder in folders for p in (project / folder).rglob("*.py")]
    wanted = {"feie/" + p.relative_to(project).as_posix() for p in sources}
    assert wanted == {n for n in names if n.startswith("feie/") and n.endswith(".py")}


def test_the_data_that_runs_need_is_in_it(names, project):
    wanted = {"feie/__init__.pyi", "feie/py.typed", "feie/features/SPEC.md"}
    weights = project / "features" / "extractors" / "weights"
    kept = [p for p in weights.iterdir() if p.suffix in {".safetensors", ".md", ".yaml", ".json"}]
    wanted |= {f"feie/features/extractors/weights/{p.name}" for p in kept}
    configs = (project / "features" / "mma" / "configs").glob("*.yaml")
    wanted |= {f"feie/features/mma/configs/{p.name}" for p in configs}
    described = (project / "features" / "extractors" / "onnx" / "descriptions").glob("*.json")
    wanted |= {f"feie/features/extractors/onnx/descriptions/{p.name}" for p in described}
    wanted |= {"feie/pipeline/inspect/page.html", "feie/pipeline/inspect/page.js"}
    assert any(name.endswith(".safetensors") for name in wanted)
    data = {n for n in names if n.startswith("feie/") and not n.endswith(".py")}
    assert data == wanted
    assert not any("tests" in Path(n).parts or "data.example" in n for n in names)
