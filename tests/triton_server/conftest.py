"""Bundles, and what a server is asked; not collected by plain pytest: make test-triton."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from motorvae.export.cli import main
from motorvae.runtime.sources.synthetic.vehicles import vehicle

from .server import reason_against


@pytest.fixture(scope="session", autouse=True)
def _server() -> None:
    if reason := reason_against():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("framed") / "bundle"
    shutil.copytree(small_bundle, folder)
    assert main(["--model", str(folder), "--whole-frame", "bgr:64x48"]) == 0
    return folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame in colours, of another shape than the model's input."""
    path = tmp_path_factory.mktemp("picture") / "car.png"
    grey = vehicle(9, 1, 64)[0][:48]
    cv2.imwrite(str(path), cv2.merge([grey, 255 - grey, grey // 2]))
    return path
