"""Packages of feie: the root is the import package, each folder below it a sub-package."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("features", "heads", "pipeline")


class BuildPy(build_py):
    """Leaves this file out of the package, whose folder it lies in."""

    def find_package_modules(self, package, package_dir):
        """Give (package, module, file) of each module of a package."""
        found = super().find_package_modules(package, package_dir)
        return [row for row in found if row[:2] != ("feie", "setup")]


setup(
    packages=[
        "feie",
        *(f"feie.{name}" for name in find_packages(include=[f"{name}*" for name in FOLDERS])),
    ],
    package_dir={"feie": "."},
    cmdclass={"build_py": BuildPy},
)
