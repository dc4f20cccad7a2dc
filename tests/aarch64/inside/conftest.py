"""What the tests on arm64 share: the files from x86-64, the commands, and a place for figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Running = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if platform.machine() != "aarch64" or "MOTORVAE_EXPECTED" not in os.environ:
        reason = "for arm64, with MOTORVAE_EXPECTED: make test-aarch64"
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def expected() -> Path:
    """The folder that tests/aarch64/prepare.py wrote on x86-64."""
    return Path(os.environ["MOTORVAE_EXPECTED"])


@pytest.fixture
def note() -> Callable[..., None]:
    """Put figures into the results."""

    def note_figures(name: str, **figures: Any) -> None:
        print(name, figures)
        if path := os.environ.get("MOTORVAE_FIGURES"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"figures": name, **figures}) + "\n")

    return note_figures


@pytest.fixture
def motorvae(tmp_path: Path) -> Running:
    """Run a command as users do, in an empty folder; it must end well and name nothing twice."""

    def run(*words: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "motorvae", *map(str, words)]
        start_s = time.monotonic()
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        print(f"{time.monotonic() - start_s:.1f} s: {' '.join(command[2:])}")
        assert fails or done.returncode == 0, done.stderr
        assert "cpuinfo" not in done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run
