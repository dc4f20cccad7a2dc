"""The examples of the package's docstring and of the functions', run as they are printed."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import motorvae as mv
import motorvae.functions as functions_of_face


def example_of(documented: Any) -> str:
    """The first indented block of a docstring."""
    text = inspect.cleandoc(documented.__doc__)
    found = re.search(r"\n\n((?: {4}.*\n|\n)+)", text)
    assert found is not None
    return textwrap.dedent(found[1])


@pytest.fixture
def here(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name."""
    shutil.copytree(small_bundle, tmp_path / "bundle")
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "car.jpg"), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_package_s_example_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = example_of(mv).replace('"0", max_age_ms=50', '"synthetic", max_frames=3')
    assert here.exists()
    found: dict[str, Any] = {}
    exec(source, found)  # noqa: S102  # it is ours
    assert isinstance(found["latent"], mv.Latent)
    assert found["image"].shape == (32, 32)
    rows = capsys.readouterr().out.splitlines()
    assert len([line for line in rows if re.match(r"\d+ \d+\.\d+ \[", line)]) == 3


def test_the_example_of_stream_runs(here: Path) -> None:
    source = example_of(functions_of_face.stream).replace('"0"', '"synthetic", max_frames=4')
    assert here.exists()
    steered: list[float] = []
    names = {"mv": mv, "steer": lambda mu, age_ms: steered.append(mu[0] + age_ms)}
    exec(source.replace("max_age_ms=50", "max_age_ms=9999"), names)  # noqa: S102  # it is ours
    assert len(steered) == 4
