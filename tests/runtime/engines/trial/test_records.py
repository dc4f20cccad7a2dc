"""What is believed of the cache, and what is not; nothing is opened here."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from motorvae.runtime.engines.trial import records
from motorvae.runtime.engines.trial.records import Opened, cpu_of_machine

ONE = Opened("ab" * 32, "ONNX Runtime 1.2.3", "fp32")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "motorvae" / "opened"


def test_a_record_is_of_one_graph_engine_version_precision_and_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not ONE.is_known()
    ONE.remember()
    assert ONE.is_known()
    (record,) = folder.iterdir()
    assert (record.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    others = (
        replace(ONE, sha256="cd" * 32),
        replace(ONE, library="ONNX Runtime 1.2.4"),
        replace(ONE, precision="fp16"),
    )
    assert not any(other.is_known() for other in others)
    monkeypatch.setattr(records, "cpu_of_machine", lambda: "another machine")
    assert not ONE.is_known()


def test_the_machine_is_the_same_however_busy_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(records, "_CPUINFO", path)
    texts = (
        "vendor_id\t: A\nmodel\t\t: 1\ncpu MHz\t\t: 2000.1\nflags\t\t: sse avx\n\nmodel : 5\n",
        "vendor_id\t: A\nmodel\t\t: 1\ncpu MHz\t\t: 800.7\nflags\t\t: sse avx\n\nmodel : 6\n",
        "vendor_id\t: A\nmodel\t\t: 1\ncpu MHz\t\t: 800.7\nflags\t\t: sse\n\nmodel : 5\n",
    )
    found = []
    for text in texts:
        path.write_text(text)
        found.append(cpu_of_machine.__wrapped__())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_is_not_believed(folder: Path, mode: int) -> None:
    ONE.remember()
    folder.chmod(mode)
    assert not ONE.is_known()
    folder.chmod(0o700)
    assert ONE.is_known()


def test_a_record_that_others_can_write_or_of_other_content_is_not_believed(folder: Path) -> None:
    ONE.remember()
    (record,) = folder.iterdir()
    record.chmod(0o622)
    assert not ONE.is_known()
    record.chmod(0o600)
    assert ONE.is_known()
    for content in (b"", record.read_bytes()[:-1], record.read_bytes() + b"x", b"\xff" * 99):
        record.write_bytes(content)
        assert not ONE.is_known()
    ONE.remember()  # takes its place
    assert ONE.is_known()


def test_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    ONE.remember()
    (record,) = folder.iterdir()
    real = record.rename(tmp_path / "real")
    record.symlink_to(real)
    assert not ONE.is_known()
    record.unlink()
    real.rename(record)
    assert ONE.is_known()
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    assert not ONE.is_known()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_what_another_user_wrote_is_not_believed(folder: Path) -> None:
    ONE.remember()
    (record,) = folder.iterdir()
    for path in (record, folder):
        os.chown(path, 12345, -1)
        assert not ONE.is_known()
        os.chown(path, 0, -1)
        assert ONE.is_known()


@pytest.mark.usefixtures("folder")
def test_without_a_place_for_it_nothing_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    ONE.remember()
    assert not ONE.is_known()

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib does

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    ONE.remember()
    assert not ONE.is_known()


def test_the_oldest_are_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MOST_RECORDS", 2)
    three = [replace(ONE, sha256=digit * 64) for digit in "abc"]
    for number, one in enumerate(three):
        one.remember()
        newest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
        for path in folder.iterdir():
            assert not path.name.startswith(".")
    assert [one.is_known() for one in three] == [False, True, True]


def test_a_record_for_which_there_is_no_room_leaves_no_file(folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        ONE.remember()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(folder.iterdir())
