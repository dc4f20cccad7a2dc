from __future__ import annotations

import importlib.metadata

import pytest

from motorvae.runtime.core.packages import OPENCV_PACKAGES, version_of, versions_of


def test_what_is_installed_is_found_and_what_is_not_is_left_out() -> None:
    assert version_of("numpy") == importlib.metadata.version("numpy")
    assert version_of("no-such-package") is None
    assert versions_of(("no-such-package", "numpy")) == {"numpy": version_of("numpy")}


def test_a_run_records_whichever_opencv_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a slim image it is the headless one, and training there ended in a traceback."""
    from motorvae.training.setup.prepare import _PACKAGES

    installed = importlib.metadata.version

    def only_headless(package: str) -> str:
        if package in OPENCV_PACKAGES and package != "opencv-python-headless":
            raise importlib.metadata.PackageNotFoundError(package)
        return "5.0.0.93" if package in OPENCV_PACKAGES else installed(package)

    monkeypatch.setattr(importlib.metadata, "version", only_headless)
    recorded = versions_of(_PACKAGES)
    assert recorded["opencv-python-headless"] == "5.0.0.93"
    assert "opencv-python" not in recorded
    assert {"motorvae", "torch", "lightning", "numpy", "safetensors"} <= recorded.keys()
