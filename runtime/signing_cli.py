"""motorvae sign, verify-signature and keys."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .bundle.graph_key import ENGINES
from .bundle.load import Bundle, load_bundle
from .bundle.manifest import MANIFEST, FileEntry, Manifest
from .core.command import Command, CommandGroup
from .core.documents import bytes_of_file, document_from_json
from .core.errors import EngineError, SigningError, next_command, sentence_list
from .core.text import printable_lines
from .engines.tensorrt.find import engine_manifest_of, engine_of
from .engines.tensorrt.origin import check_origin
from .engines.tensorrt.package import TENSORRT_PACKAGES
from .signing.bundle_signature import digests_of, files_of, sign_files, signed_bundle
from .signing.kept_files import config_dir
from .signing.keys import (
    STANDINGS,
    keys_of,
    new_key,
    own_keys,
    own_private_key,
    remove_key,
    retire_key,
    trust_key,
)
from .signing.machine_key import machine_key

_MOST_PASSPHRASE = 1023  # bytes that OpenSSL takes
_Bundle = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
_Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class SignOptions:
    """Options of motorvae sign."""

    model: _Bundle = Path("bundle")
    """The bundle to sign: all of its files, engines included."""
    key: str | None = None
    """The key that signs, by its name or its file; by default the only one that there is."""
    trust: bool = False
    """Sign engines, too, that neither this machine built nor a trusted key signed."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of motorvae verify-signature."""

    model: _Bundle = Path("bundle")
    """The bundle whose every byte is compared with its signature."""


@dataclass(frozen=True)
class ListOptions:
    """Options of motorvae keys list."""


@dataclass(frozen=True)
class NewOptions:
    """Options of motorvae keys new."""

    name: _Name
    """What to call it, such as factory-2026."""
    passphrase: bool = False
    """Ask for a passphrase, which the key is encrypted with; by default only its file mode guards
    it."""


@dataclass(frozen=True)
class TrustOptions:
    """Options of motorvae keys trust."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The public half, a .pub file, of a key whose bundles may run their engines here."""
    name: str | None = None
    """What to call it here; by default the file's name."""


@dataclass(frozen=True)
class NameOptions:
    """Options of motorvae keys retire and remove."""

    name: _Name
    """The key's name here."""


def _sign(options: SignOptions, *_: object) -> None:
    pem, path = own_private_key(options.key)
    passphrase = None
    if b"ENCRYPTED" in pem:
        passphrase = _secret(f"passphrase of {path.name}: ")
    bundle = load_bundle(options.model)
    files = _files_to_sign(bundle, trust=options.trust)
    key = sign_files(bundle.folder, files, pem, path, passphrase)
    _print(f"{bundle.folder}: {len(files)} files signed by {key.title}")


def _files_to_sign(bundle: Bundle, *, trust: bool) -> tuple[FileEntry, ...]:
    """Return size and hash of every file of a bundle, whose engines are all of known origin.

    A SigningError where it holds anything else, or is changed while this looks at it.
    """
    folder, manifest = bundle.folder, bundle.manifest
    entries = [entry.on_disk for entry in (*manifest.graphs, *manifest.files)]
    hashes = {entry.file: entry.sha256 for entry in entries}
    found, known = files_of(folder), {*hashes, MANIFEST}
    for package in TENSORRT_PACKAGES:
        for entry in manifest.graphs:
            paths = entry.key.engine_paths(folder, package)
            engine, about = (f"{ENGINES}/{path.name}" for path in paths)
            if not {engine, about} & found.keys():
                continue
            known |= {engine, about}
            read = engine_manifest_of(bundle, entry, package)
            if read.manifest.onnx_sha256 != entry.sha256:
                raise SigningError(f"{paths[0]} was built from another {entry.graph}: build again")
            try:
                check_origin(bundle, read)
            except EngineError as error:
                if not trust:
                    raise SigningError(
                        str(error),
                        context=f"not signed, as {engine} is a program of unknown origin",
                        fix="build it here, delete it, or sign it all the same with --trust",
                    ) from error
            engine_of(read)
            hashes[engine] = read.manifest.engine.sha256
            hashes[about] = read.sha256
    if unknown := sorted(found.keys() - known):
        raise SigningError(
            f"{folder} holds {unknown[0]!r}, which is no part of the bundle: move that away, so "
            "that what is signed is what was checked"
        )
    files = digests_of(folder)
    changed = [one.file for one in files if hashes.get(one.file, one.sha256) != one.sha256]
    again = "export the bundle again"
    now = document_from_json(folder / MANIFEST, Manifest, error=SigningError, again=again)
    if changed or now != manifest:
        raise SigningError(f"{folder} was changed while it was looked at: sign it again")
    return files


def _verify(options: VerifyOptions, *_: object) -> None:
    folder = options.model
    if not folder.is_dir():
        raise SigningError(f"no bundle at {folder}: name the folder that motorvae-export wrote")
    try:
        signed = signed_bundle(folder, hash_all=True)
    except SigningError as error:
        raise SigningError(
            str(error), context=f"{folder} is not as a trusted key signed it"
        ) from error
    if signed is None:
        sign = next_command("motorvae", "sign", folder)
        raise SigningError(f"{folder} is not signed: {sign} signs it with a key of yours")
    _print(f"{folder}: {len(signed.files)} files, all as signed by {signed.titles}")


def _list(*_: object) -> None:
    machine = machine_key()
    has = machine.key_id if machine else "none yet; the first engine that is built here makes it"
    lines = [
        f"keys in {config_dir()}",
        f"this machine's key: {has}",
        f"to sign with: {sentence_list(own_keys())}",
    ]
    for standing in STANDINGS:
        lines += [f"{standing}: {key.name} {key.key_id}" for key in keys_of(standing)]
    _print("\n".join(lines))


def _new(options: NewOptions, *_: object) -> None:
    passphrase = None
    if options.passphrase:
        passphrase = _secret("passphrase: ")
        if not passphrase or _secret("the same again: ") != passphrase:
            raise SigningError("no passphrase, or not the same twice: no key was made")
    key, path = new_key(options.name, passphrase)
    command = next_command("motorvae", "keys", "trust", path.name)
    _print(f"made the key {key.name} {key.key_id}; its public half is {path}")
    _print(f"copy that to each machine that is to run what it signs, and there: {command}")


def _trust(options: TrustOptions, *_: object) -> None:
    again = "name the .pub file of a key"
    content = bytes_of_file(options.file, most_bytes=1024, error=SigningError, again=again)
    key = trust_key(content, options.file, options.name)
    _print(f"trusted from now on: {key.name} {key.key_id}")


def _retire(options: NameOptions, *_: object) -> None:
    key = retire_key(options.name)
    _print(f"retired: {key.title}; what it alone signed is trusted no more")


def _remove(options: NameOptions, *_: object) -> None:
    remove_key(options.name)
    _print(f"forgotten: {options.name}")


def _print(text: str) -> None:
    print(printable_lines(text))


def _secret(prompt: str) -> str:
    """Ask for a passphrase; from a pipe, the next line is one."""
    if sys.stdin is None:
        return ""
    try:
        is_typed = sys.stdin.isatty()
        given = getpass.getpass(prompt) if is_typed else sys.stdin.readline().rstrip("\n")
        length = len(given.encode())
    except EOFError:  # Ctrl-D
        return ""
    except UnicodeError as error:
        raise SigningError("the passphrase is no UTF-8: take another") from error
    if length > _MOST_PASSPHRASE:
        raise SigningError(f"the passphrase has {length} bytes: take {_MOST_PASSPHRASE} at most")
    return given


sign_main = Command(
    SignOptions,
    _sign,
    "Sign a whole bundle with a key of yours.",
    prog="motorvae sign",
    positional=("--model", "--bundle"),
)
verify_main = Command(
    VerifyOptions,
    _verify,
    "Compare a whole bundle with what a trusted key signed.",
    prog="motorvae verify-signature",
    positional=("--model", "--bundle"),
)
keys_main = CommandGroup(
    "motorvae keys",
    "Keys that sign bundles, and those that are trusted on this machine.",
    {
        "list": Command(ListOptions, _list, "Show this machine's key and the others."),
        "new": Command(NewOptions, _new, "Make a key to sign with."),
        "trust": Command(TrustOptions, _trust, "Run the engines of bundles that a key signed."),
        "retire": Command(NameOptions, _retire, "Trust a key no more, for a newer one."),
        "remove": Command(NameOptions, _remove, "Forget a trusted or retired key."),
    },
)
