from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core import atomic_files as files
from motorvae.runtime.core.atomic_files import (
    check_writable,
    replaced_file,
    replaced_folder,
    set_aside,
    sha256_of,
)
from motorvae.runtime.core.errors import ConfigError, OutputError
from motorvae.runtime.core.system import renames

KILLED_INSIDE = """
import sys
from pathlib import Path
from motorvae.runtime.core.atomic_files import replaced_folder
with replaced_folder(Path(sys.argv[1])) as folder:
    (folder / "manifest.json").write_text("half of a manifest")
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no test may leave hidden temporary files."""
    folder = tmp_path / "place"
    folder.mkdir()
    yield folder
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    assert sha256_of(tmp_path / "data") == hashlib.sha256(data).hexdigest()


def test_a_file_appears_whole(place: Path) -> None:
    path = place / "file.json"
    with replaced_file(path) as temporary:
        assert temporary.parent.parent == path.parent
        assert temporary.name == path.name
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


@dataclass
class DiskLog:
    """What was put on disk and renamed, in order; each call is made for real as well.

    Attributes:
        synced: Inode of each file or folder, with the bytes that it had then; None is a rename.
    """

    synced: list[tuple[int, int] | None] = field(default_factory=list)

    def before_the_rename(self) -> list[tuple[int, int] | None]:
        return self.synced[: self.synced.index(None)]

    def after_the_rename(self) -> list[tuple[int, int] | None]:
        return self.synced[self.synced.index(None) + 1 :]


@pytest.fixture
def disk_log(monkeypatch: pytest.MonkeyPatch) -> DiskLog:
    log = DiskLog()
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        log.synced.append((status.st_ino, status.st_size))

    def noted(rename: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            log.synced.append(None)
            return rename(*args)

        return call

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    for name in ("exchange", "rename_new"):
        monkeypatch.setattr(files, name, noted(getattr(files, name)))
    return log


def test_the_bytes_of_a_file_are_on_disk_before_its_name_and_then_the_name_is(
    place: Path, disk_log: DiskLog
) -> None:
    """Else a power cut leaves the name without its bytes: a file that is neither."""
    path = place / "file"
    path.write_text("earlier")
    with replaced_file(path) as temporary:
        temporary.write_text("content")
    assert disk_log.before_the_rename() == [(path.stat().st_ino, len("content"))]
    assert [entry and entry[0] for entry in disk_log.after_the_rename()] == [place.stat().st_ino]


@pytest.mark.parametrize("is_there_before", [False, True])
def test_all_of_a_folder_is_on_disk_before_its_name(
    place: Path, disk_log: DiskLog, is_there_before: bool
) -> None:
    path = place / "folder"
    if is_there_before:
        path.mkdir()
    write_folder(path, "one")
    sub, one = path / "sub", path / "sub" / "one"
    before = {entry[0]: entry[1] for entry in disk_log.before_the_rename() if entry}
    assert before.keys() >= {sub.stat().st_ino, one.stat().st_ino}
    assert before[one.stat().st_ino] == len("one")
    assert [entry and entry[0] for entry in disk_log.after_the_rename()] == [place.stat().st_ino]


def test_a_file_gets_the_permissions_of_any_new_file(place: Path) -> None:
    (place / "ordinary").touch()
    with replaced_file(place / "file") as temporary:
        temporary.touch()
    assert (place / "file").stat().st_mode == (place / "ordinary").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), ConfigError("own")])
def test_a_failure_keeps_the_earlier_file_and_is_passed_on(
    place: Path, error: BaseException
) -> None:
    path = place / "file"
    path.write_text("earlier")
    with pytest.raises(type(error)), replaced_file(path) as temporary:  # noqa: PT012  # a block
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"


def test_a_full_disk_becomes_an_output_error_with_the_name(place: Path) -> None:
    path = place / "file"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=f"cannot write {path}: No space left on device"):  # noqa: SIM117
        with replaced_file(path):
            raise full
    assert not path.exists()


@pytest.mark.parametrize("replaced", [replaced_file, replaced_folder])
def test_a_place_below_a_file_is_refused(place: Path, replaced: type) -> None:
    (place / "file").touch()
    with (
        pytest.raises(OutputError, match=r"cannot write .*file/below"),
        replaced(place / "file" / "below"),
    ):
        pytest.fail("the block must not run")


def test_a_file_does_not_replace_a_folder(place: Path) -> None:
    (place / "folder").mkdir()
    with pytest.raises(OutputError, match="Is a directory"), replaced_file(place / "folder") as one:
        one.touch()


def write_folder(path: Path, name: str) -> None:
    with replaced_folder(path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / name).write_text(name)


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "sub").iterdir())


def test_a_folder_takes_the_place_of_an_earlier_one(place: Path) -> None:
    write_folder(place / "folder", "one")
    write_folder(place / "folder", "two")
    assert names_in(place / "folder") == ["two"]


def test_without_an_exchange_in_the_kernel_two_renames_do_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(place / "folder", "one")
    monkeypatch.setattr(renames.ctypes, "CDLL", lambda *_, **__: object())
    write_folder(place / "folder", "two")
    assert names_in(place / "folder") == ["two"]


def test_a_failed_second_rename_puts_the_earlier_folder_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(place / "folder", "one")
    monkeypatch.setattr(renames.ctypes, "CDLL", lambda *_, **__: object())
    rename, calls = Path.rename, []

    def fail_once(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OutputError, match="Input/output error"):
        write_folder(place / "folder", "two")
    assert names_in(place / "folder") == ["one"]


def test_a_failure_inside_keeps_the_earlier_folder(place: Path) -> None:
    write_folder(place / "folder", "one")
    with pytest.raises(RuntimeError), replaced_folder(place / "folder") as folder:  # noqa: PT012  # a block
        (folder / "half").touch()
        raise RuntimeError
    assert names_in(place / "folder") == ["one"]


def test_a_folder_does_not_replace_a_file(place: Path) -> None:
    (place / "file").write_text("mine")
    with (
        pytest.raises(OutputError, match="exists and is not a folder"),
        replaced_folder(place / "file"),
    ):
        pass
    assert (place / "file").read_text() == "mine"


def test_a_link_to_a_folder_stays_a_link(place: Path) -> None:
    write_folder(place / "real", "one")
    (place / "link").symlink_to("real")
    write_folder(place / "link", "two")
    assert (place / "link").is_symlink()
    assert names_in(place / "real") == ["two"]


def test_a_process_killed_inside_leaves_the_earlier_bundle_whole(
    small_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(small_bundle, path)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_INSIDE, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert load_bundle(path).manifest == load_bundle(small_bundle).manifest
    write_folder(path, "next")
    assert names_in(path) == ["next"]


def test_what_is_set_aside_takes_the_first_free_number(place: Path) -> None:
    path = place / "latents.jsonl"
    assert set_aside(path) is None
    for number in (1, 2, 3):
        path.write_text(str(number))
        assert set_aside(path) == place / f"latents.{number}.jsonl"
        assert not path.exists()
    assert [(place / f"latents.{n}.jsonl").read_text() for n in (1, 2, 3)] == ["1", "2", "3"]


def test_a_folder_is_not_set_aside(place: Path) -> None:
    (place / "latents.jsonl").mkdir()
    with pytest.raises(OutputError, match="exists and is not a file"):
        set_aside(place / "latents.jsonl")


def test_a_folder_is_set_aside_where_that_is_asked_for(place: Path) -> None:
    path = place / "latents.parquet"
    for content in ("folder", "file"):
        if content == "folder":
            path.mkdir()
            (path / "part").write_text(content)
        else:
            path.write_text(content)
        set_aside(path, or_folder=True)
        assert not path.exists()
    assert (place / "latents.1.parquet" / "part").read_text() == "folder"
    assert (place / "latents.2.parquet").read_text() == "file"
    with pytest.raises(OutputError, match="exists and is not a file"):
        set_aside(Path("/dev/null"), or_folder=True)


def test_a_writable_place_is_left_as_it_was(place: Path) -> None:
    check_writable(place / "not" / "yet" / "there.jsonl")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("folder", ["/proc", "/proc/self"])
def test_a_place_that_takes_no_files_is_refused(folder: str) -> None:
    with pytest.raises(OutputError, match=f"cannot write {folder}/latents.jsonl"):
        check_writable(Path(folder) / "latents.jsonl")


def test_interrupt_while_a_folder_is_cleaned_up_waits_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree

    def interrupted(path: Path, *, ignore_errors: bool) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        rmtree(path, ignore_errors=ignore_errors)

    def replace() -> None:
        with replaced_folder(tmp_path / "bundle") as folder:
            (folder / "new").touch()

    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").touch()
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "bundle",
        "bundle/new",
    ]


@pytest.mark.parametrize("replaced", [replaced_file, replaced_folder])
def test_where_no_more_files_may_be_open_no_temporary_folder_stays(
    tmp_path: Path, replaced: Any
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(next_free := os.open(tmp_path, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, limits[1]))
    try:
        with (
            pytest.raises(OutputError, match="Too many open files"),
            replaced(tmp_path / "latents.npz"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not any(tmp_path.iterdir())
