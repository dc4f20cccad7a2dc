from __future__ import annotations

import os
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import ConfigError, SourceError
from motorvae.training.dataset import kind_of_data
from motorvae.training.shards.listing import names_shards, shards_named

from .packing import pack, picture


def _names(text: object) -> list[str]:
    return [path.name for path in shards_named(str(text), "--data")]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    (folder / "deep").mkdir(parents=True)
    for name in ("train-2.tar", "train-10.tar", "val-1.tar", "deep/train-3.tar", ".hidden.tar"):
        pack(folder / name, {})
    (folder / "sizes.json").write_text("{}")
    return folder


def test_folders_patterns_and_numbers_in_braces_name_shards(many: Path) -> None:
    assert _names(many) == ["train-3.tar", "train-2.tar", "train-10.tar", "val-1.tar"]
    assert _names(f"{many}/train-*.tar") == ["train-2.tar", "train-10.tar"]
    # One that is not there is missed when it is read.
    assert _names(f"{many}/train-{{9..10}}.tar") == ["train-9.tar", "train-10.tar"]
    assert _names(f"{many}/val-1.tar") == ["val-1.tar"]
    for text in (many, f"{many}/train-*.tar", f"{many}/train-{{9..10}}.tar"):
        assert kind_of_data(str(text)) == "shards"


def test_a_folder_with_a_picture_is_one_of_pictures(many: Path) -> None:
    (many / "deep" / "a.png").write_bytes(picture(0))
    assert not names_shards(str(many))
    assert kind_of_data(str(many)) == "folder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{many}/no-*.tar", "does not exist: give tar shards"),
        ("{many}/no-{{1..3}}.tar", "does not exist: give tar shards"),
        ("{many}/no.tar", "does not exist: give tar shards"),
        ("{many}/pipe.tar", "is no regular file: give tar shards"),
        ("{many}/link.tar", "is a link to nothing: give tar shards"),
        ("{many}/" + "x" * 300 + ".tar", r"cannot be read \(File name too long\): give tar"),
        ("{many}/train-2.tar.gz", "is compressed, and cannot be read from the middle: unpack it"),
        ("{many}/train-2.tgz", "is compressed"),
        ("s3://u:secret@bucket/a.tar", "is an address, .*: copy or mount them"),
    ],
)
def test_what_cannot_be_read_again_is_refused(many: Path, text: str, words: str) -> None:
    os.mkfifo(many / "pipe.tar")
    (many / "link.tar").symlink_to("nothing")
    with pytest.raises(SourceError, match=words) as caught:
        kind_of_data(text.format(many=many))
    assert "secret" not in str(caught.value)


def test_numbers_that_count_down_are_refused(many: Path) -> None:
    with pytest.raises(ConfigError, match="counts from a number to a larger one"):
        kind_of_data(f"{many}/train-{{3..1}}.tar")
