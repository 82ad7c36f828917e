"""Packages of feie: the root is the import package, each folder below it a sub-package."""

from setuptools import find_packages, setup

setup(
    packages=[
        "feie",
        *(f"feie.{name}" for name in find_packages(include=["features*", "heads*", "pipeline*"])),
    ],
    package_dir={"feie": "."},
)
