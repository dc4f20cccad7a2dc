from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motorvae.runtime.core.errors import SourceError
from motorvae.runtime.sources.image_list import images_in, images_matching
from motorvae.runtime.sources.open import open_source


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in images_in(folder).paths]


def test_a_folder_is_listed_in_natural_order_and_depth(tmp_path: Path) -> None:
    names = ["a10.png", "a2.PNG", "A1.jpeg", "sub/x.webp", "sub/y3.tif", "²5.bmp"]
    touched(tmp_path, *names, "notes.txt")
    (tmp_path / "folder.png").mkdir()
    assert names_in(tmp_path) == [
        "A1.jpeg",
        "a2.PNG",
        "a10.png",
        "sub/x.webp",
        "sub/y3.tif",
        "²5.bmp",
    ]


def test_a_folder_without_images_says_what_it_takes_and_what_it_holds(tmp_path: Path) -> None:
    touched(tmp_path, "notes.txt", ".hidden.png")
    with pytest.raises(SourceError, match=r"no image in .*2 not taken: 1 hidden.*\.png, \.jpg"):
        images_in(tmp_path)
    with pytest.raises(SourceError, match=r"notes\.txt is not a folder"):
        images_in(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "suffix",
    [
        ".heic",
        ".HIF",
        ".avif",
        ".gif",
        ".jfif",
        ".jpe",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".tif",
        ".webp",
        ".bmp",
    ],
)
def test_every_suffix_that_decodes_alone_counts(tmp_path: Path, suffix: str) -> None:
    touched(tmp_path, f"a{suffix}")
    assert names_in(tmp_path) == [f"a{suffix}"]


def test_what_looks_like_a_picture_is_one_whatever_its_name(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8))
    image.save(tmp_path / "no suffix", "JPEG")
    image.save(tmp_path / "camera.dat", "PNG")
    touched(tmp_path, "film.mp4")
    found = images_in(tmp_path)
    assert [path.name for path in found.paths] == ["camera.dat", "no suffix"]
    assert found.remark == "1 not taken: 1 no picture (.mp4)"


def test_what_is_not_taken_is_counted_with_its_reason(tmp_path: Path) -> None:
    touched(
        tmp_path, "a.png", "._a.png", ".DS_Store", "Thumbs.db", "@eaDir/a.png", "__MACOSX/b.png"
    )
    touched(tmp_path, ".hidden.png", ".cache/c.png", "notes.txt", "b.csv", "c.csv")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.png")
    found = images_in(tmp_path)
    assert [path.name for path in found.paths] == ["a.png"]
    count, _, reasons = found.remark.partition(" not taken: ")
    assert int(count) == 12
    assert {*reasons.split(", ")} == {
        "5 known litter (._*",
        "Thumbs.db and the like)",
        "2 hidden",
        "1 link to nothing",
        "1 neither file nor folder",
        "3 no picture (.csv",
        ".txt)",
    }


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    touched(photos, "a.png", "z/b.png")
    touched(elsewhere, "c.png")
    touched(tmp_path, "above.png")
    (photos / "a-link-to-z").symlink_to(photos / "z")
    (photos / "loop").symlink_to(photos)
    (photos / "up").symlink_to(tmp_path)
    (elsewhere / "back").symlink_to(photos)
    (photos / "more").symlink_to(elsewhere)
    (photos / "again").symlink_to(elsewhere)
    assert names_in(photos) == ["a.png", "again/c.png", "z/b.png"]
    assert images_in(photos).remark == (
        "5 not taken: 5 link to a folder that is taken anyway or lies above"
    )


def test_links_that_a_pattern_names_go_by_the_same_rule(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    touched(photos, "a.png", "z/b.png")
    touched(tmp_path, "above.png", "elsewhere/c.png")
    for name, target in (("up", tmp_path), ("loop", photos), ("a-z", photos / "z")):
        (photos / name).symlink_to(target)
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    found = images_matching(photos / "*", "*")
    assert not isinstance(found, Path)
    assert [path.relative_to(photos).as_posix() for path in found.paths] == [
        "a.png",
        "more/c.png",
        "z/b.png",
    ]
    assert found == images_in(photos)


def test_links_below_a_pattern_of_any_depth_go_by_the_same_rule(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    touched(photos, "a.png", "z/b.png", "z/y/c.png", "[z]/**/d.png", ".hidden/e.png")
    touched(tmp_path, "above.png", "elsewhere/f.png")
    for name, target in (("up", tmp_path), ("loop", photos), ("z/back", photos), ("a-z", "z")):
        (photos / name).symlink_to(target)
    (photos / "more").symlink_to(tmp_path / "elsewhere")
    expected = ["[z]/**/d.png", "a.png", "more/f.png", "z/b.png", "z/y/c.png"]
    for pattern in ("**/*.png", "**/**/*.png"):
        found = images_matching(photos / pattern, pattern)
        assert not isinstance(found, Path)
        assert [path.relative_to(photos).as_posix() for path in found.paths] == expected
        assert found.remark == (
            "4 not taken: 4 link to a folder that is taken anyway or lies above"
        )
    found = images_matching(photos / "**", "**")
    assert not isinstance(found, Path)
    assert [path.relative_to(photos).as_posix() for path in found.paths] == expected
    found = images_matching(photos / "**/y/../*.png", "**/y/../*.png")
    assert found == photos / "z/y/../b.png"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_an_unreadable_folder_is_counted_by_name(tmp_path: Path) -> None:
    touched(tmp_path, "a.png", "private/b.png")
    (tmp_path / "private").chmod(0)
    try:
        found = images_in(tmp_path)
    finally:
        (tmp_path / "private").chmod(0o755)
    assert found.remark == "1 not taken: 1 unreadable (private)"


def test_a_folder_that_cannot_be_listed_is_counted_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, also where tests run as root: the system's refusal is injected."""
    touched(tmp_path, "a.png", "private/b.png")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "private":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert images_in(tmp_path).remark == "1 not taken: 1 unreadable (private)"


def test_a_pattern_goes_by_the_same_rule(tmp_path: Path) -> None:
    touched(
        tmp_path, "a2.heic", "a10.png", "a.txt", "sub/b.jpe", "sub/.b.png", ".h/c.png", "._d.png"
    )
    found = images_matching(tmp_path / "*", "*")
    assert not isinstance(found, Path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == [
        "a2.heic",
        "a10.png",
        "sub/b.jpe",
    ]
    assert found.remark == "2 not taken: 1 hidden, 1 no picture (.txt)"
    touched(tmp_path, "@eaDir/x.png")
    again = images_matching(tmp_path / "*", "*")
    assert not isinstance(again, Path)
    assert again.paths == found.paths
    assert "1 known litter" in again.remark
    deep = images_matching(tmp_path / "**" / "*.[jp][pn]?", "*")
    assert not isinstance(deep, Path)
    assert [path.name for path in deep.paths] == ["a10.png", "b.jpe"]
    explicit = images_matching(tmp_path / ".*" / "*", "*")
    assert explicit == tmp_path / ".h" / "c.png"
    every = images_matching(tmp_path / "**", "**")
    assert not isinstance(every, Path)
    assert every.paths == found.paths


def test_the_source_says_what_was_not_taken_and_what_to_know(
    tmp_path: Path, drain: Callable
) -> None:
    for number in range(3):
        shallow = np.full((8, 8), 4095, np.uint16)
        Image.fromarray(shallow).save(tmp_path / f"{number}.png")
    touched(tmp_path, "notes.txt")
    source = open_source(str(tmp_path))
    assert len(drain(source)) == 3
    listed, levels = source.remarks
    assert listed == f"{tmp_path}: 1 not taken: 1 no picture (.txt)"
    assert levels.startswith("0.png and 2 more: has 16-bit values that end where those of 12 bits")
