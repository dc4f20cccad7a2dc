from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.runtime.core.system.small_files import (
    MOST_BYTES,
    bytes_of_small_file,
    text_of_small_file,
)


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert bytes_of_small_file(tmp_path / "file", 2) == b"ab"
    assert bytes_of_small_file(tmp_path / "file", 9) == b"abc"
    with pytest.raises(FileNotFoundError):
        bytes_of_small_file(tmp_path / "none", 9)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\tA board\0\n", "A board"),
        (b"\xff", "\ufffd"),
        (b"a" * (MOST_BYTES + 1), "a" * MOST_BYTES),  # as /proc/cpuinfo with many cores
    ],
)
def test_a_text_is_the_start_of_the_file(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert text_of_small_file(tmp_path / "file") == text


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
        lambda _path: None,
    ],
    ids=["pipe", "folder", "loop", "device", "none"],
)
def test_what_is_no_file_has_no_text_and_is_not_waited_for(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path / "file")
    code = (
        "import pathlib, sys\n"
        "from motorvae.runtime.core.system.small_files import text_of_small_file\n"
        "print(repr(text_of_small_file(pathlib.Path(sys.argv[1]))))"
    )
    # In a process of its own, which can be ended when it waits.
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "''\n"
