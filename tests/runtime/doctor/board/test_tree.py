from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from motorvae.runtime.core.system.small_files import MOST_BYTES
from motorvae.runtime.doctor.board.tree import Tree, Unread, _unread


def test_a_text_comes_without_the_nul_of_the_device_tree(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson\0\n")
    assert Tree(tmp_path).read("/model") == "NVIDIA Jetson"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "no UTF-8 text"),
        (b"x" * (MOST_BYTES + 1), "larger than 64 KiB"),
        (b"x" * MOST_BYTES, None),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    found = Tree(tmp_path).read("/file")
    assert (found.reason if isinstance(found, Unread) else None) == reason


def test_a_pipe_is_not_waited_for_and_a_device_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("zero")
    tree = Tree(tmp_path)
    assert tree.read("/pipe") == Unread("no regular file")
    assert tree.read("/zero") == Unread("a link to itself")
    assert Tree().read("/dev/zero") == Unread("no regular file")
    assert tree.read("/nowhere") == Unread("absent")
    assert tree.read("/pipe/below") == Unread("absent")
    assert tree.read("/a\0b") == Unread("no valid name")
    assert tree.names("/pipe", ".*") == tree.names("/nowhere", ".*") == ()
    assert not tree.has("/nowhere")
    assert not tree.is_socket("/pipe")


def test_errors_of_drivers_have_reasons() -> None:
    """Sensors without power answer EAGAIN; a board's file may answer EIO."""
    assert _unread(BlockingIOError(errno.EAGAIN, "")) == Unread("it does not answer")
    assert _unread(OSError(errno.EIO, "")) == Unread("Input/output error")
    assert _unread(PermissionError(errno.EACCES, "")).forbidden


@pytest.mark.parametrize(
    ("content", "number"),
    [("47000\n", 47000), ("-256000", -256000), ("1" * 21, None), ("0x1F", None), ("\u0663", None)],
)
def test_numbers_are_whole_and_ascii(content: str, number: int | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content, encoding="utf-8")
    found = Tree(tmp_path).number("/file")
    assert found == (Unread("no number") if number is None else number)


def test_names_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("cpu10", "cpu2", "cpu0", "cpufreq"):
        (tmp_path / name).touch()
    assert Tree(tmp_path).names("/", r"cpu[0-9]+") == ("cpu0", "cpu2", "cpu10")


def test_links_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("inside", encoding="utf-8")
    (tmp_path / "conf").symlink_to("/etc/passwd")
    (tmp_path / "near").symlink_to("etc/passwd")
    tree = Tree(tmp_path)
    assert tree.read("/conf") == tree.read("/near") == "inside"
    assert tree.target("/conf") == tree.target("/near") == "/etc/passwd"
