"""A short form of pictures.py."""

from __future__ import annotations

from .pictures import attack


def test_no_mutated_picture_raises_hangs_or_fills_memory() -> None:
    found = attack(200, 7, with_bombs=False)
    assert found["wrong"] == []
    assert sum(found["counts"].values()) == 200
    assert found["counts"]["refused"] > 50
