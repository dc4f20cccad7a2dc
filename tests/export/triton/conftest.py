"""Bundles and repositories for these tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from motorvae.export.cli import main


@pytest.fixture(scope="session")
def framed_bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that has encoders of whole frames as well. Corrupt a copy, never this one."""
    folder = tmp_path_factory.mktemp("framed") / "bundle"
    shutil.copytree(small_bundle, folder)
    for frame in ("bgr:64x48", "nv12:64x48:bt709"):
        assert main(["--model", str(folder), "--whole-frame", frame]) == 0
    return folder


@pytest.fixture(scope="session")
def repository(framed_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes of it, with no other option. Corrupt a copy, never this one."""
    folder = tmp_path_factory.mktemp("served") / "models"
    assert main(["--model", str(framed_bundle), "--triton", str(folder)]) == 0
    return folder
