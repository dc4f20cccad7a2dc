from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from motorvae.export.importing.cli import import_main
from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture

from ..onnx_import.torch_graphs import exported
from .networks import pool

Says = Callable[..., str]
COUNT = 100


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a hundred vehicles in colour, wider than high."""
    folder = tmp_path_factory.mktemp("images")
    for row in range(COUNT):
        picture = vehicle_picture(4, row, 96, "rgb")[16:80]
        cv2.imwrite(str(folder / f"{row:03d}.png"), picture)
    return folder


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """encoder.onnx and decoder.onnx of another architecture, with maps for latents."""
    folder = tmp_path_factory.mktemp("pair")
    module = pool()
    halves = {
        "encoder": (module.down, (3, 32, 32), ("mean", "log_var")),
        "decoder": (module.up, (3, 8, 8), ("image",)),
    }
    paths = [
        exported(half, folder / f"{name}.onnx", shape, outputs, dynamo=True, opset=18)
        for name, (half, shape, outputs) in halves.items()
    ]
    return paths[0], paths[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def says(capfd: pytest.CaptureFixture[str]) -> Says:
    """Run motorvae import; return what it said, after the check of its exit code."""

    def run(*args: object, code: int = 0) -> str:
        capfd.readouterr()
        assert import_main([str(word) for word in args]) == code
        captured = capfd.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        if code:
            assert sum(line.startswith("motorvae import: ") for line in lines) == 1
            return lines[-1]
        return captured.err

    return run
