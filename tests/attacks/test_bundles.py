"""A short form of bundles.py, in a process of its own, as it makes others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("bundles.py")


def test_no_bundle_does_harm(small_bundle: Path) -> None:
    command = [sys.executable, SCRIPT, small_bundle, "--count", "15", "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["damaged"] + result["malicious"] == 15
    assert result["refused"] > 5
