"""A short form of cameras.py; what each kind must end in is in the tests of sources."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .cameras import attacked

STREAM = str(Path(sys.executable).with_name("motorvae-stream"))


@pytest.mark.parametrize("name", ["part of 2 GB", "an SDP", "a segment away", "mutated 3"])
def test_a_hostile_camera_does_no_harm(name: str, small_bundle: Path) -> None:
    result = attacked([STREAM], small_bundle, name, seed=1, run_s=4)
    assert not result.faults, result
