"""A short form of signatures.py."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra sign")
pytest.importorskip("tensorrt_rtx", reason="no builder of engines here")

from .signatures import attacked, is_good


def test_nothing_forged_is_accepted(small_bundle: Path) -> None:
    result = attacked(small_bundle, count=120, seed=7, race_s=0.5)
    assert is_good(result), result
    assert result["refused"] > 100
