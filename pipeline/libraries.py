"""What to do where a library of Python cannot be imported, or the system lacks what it needs."""

from __future__ import annotations

import re

_PACKAGES = {"cv2": "opencv-python", "yaml": "pyyaml", "ai_edge_litert": "ai-edge-litert"}
"""Packages whose modules bear other names."""

_DESKTOP = "libxcb1 libgl1 libglib2.0-0"  # what OpenCV's windows need, by Debian's names


def cannot_import(error: ImportError) -> str:
    """Say which library cannot be imported, and the cure.

    Parameters
    ----------
    error : ImportError
        Of an import that failed: a package that is not there, or a shared object that the
        system lacks, which is how OpenCV fails on machines without a desktop.
    """
    text = " ".join(str(error).split())
    lacking = re.search(r"(lib\S+\.so\S*): cannot open shared object file", text)
    if lacking:
        return (
            f"{lacking[1]} is not on this machine, which OpenCV for desktops needs: "
            f"apt-get install --no-install-recommends {_DESKTOP}; or, without rights: "
            "pip uninstall -y opencv-python && pip install opencv-python-headless"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        package = _PACKAGES.get(module, module)
        return f"the package {package} is not installed: pip install {package}"
    named = (error.name or "").partition(".")[0]
    package = _PACKAGES.get(named, named)
    cure = f": pip install --force-reinstall {package}" if package else ""
    return f"a library cannot be imported ({text}){cure}"
