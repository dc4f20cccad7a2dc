"""How a script of this folder is run by tests, and by itself in further processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder in which `command_of` works."""


def command_of(name: str) -> list[str]:
    return [sys.executable, "-m", f"tests.attacks.{name}"]


def short_form(name: str, *arguments: str, limit_s: float) -> str:
    """Run a script, which must find nothing wrong; return what it prints."""
    done = subprocess.run(
        [*command_of(name), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
