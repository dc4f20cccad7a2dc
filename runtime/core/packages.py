"""Packages by their distributions: which are installed, and which share one folder."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""They all unpack into the folder cv2; any of them serves."""
ONNX_RUNTIME_PACKAGES = tuple(f"onnxruntime{kind}" for kind in ("", "-gpu", "-openvino", "-qnn"))
"""They all unpack into the folder onnxruntime."""


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each of these packages that is installed."""
    found = {package: version_of(package) for package in packages}
    return {package: version for package, version in found.items() if version is not None}


def own_version() -> str:
    """Return the version of motorVAE; "0+unknown" where it runs without being installed."""
    return version_of("motorvae") or "0+unknown"
