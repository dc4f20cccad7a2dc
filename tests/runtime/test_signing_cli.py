"""motorvae sign, verify-signature and keys, as they are typed."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra sign")

from motorvae.commands import main

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "motorvae"


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; return what it said, as a result or as its one line of error."""

    def run(*args: object, code: int = 0) -> str:
        capfd.readouterr()
        assert main([str(arg) for arg in args]) == code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        if code:
            assert (out, err.count("\n")) == ("", 1), (out, err)
        return out if not code else err

    return run


def test_sign_and_verify_as_documented(said: Run, bundle_copy: Path, config: Path) -> None:
    made = said("keys", "new", "factory")
    public = config / "keys" / "factory.pub"
    assert f"its public half is {public}" in made
    assert (config / "keys" / "factory.pem").stat().st_mode & 0o777 == 0o600
    files = sum(path.is_file() for path in bundle_copy.rglob("*"))
    assert f": {files} files signed by factory (" in said("sign", bundle_copy)
    assert "is signed, and no key is trusted here" in said("verify-signature", bundle_copy, code=1)
    assert "trusted from now on: factory " in said("keys", "trust", public)
    assert "all as signed by factory (" in said("verify-signature", bundle_copy)
    (bundle_copy / "encoder.onnx").write_bytes(b"other")
    line = said("verify-signature", bundle_copy, code=1)
    assert line.startswith(
        f"motorvae verify-signature: {bundle_copy} is not as a trusted key signed it: "
        "'encoder.onnx' was altered after it was signed"
    )


def test_only_a_whole_bundle_and_nothing_else_is_signed(
    said: Run, bundle_copy: Path, tmp_path: Path
) -> None:
    said("keys", "new", "factory")
    assert "no bundle at " in said("sign", tmp_path / "nowhere", code=1)
    (bundle_copy / "notes.txt").touch()
    assert "holds 'notes.txt', which is no part of the bundle" in said("sign", bundle_copy, code=1)
    (bundle_copy / "notes.txt").unlink()
    (bundle_copy / "engines").mkdir()
    (bundle_copy / "engines" / "x.engine").touch()
    assert "holds 'engines/x.engine', which" in said("sign", bundle_copy, code=1)
    shutil.rmtree(bundle_copy / "engines")
    content = (bundle_copy / "decoder.onnx").read_bytes()
    (bundle_copy / "decoder.onnx").write_bytes(content[:-1] + b"?")
    assert "decoder.onnx was altered: sha256" in said("sign", bundle_copy, code=1)
    assert not (bundle_copy / "signature.json").exists()
    (bundle_copy / "decoder.onnx").write_bytes(content)
    said("sign", bundle_copy)


def test_engines_of_unknown_origin_are_signed_with_trust_only(
    said: Run, rtx_bundle: Path, tmp_path: Path
) -> None:
    """Another user's, as the keys of this test are not those that built it."""
    bundle = Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))
    said("keys", "new", "factory")
    line = said("sign", bundle, code=1)
    assert "is a program of unknown origin: " in line
    assert "this machine has no key yet, and so it has built none" in line
    assert line.rstrip().endswith("build it here, delete it, or sign it all the same with --trust")
    said("sign", bundle, "--trust")
    engine = bundle / "engines" / "encoder.fp16.tensorrt-rtx.engine"
    engine.write_bytes(engine.read_bytes()[:-1] + b"?")
    assert "was altered after it was built" in said("sign", bundle, "--trust", code=1)


def test_an_export_after_signing_says_that_the_signature_is_void(
    said: Run, bundle_copy: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="no builder of engines here")
    said("keys", "new", "factory")
    said("sign", bundle_copy)
    done = subprocess.run(
        [sys.executable, "-m", "motorvae", "export", "--model", str(bundle_copy), "--fp16"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again = f"motorvae sign {bundle_copy}"
    assert f"the signature of {bundle_copy} no longer holds: {again}" in done.stderr
    said("sign", bundle_copy)


def test_keys_are_listed_trusted_retired_and_removed(
    said: Run, tmp_path: Path, config: Path
) -> None:
    said("keys", "new", "old")
    said("keys", "new", "new.2026")
    assert "there is a key old already" in said("keys", "new", "old", code=1)
    for name in ("old", "new.2026"):
        said("keys", "trust", config / "keys" / f"{name}.pub")
    assert "is trusted already as old" in said("keys", "trust", config / "keys/old.pub", code=1)
    shutil.copy(config / "keys" / "old.pub", tmp_path / "again.pub")
    assert "already as old" in said("keys", "trust", tmp_path / "again.pub", code=1)
    assert "retired: old (" in said("keys", "retire", "old")
    assert "is retired already as old" in said("keys", "trust", config / "keys/old.pub", code=1)
    text = said("keys")
    assert "this machine's key: none yet; the first engine that is built here makes it" in text
    assert "to sign with: new.2026, old" in text
    assert [line.split()[:2] for line in text.splitlines()[-2:]] == [
        ["trusted:", "new.2026"],
        ["retired:", "old"],
    ]
    assert text == said("keys", "list")
    said("keys", "remove", "old")
    said("keys", "remove", "new.2026")
    assert "trusted:" not in said("keys")
    assert "no key old is trusted here (there are none)" in said("keys", "remove", "old", code=1)
    assert "no key old is trusted here" in said("keys", "retire", "old", code=1)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a" * 65, "sp ace", "\x1b[2J", "é"])
def test_a_name_is_no_path(said: Run, name: str) -> None:
    line = said("keys", "new", name, code=1)
    assert "is no name for a key" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is no public key of motorVAE"),
        (b"motorvae-public-key-v1 " + b"0" * 32 + b" " + b"1" * 64 + b"\n", "or is damaged"),
        (b"motorvae-machine-key-v1 " + b"0" * 32 + b" " + b"1" * 64 + b"\n", "is no public key"),
        (b"-----BEGIN PUBLIC KEY-----\n", "is no public key of motorVAE"),
        (b"x" * 20_000, "has 20000 bytes, and such a file has 1024 at most"),
    ],
)
def test_what_is_no_public_key_is_not_trusted(
    said: Run, tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "key.pub").write_bytes(content)
    assert says in said("keys", "trust", tmp_path / "key.pub", code=1)
    assert "No such file" in said("keys", "trust", tmp_path / "nothing.pub", code=1)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def other_kind(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    )


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda path: path.chmod(0o640), "has mode 0640, so that others may read it: chmod 600"),
        (cut, "is no private key in PEM, is damaged, or needs its passphrase"),
        (other_kind, "is of another kind than Ed25519"),
        (lambda path: path.unlink(), "this user has none to sign with: motorvae keys new NAME"),
    ],
)
def test_a_private_key_that_is_of_no_use_signs_nothing(
    said: Run, bundle_copy: Path, config: Path, harm: Callable[[Path], Any], says: str
) -> None:
    said("keys", "new", "factory")
    harm(config / "keys" / "factory.pem")
    assert says in said("sign", bundle_copy, code=1)
    assert not (bundle_copy / "signature.json").exists()


def test_which_key_signs_must_be_clear(
    said: Run, bundle_copy: Path, config: Path, tmp_path: Path
) -> None:
    said("keys", "new", "one")
    said("keys", "new", "two")
    assert "this user has one, two to sign with: name one with --key" in said(
        "sign", bundle_copy, code=1
    )
    assert "signed by two (" in said("sign", bundle_copy, "--key", "two")
    elsewhere = tmp_path / "stick.pem"
    shutil.copy(config / "keys" / "one.pem", elsewhere)
    elsewhere.chmod(0o600)
    assert "signed by stick (" in said("sign", bundle_copy, "--key", elsewhere)
    assert "no key three: name a file, or one of one, two" in said(
        "sign", bundle_copy, "--key", "three", code=1
    )
    for folder in ("", ".", "/"):
        assert f"no key {folder}: name a file" in said("sign", bundle_copy, "--key", folder, code=1)


def test_a_passphrase_guards_a_key(
    said: Run, bundle_copy: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def typing(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    typing("secret\nanother\n")
    assert "or not the same twice: no key was made" in said(
        "keys", "new", "factory", "--passphrase", code=1
    )
    typing("secret\nsecret\n")
    said("keys", "new", "factory", "--passphrase")
    assert b"ENCRYPTED" in (config / "keys" / "factory.pem").read_bytes()
    for text in ("", "wrong\n"):
        typing(text)
        assert "passphrase" in said("sign", bundle_copy, code=1)
    typing("secret\n")
    assert "signed by factory (" in said("sign", bundle_copy)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (b"\xff\n", "the passphrase is no UTF-8"),
        (b"x" * 1024 + b"\n", "the passphrase has 1024 bytes: take 1023 at most"),
    ],
)
def test_a_passphrase_that_no_key_takes_makes_none(
    said: Run, config: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, says: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(2 * typed), "utf-8"))
    assert says in said("keys", "new", "factory", "--passphrase", code=1)
    assert not (config / "keys").exists()


def test_a_passphrase_that_is_not_typed_makes_no_key(
    said: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D, for which getpass raises EOFError."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def ended(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", ended)
    assert "no passphrase" in said("keys", "new", "factory", "--passphrase", code=1)


def test_a_strange_file_among_the_keys_is_named(said: Run, config: Path) -> None:
    said("keys", "new", "factory")
    said("keys", "trust", config / "keys" / "factory.pub")
    (config / "trusted" / "notes.txt").touch()
    assert "holds 'notes.txt', which is no key: move that away" in said("keys", code=1)
    (config / "trusted" / "notes.txt").unlink()
    (config / "trusted" / "link.pub").symlink_to(config / "keys" / "factory.pub")
    assert "is a link: mv " in said("keys", code=1)
