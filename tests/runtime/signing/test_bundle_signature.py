"""Signatures of whole bundles, with real keys: forged, stripped, downgraded and replayed ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="signatures need the extra sign")

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from motorvae.runtime.core.errors import SigningError
from motorvae.runtime.signing.bundle_signature import digests_of, sign_files, signed_bundle
from motorvae.runtime.signing.keys import (
    keys_of,
    new_key,
    own_private_key,
    remove_key,
    retire_key,
    trust_key,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group that Ed25519 computes in (RFC 8032, section 5.1)."""


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "motorvae"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a signature is of: it does not ask what the files are."""
    made = tmp_path / "bundle"
    (made / "engines").mkdir(parents=True)
    (made / "manifest.json").write_text('{"graphs": []}', encoding="utf-8")
    (made / "encoder.onnx").write_bytes(bytes(3000))
    (made / "engines" / "encoder.engine").write_bytes(b"engine")
    return made


def make_trusted(name: str) -> str:
    key, path = new_key(name)
    trust_key(path.read_bytes(), path)
    return key.key_id


def sign(folder: Path, name: str) -> None:
    sign_files(folder, digests_of(folder), *own_private_key(name), None)


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the signature file, and spell it as it must be."""
    path = folder / "signature.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(SigningError) as caught:
        signed_bundle(folder, hash_all=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_signature_is_ed25519_of_a_purpose_and_every_file(folder: Path) -> None:
    """Checked without our own code, as the documentation describes it."""
    key_id = make_trusted("factory")
    sign(folder, "factory")
    document = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
    (one,) = document.pop("signatures")
    assert one["key_id"] == key_id
    assert [entry["file"] for entry in document["files"]] == [
        "encoder.onnx",
        "engines/encoder.engine",
        "manifest.json",
    ]
    document["key_id"] = key_id
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (key,) = keys_of("trusted")
    public = Ed25519PublicKey.from_public_bytes(key.content)
    public.verify(
        bytes.fromhex(one["signature"]), b"motorvae bundle signature v1\0" + text.encode()
    )
    signed = signed_bundle(folder, hash_all=True)
    assert signed is not None
    assert [key.key_id for key in signed.signers] == [key_id]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_a_smaller_order(content: dict[str, Any]) -> None:
    """The same point and a scalar of the same class: it is a signature for a lax verifier."""
    one = content["signatures"][0]
    raw = bytes.fromhex(one["signature"])
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    one["signature"] = (raw[:32] + scalar.to_bytes(32, "little")).hex()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: flip(f / "encoder.onnx"), "'encoder.onnx' was altered after it was signed"),
        (lambda f: flip(f / "manifest.json"), "'manifest.json' was altered"),
        (lambda f: flip(f / "engines/encoder.engine"), "'engines/encoder.engine' was altered"),
        (lambda f: (f / "encoder.onnx").write_bytes(b""), "'encoder.onnx' was altered"),
        (lambda f: (f / "encoder.onnx").unlink(), "'encoder.onnx' is signed and is missing"),
        (lambda f: (f / "notes.txt").touch(), "'notes.txt' was added after it was signed"),
        (lambda f: (f / "engines/other.json").touch(), "'engines/other.json' was added"),
        (lambda f: (f / os.fsdecode(b"\xff")).touch(), r"'\udcff' was added"),
        (lambda f: (f / "a\nb").touch(), r"'a\nb' was added"),
        (lambda f: (f / "link").symlink_to("manifest.json"), "holds 'link', a link or no file"),
        (lambda f: os.mkfifo(f / "pipe"), "holds 'pipe', a link or no file"),
        (
            lambda f: change(f, lambda c: c["files"].pop()),
            "its signature by factory",
        ),
        (
            lambda f: change(f, lambda c: c["files"][0].update(sha256="0" * 64)),
            "its signature by factory",
        ),
        (
            lambda f: change(f, lambda c: c["files"][0].update(file="encoder.onny")),
            "its signature by factory",
        ),
        (
            lambda f: change(f, lambda c: c["files"][0].update(size_bytes=1)),
            "its signature by factory",
        ),
        (lambda f: change(f, of_a_smaller_order), "its signature by factory"),
        (
            lambda f: change(f, lambda c: c["signatures"][0].update(signature="0" * 128)),
            "its signature by factory",
        ),
        (lambda f: change(f, lambda c: c.update(signatures=[])), "holds no signature"),
        (
            lambda f: change(f, lambda c: c["signatures"][0].update(key_id="0" * 32)),
            "it is signed by 00000000, and no such key is trusted here",
        ),
        (lambda f: change(f, lambda c: c.update(schema_version=0)), "has schema_version=0"),
        (lambda f: change(f, lambda c: c.update(schema_version=2)), "has schema_version=2"),
        (lambda f: change(f, lambda c: c.pop("schema_version")), "has schema_version=None"),
        (lambda f: change(f, lambda c: c.update(purpose="another")), "purpose=another"),
        (lambda f: change(f, lambda c: c.update(algorithm="none")), "algorithm: Extra inputs"),
        (
            lambda f: change(f, lambda c: c["signatures"][0].update(algorithm="none")),
            "algorithm: Extra inputs",
        ),
        (lambda f: change(f, lambda c: c["files"].reverse()), "or in another order"),
        (lambda f: change(f, lambda c: c["files"].append(c["files"][-1])), "are there twice"),
        (
            lambda f: change(f, lambda c: c["signatures"].append(c["signatures"][0])),
            "are there twice",
        ),
        (
            lambda f: change(f, lambda c: c["signatures"][0].update(signature="A" * 128)),
            "signatures.0.signature=",
        ),
        (lambda f: respell(f, lambda text: text + b"\n"), "is not spelled as motorVAE does"),
        (lambda f: respell(f, lambda text: text.replace(b": ", b":")), "is not spelled"),
        (lambda f: respell(f, twice), "the key 'files' stands twice in one object"),
        (lambda f: respell(f, lambda text: text.replace(b"onnx", rb"onn\u0078")), "is not spelled"),
        (lambda f: respell(f, lambda _: b""), "is not JSON"),
        (lambda f: respell(f, lambda text: text[:-40]), "is not JSON"),
        (
            lambda f: respell(f, lambda _: b" " * (1 << 21)),
            "has 2097152 bytes, and such a file has 1048576 at most",
        ),
    ],
)
def test_whatever_is_changed_after_signing_is_found(
    folder: Path, harm: Callable[[Path], object], says: str
) -> None:
    make_trusted("factory")
    sign(folder, "factory")
    assert signed_bundle(folder, hash_all=True) is not None
    harm(folder)
    said = refusal(folder)
    assert says in said


def respell(folder: Path, edit: Callable[[bytes], bytes]) -> None:
    path = folder / "signature.json"
    path.write_bytes(edit(path.read_bytes()))


def twice(text: bytes) -> bytes:
    """A first list of files, of another bundle, before the one that is signed."""
    return text.replace(b'"files"', b'"files": [],\n  "files"', 1)


def test_a_bundle_without_a_signature_is_not_signed(folder: Path) -> None:
    assert signed_bundle(folder, hash_all=True) is None


def test_a_signature_file_that_is_no_file_is_refused_at_once(folder: Path) -> None:
    (folder / "signature.json").symlink_to("/dev/zero")
    assert "it is no regular file" in refusal(folder)
    (folder / "signature.json").unlink()
    os.mkfifo(folder / "signature.json")
    assert "it is no regular file" in refusal(folder)


def test_a_signature_of_one_bundle_is_none_of_another(folder: Path, tmp_path: Path) -> None:
    make_trusted("factory")
    sign(folder, "factory")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    flip(other / "encoder.onnx")
    assert "was altered" in refusal(other)
    sign(other, "factory")
    shutil.copy(other / "signature.json", folder / "signature.json")
    assert "'encoder.onnx' was altered" in refusal(folder)
    # An engine of the other, signed as it is, is none of this one's either.
    sign(folder, "factory")
    (other / "engines" / "encoder.engine").write_bytes(b"Engine")
    sign(other, "factory")
    shutil.copy(other / "engines" / "encoder.engine", folder / "engines" / "encoder.engine")
    assert "'engines/encoder.engine' was altered" in refusal(folder)


def test_a_signature_by_one_key_is_none_by_another(folder: Path) -> None:
    first, second = make_trusted("first"), make_trusted("second")
    sign(folder, "first")
    change(folder, lambda content: content["signatures"][0].update(key_id=second))
    assert "its signature by second" in refusal(folder)
    assert first != second


def test_keys_take_turns_by_countersigning(folder: Path) -> None:
    """Rotation: several keys are trusted, and what a retired one alone signed is not."""
    make_trusted("old")
    sign(folder, "old")
    make_trusted("new")
    assert signed_bundle(folder, hash_all=True) is not None
    retire_key("old")
    assert "it is signed by old (" in refusal(folder)
    assert "retired here: have it signed by a newer key as well" in refusal(folder)
    sign(folder, "new")
    signed = signed_bundle(folder, hash_all=True)
    assert signed is not None
    assert [key.name for key in signed.signers] == ["new"]
    assert len(json.loads((folder / "signature.json").read_text())["signatures"]) == 2
    # A retired key's own signature must still be one.
    old = keys_of("retired")[0].key_id

    def break_the_old(content: dict[str, Any]) -> None:
        for one in content["signatures"]:
            if one["key_id"] == old:
                one["signature"] = "0" * 128

    change(folder, break_the_old)
    assert "its signature by old" in refusal(folder)


def test_signing_changed_files_drops_the_signatures_of_what_was(folder: Path) -> None:
    make_trusted("one")
    make_trusted("two")
    sign(folder, "one")
    flip(folder / "encoder.onnx")
    sign(folder, "two")
    (one,) = json.loads((folder / "signature.json").read_text())["signatures"]
    assert one["key_id"] == {key.name: key.key_id for key in keys_of("trusted")}["two"]
    assert signed_bundle(folder, hash_all=True) is not None


def test_what_is_trusted_here_decides(folder: Path, config: Path) -> None:
    _, public = new_key("factory")
    sign(folder, "factory")
    assert "it is signed, and no key is trusted here: motorvae keys trust FILE" in refusal(folder)
    other = make_trusted("other")
    assert "and no such key is trusted here" in refusal(folder)
    trust_key(public.read_bytes(), public)
    assert signed_bundle(folder, hash_all=True) is not None
    remove_key("factory")
    assert "and no such key is trusted here" in refusal(folder)
    assert [key.key_id for key in keys_of("trusted")] == [other]
    (config / "trusted" / "other.pub").chmod(0o666)
    assert "so that others may write it: chmod 600" in refusal(folder)
    (config / "trusted" / "other.pub").chmod(0o600)
    (config / "trusted").chmod(0o777)
    assert "so that others may write it: chmod 700" in refusal(folder)


def test_without_the_package_a_trusted_key_needs_it_and_nothing_else_does(folder: Path) -> None:
    _, public = new_key("factory")
    sign(folder, "factory")
    source = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from motorvae.runtime.signing.bundle_signature import signed_bundle\n"
        "try: signed_bundle(Path(sys.argv[1]), hash_all=False)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    def said() -> str:
        command = [sys.executable, "-c", source, str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said().startswith("SigningError it is signed, and no key is trusted here")
    trust_key(public.read_bytes(), public)
    assert said() == (
        "MissingDependencyError checking a signature needs the package cryptography, which is not "
        "installed: pip install 'motorvae[sign]'\n"
    )
