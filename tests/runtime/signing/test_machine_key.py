"""This machine's key: made once, for this user only, and never made again over a damaged one."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import OutputError, SigningError
from motorvae.runtime.signing.kept_files import config_dir, keep, names_in, read_kept
from motorvae.runtime.signing.machine_key import MachineKey, machine_key, own_machine_key


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "motorvae"


def test_the_key_is_made_once_and_for_this_user_only(config: Path) -> None:
    assert machine_key() is None
    assert not config.exists()
    before = os.umask(0)  # whatever that is
    try:
        key, is_new = own_machine_key()
    finally:
        os.umask(before)
    assert is_new
    assert own_machine_key() == (key, False)
    assert machine_key() == key
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert stat.S_IMODE((config / "machine.key").stat().st_mode) == 0o600
    assert [path.name for path in config.iterdir()] == ["machine.key"]
    assert len(key.secret) == 32
    assert key.secret.hex() not in repr(key)


def test_a_tag_is_hmac_sha256_of_what_for_and_the_statement() -> None:
    key = MachineKey(bytes(range(32)))
    said = b"motorvae engine built here v1\0statement"
    assert key.tag(b"statement") == hmac.digest(bytes(range(32)), said, hashlib.sha256).hex()
    assert key.made(key.tag(b"statement"), b"statement")
    assert not key.made(key.tag(b"statement"), b"statement ")
    assert not key.made(key.tag(b"statement").upper(), b"statement")
    assert not MachineKey(bytes(32)).made(key.tag(b"statement"), b"statement")


def test_processes_that_build_at_once_agree_on_one_key(config: Path) -> None:
    source = (
        "from motorvae.runtime.signing.machine_key import own_machine_key\n"
        "key, is_new = own_machine_key()\nprint(key.key_id, is_new)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [one.communicate(timeout=60)[0].split() for one in running]
    assert len({key_id for key_id, _ in said}) == 1
    assert [is_new for _, is_new in said].count("True") == 1
    assert [path.name for path in config.iterdir()] == ["machine.key"]


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.chmod(0o644), r"has mode 0644, so that others may read it: chmod 600 "),
        (lambda path: path.chmod(0o660), r"has mode 0660, so that others may read it: chmod 600 "),
        (to_link, r"machine\.key is a link: mv .*machine\.key\.old"),
        (to_fifo, r"is no plain file: mv "),
        (to_folder, r"is no plain file: mv "),
        (cut, "is damaged, it holds no whole key: copy it back from a backup, or mv"),
        (flip, "is damaged, it holds no whole key"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes().upper()), "is damaged"),
        (lambda path: path.write_bytes(b"x" * 20_000), "has more than 16384 bytes"),
        (lambda path: path.parent.chmod(0o777), r"motorvae has mode 0777.* write it: chmod 700 "),
        (lambda path: path.parent.chmod(0o720), r"motorvae has mode 0720"),
        (lambda path: to_link(path.parent), "motorvae is a link: mv "),
    ],
)
def test_a_key_that_others_know_or_that_is_none_is_refused_and_stays(
    config: Path, damage: Callable[[Path], object], says: str
) -> None:
    own_machine_key()
    path = config / "machine.key"
    damage(path)
    before = sorted((one.name, one.lstat().st_mtime_ns) for one in config.rglob("*"))
    for read in (machine_key, own_machine_key):
        with pytest.raises(SigningError, match=says) as caught:
            read()
        assert "\n" not in str(caught.value)
    assert sorted((one.name, one.lstat().st_mtime_ns) for one in config.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("of", ["machine.key", "."])
def test_a_key_of_another_user_is_refused(config: Path, of: str) -> None:
    own_machine_key()
    os.chown(config / of, 12345, -1)
    with pytest.raises(SigningError, match="belongs to another user: run this as that user, or"):
        machine_key()


def test_where_the_configuration_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is none: who chooses the working directory would choose the keys."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative", "./config", "~"):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert config_dir() == tmp_path / "home" / ".config" / "motorvae"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_dir() == tmp_path / "motorvae"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    for value in ("relative", "."):
        monkeypatch.setenv("HOME", value)
        with pytest.raises(SigningError, match="no home folder to keep keys in: set XDG_CONFIG"):
            config_dir()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/self")
    assert machine_key() is None
    with pytest.raises(OutputError, match=r"cannot write /proc/self/motorvae/machine\.key: .*XDG_"):
        own_machine_key()


def test_what_is_kept_is_never_written_over(config: Path) -> None:
    path = config / "trusted" / "one.pem"
    assert read_kept(path, is_secret=False) is None
    assert keep(path, b"first")
    assert not keep(path, b"second")
    assert read_kept(path, is_secret=True) == b"first"
    assert names_in(path.parent) == ["one.pem"]
    path.chmod(0o644)  # a public key may be read, and not be written
    assert read_kept(path, is_secret=False) == b"first"
    path.chmod(0o666)
    with pytest.raises(SigningError, match="so that others may write it"):
        read_kept(path, is_secret=False)
