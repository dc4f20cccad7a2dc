"""A short form of bundles.py, in a process of its own, as it makes others."""

from __future__ import annotations

import json
from pathlib import Path

from .processes import short_form


def test_no_bundle_does_harm(small_bundle: Path) -> None:
    options = ["--count", "15", "--seed", "11"]
    result = json.loads(short_form("bundles", str(small_bundle), *options, limit_s=250))
    assert result["damaged"] + result["malicious"] == 15
    assert result["refused"] > 5
