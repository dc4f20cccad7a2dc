from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import OutputError, OutputLockedError
from motorvae.runtime.core.system import locks
from motorvae.runtime.core.system.locks import lock_path, output_locked
from motorvae.runtime.core.system.temporaries import sweep, temporary_beside

HOLDER = """
import sys
from pathlib import Path
from motorvae.runtime.core.system.locks import output_locked
from motorvae.runtime.core.system.temporaries import temporary_beside
path = Path(sys.argv[1])
with output_locked(path), temporary_beside(path) as temporary:
    temporary.mkdir()
    (temporary / "half").touch()
    print(temporary, flush=True)
    sys.stdin.read()
"""

READ_ONLY = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # root writes everywhere by CAP_DAC_OVERRIDE: drop it
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""
LOCK_ALL = """
import sys
from pathlib import Path
from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.system.locks import output_locked
for path in sys.argv[1:]:
    try:
        with output_locked(Path(path)):
            print("locked")
    except OutputError as error:
        print(error)
"""


class Holder:
    """Another process that holds an output."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.temporary = Path(self.process.stdout.readline().strip())

    def kill(self) -> None:
        with self.process:
            self.process.kill()
        assert self.process.returncode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_refused_by_name_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "latents.jsonl"
    holder = Holder(path)
    try:
        named = rf"latents.jsonl is being written by process {holder.process.pid} since 20\d\d-"
        with pytest.raises(OutputLockedError, match=named), output_locked(path):
            pytest.fail("the block must not run")
        with output_locked(tmp_path / "latents.csv"), output_locked(tmp_path / "latents"):
            pass
        assert sweep(tmp_path) == 0
    finally:
        holder.kill()
    assert lock_path(path).exists()
    with output_locked(path), temporary_beside(path):
        assert not holder.temporary.exists()
    assert names(tmp_path) == []


def test_the_same_process_is_no_exception(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with (
        output_locked(path),
        pytest.raises(OutputLockedError, match=rf"process {os.getpid()} since"),
        output_locked(path),
    ):
        pass
    with output_locked(path):
        pass
    assert names(tmp_path) == []


def test_folders_made_for_an_output_go_unless_it_came(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "one.npz"
    with output_locked(path):
        assert path.parent.is_dir()
    assert names(tmp_path) == []
    with output_locked(path):
        path.touch()
    assert path.exists()


def test_leftovers_of_killed_processes_are_swept_and_nothing_else_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holders = [Holder(tmp_path / name) for name in ("dead", "dead too", "alive")]
    foreign = [
        ".dead.motorvae-notes",
        ".dead.motorvae-abcdefgh",
        ".other.motorvae-abcdefgh/mine",
        ".engines-abcdefgh/mine",
        ".mine.motorvae-lock",
        "dead.motorvae-abcdefgh/dead",
    ]
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / ".link.motorvae-abcdefgh").symlink_to(tmp_path / ".engines-abcdefgh")
    (tmp_path / ".pipe.motorvae-lock").mkdir()
    before = {*names(tmp_path)}
    for holder in holders[:2]:
        holder.kill()
    try:
        with temporary_beside(tmp_path / "next"):
            pass
        gone = {one.temporary.parent.name for one in holders[:2]}
        gone |= {lock_path(tmp_path / name).name for name in ("dead", "dead too")}
        assert {*names(tmp_path)} == before - gone
        assert [one.message for one in caplog.records] == [
            f"removed 4 temporary files and folders of killed processes in {tmp_path}"
        ]
        assert holders[2].temporary.exists()
    finally:
        holders[2].kill()
    assert all((tmp_path / name).read_text() == "mine" for name in foreign)


@pytest.mark.parametrize("middle", ["", ".", ".."])
def test_a_name_that_is_of_no_output_is_none_of_ours(tmp_path: Path, middle: str) -> None:
    for end in ("-old", "-lock"):
        (tmp_path / f".{middle}.motorvae{end}").mkdir()
    with temporary_beside(tmp_path / "latents.npz"):
        pass
    assert names(tmp_path) == [f".{middle}.motorvae-{end}" for end in ("lock", "old")]


def test_a_place_where_no_file_can_be_made_is_not_another_writer_s() -> None:
    wanted = pytest.raises(OutputError, match="cannot write /proc/x: No such file")
    with wanted as refusal, output_locked(Path("/proc/x")):
        pytest.fail("locked")
    assert not isinstance(refusal.value, OutputLockedError)


def test_the_root_folder_has_nothing_beside_it() -> None:
    with pytest.raises(OutputError, match=r"^cannot write /: name a file or folder in it$"):  # noqa: SIM117
        with output_locked(Path("/")):
            pass


@pytest.mark.parametrize("place", ["folder", "link", "fifo"])
def test_what_is_in_the_way_of_a_lock_is_named(tmp_path: Path, place: str) -> None:
    path = tmp_path / "one.npz"
    make = {
        "folder": lock_path(path).mkdir,
        "link": lambda: lock_path(path).symlink_to("elsewhere"),
        "fifo": lambda: os.mkfifo(lock_path(path)),
    }
    make[place]()
    with pytest.raises(OutputError, match=r"\.one\.npz\.motorvae-lock|cannot write"):  # noqa: SIM117
        with output_locked(path):
            pass
    assert os.path.lexists(lock_path(path))


def test_a_folder_that_is_read_only_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    places = [tmp_path / "one.npz", tmp_path / "new" / "run", tmp_path / "run"]
    tmp_path.chmod(0o555)
    try:
        command = [sys.executable, "-c", READ_ONLY, LOCK_ALL, *map(str, places)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        tmp_path.chmod(0o755)
    reason = "Permission denied; choose another place or make room there"
    refused = [f"cannot write {place}: {reason}" for place in places[:2]]
    assert run.stdout.splitlines() == [*refused, "locked"]  # the last can be written itself
    assert "run is not locked (Permission denied)" in run.stderr
    assert names(tmp_path) == ["run"]


def test_a_file_system_without_locks_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(locks.errno.ENOTSUP, os.strerror(locks.errno.ENOTSUP))

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)
    with output_locked(tmp_path / "one.npz"):
        pass
    assert "one.npz is not locked (Operation not supported)" in caplog.text
    with temporary_beside(tmp_path / "one") as temporary:
        temporary.touch()
        assert sweep(tmp_path) == 0
        assert temporary.exists()
    assert names(tmp_path) == []


def test_the_longest_names_have_locks_and_temporaries(tmp_path: Path) -> None:
    for name in ("x" * 251 + ".npz", "\N{GRINNING FACE}" * 63, "\udcff.npz"):
        path = tmp_path / name
        with output_locked(path), temporary_beside(path) as temporary:
            temporary.touch()
    assert names(tmp_path) == []
