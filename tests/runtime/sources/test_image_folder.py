from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from motorvae.runtime.core.frame import Frame, Gap
from motorvae.runtime.sources.image_folder import FolderSource
from motorvae.runtime.sources.open import open_source


def test_a_folder_gives_its_images_in_natural_order(
    image_folder: Path, drain: Callable, clip_tools: Any
) -> None:
    source = open_source(str(image_folder))
    assert isinstance(source, FolderSource)
    assert source.expected == 12
    assert not source.live
    items = drain(source)
    assert [item.name for item in items] == [f"frame{index}.png" for index in range(12)]
    assert [clip_tools.index(item.image) for item in items] == list(range(12))
    assert [item.index for item in items] == list(range(12))


def test_a_bad_image_is_a_gap_and_the_others_follow(
    image_folder: Path, tmp_path: Path, drain: Callable
) -> None:
    (tmp_path / "0.png").write_bytes((image_folder / "frame0.png").read_bytes())
    (tmp_path / "1.png").write_bytes(b"not a picture")
    (tmp_path / "2.png").write_bytes((image_folder / "frame2.png").read_bytes())
    first, bad, last = drain(open_source(str(tmp_path)))
    assert isinstance(first, Frame)
    assert isinstance(bad, Gap)
    assert (bad.index, bad.name) == (1, "1.png")
    assert "cannot decode" in bad.reason
    assert isinstance(last, Frame)
    assert last.index == 2


def test_one_image_is_a_source_too(image_folder: Path, drain: Callable) -> None:
    (only,) = drain(open_source(str(image_folder / "frame3.png")))
    assert only.name == "frame3.png"


def test_a_name_that_is_no_utf8_is_spelt_out(
    image_folder: Path, tmp_path: Path, drain: Callable, undecodable_name: str
) -> None:
    (tmp_path / undecodable_name).write_bytes((image_folder / "frame0.png").read_bytes())
    (item,) = drain(open_source(str(tmp_path)))
    assert item.name == r"caf\udce9.png"
