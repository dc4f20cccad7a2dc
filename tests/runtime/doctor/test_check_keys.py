"""What the doctor says of the keys that decide which engines run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from motorvae.runtime.doctor.check_keys import check_keys
from motorvae.runtime.signing.keys import new_key, retire_key, trust_key
from motorvae.runtime.signing.machine_key import own_machine_key


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "motorvae"


def test_the_machines_key_and_those_that_are_trusted_are_shown(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra sign")
    (none,) = check_keys(Path())
    assert (none.found, none.verdict) == (
        "none of this machine's yet; none is trusted",
        "optional",
    )
    assert not config.exists()
    machine, _ = own_machine_key()
    keys = {}
    for name in ("old", "factory"):
        keys[name], public = new_key(name)
        trust_key(public.read_bytes(), public)
    retire_key("old")
    (found,) = check_keys(Path())
    assert (found.found, found.verdict) == (
        f"this machine's is {machine.key_id[:8]}; trusted: factory "
        f"({keys['factory'].key_id[:8]}); retired: old ({keys['old'].key_id[:8]})",
        "ok",
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (lacking,) = check_keys(Path())
    assert (lacking.verdict, lacking.next_command) == ("warn", "pip install 'motorvae[sign]'")


def test_a_key_that_others_may_read_is_a_warning(config: Path) -> None:
    own_machine_key()
    (config / "machine.key").chmod(0o644)
    (found,) = check_keys(Path())
    assert (found.verdict, found.next_command) == ("warn", "motorvae keys")
    assert f"so that others may read it: chmod 600 {config / 'machine.key'}" in found.found
