"""A short form of bundles.py, in a process of its own, as it makes others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_bundle_does_harm(small_bundle: Path) -> None:
    command = [sys.executable, "-m", "tests.attacks.bundles", small_bundle, "--count", "15"]
    command += ["--seed", "11"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["damaged"] + result["malicious"] == 15
    assert result["refused"] > 5
