"""The signature of a whole bundle: what it says, and whether a trusted key says it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field, model_validator
from typing_extensions import Self

from ..bundle.manifest import SIGNATURE, FileEntry
from ..core.atomic_files import replaced_file
from ..core.documents import bytes_of_file, document_from_bytes, opened_regular
from ..core.errors import SigningError, needed_for, next_command, sentence_list
from ..core.spec import StrictModel
from .keys import PublicKey, keys_of

_PURPOSE = "motorvae bundle signature"
_COPY_AGAIN = "copy the bundle again"
_MOST_BYTES = 1 << 20
_MOST_FILES, _MOST_SIGNATURES = 1024, 16


class KeySignature(StrictModel):
    """What one key signed: the files of the document that this is in, and its own id."""

    key_id: str = Field(pattern="^[0-9a-f]{32}$")
    signature: str = Field(pattern="^[0-9a-f]{128}$")


class SignatureDocument(StrictModel):
    """Everything that a bundle's `signature.json` holds; its signatures are Ed25519, always.

    `files` are all files of the bundle but this one, in the order of their names.
    """

    schema_version: Literal[1] = 1
    purpose: Literal["motorvae bundle signature"] = "motorvae bundle signature"
    files: tuple[FileEntry, ...] = Field(min_length=1, max_length=_MOST_FILES)
    signatures: tuple[KeySignature, ...] = Field(max_length=_MOST_SIGNATURES)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for names in (
            [entry.file for entry in self.files],
            [one.key_id for one in self.signatures],
        ):
            if names != sorted(set(names)):
                raise ValueError("files or signatures are there twice, or in another order")
        return self

    def statement(self, key_id: str) -> bytes:
        """Return what a key signs, whatever else signs it."""
        said = self.model_dump(include={"schema_version", "purpose", "files"}) | {"key_id": key_id}
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
        return f"{_PURPOSE} v{self.schema_version}\0".encode() + text

    @property
    def text(self) -> bytes:
        """Its only spelling."""
        return self.model_dump_json(indent=2).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class SignedBundle:
    """A bundle's files as trusted keys signed them."""

    signers: tuple[PublicKey, ...]  # one at least
    files: Mapping[str, FileEntry]

    @property
    def titles(self) -> str:
        """Who signed it, for a sentence."""
        return " and ".join(key.title for key in self.signers)

    def read(self, folder: Path, file: str) -> bytes:
        """Return what a file holds, as it was signed."""
        entry = self.files.get(file)
        if entry is None:
            raise SigningError(f"{file!r} is not signed")
        content = bytes_of_file(
            folder / file, most_bytes=entry.size_bytes, error=SigningError, again=_COPY_AGAIN
        )
        self.check_bytes(file, content)
        return content

    def check(self, found: FileEntry) -> None:
        """Make sure that a file is as it was signed; a SigningError names it where it is not."""
        if self.files.get(found.file) != found:
            raise SigningError(f"{found.file!r} was altered after it was signed")

    def check_bytes(self, file: str, content: bytes) -> None:
        """Make sure that what was read of a file is what was signed."""
        digest = hashlib.sha256(content).hexdigest()
        self.check(FileEntry(file=file, sha256=digest, size_bytes=len(content)))


def files_of(folder: Path) -> dict[str, os.stat_result]:
    """Return every file of a bundle but its signature, by its path in it.

    A SigningError where it holds a link, or what is neither a file nor a folder, or does not end.
    """
    found: dict[str, os.stat_result] = {}
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    name, facts = f"{inner}{entry.name}", entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        waiting.append(f"{name}/")
                    elif not stat.S_ISREG(facts.st_mode):
                        raise SigningError(f"{folder} holds {name!r}, a link or no file: remove it")
                    elif name != SIGNATURE:
                        found[name] = facts
        except OSError as error:
            raise SigningError(f"cannot read {folder / inner}: {error.strerror}") from error
        if len(found) + len(waiting) > _MOST_FILES:
            raise SigningError(f"{folder} holds more than {_MOST_FILES} files: that is no bundle")
    return found


def digests_of(folder: Path) -> tuple[FileEntry, ...]:
    """Return size and hash of every file of a bundle but its signature, by name."""
    return tuple(_digest_of(folder, name) for name in sorted(files_of(folder)))


def signature_document(folder: Path) -> SignatureDocument | None:
    """Read a bundle's signature, of which nothing is known yet; None where it has none.

    It has one spelling: whatever differs from it in one byte is a SigningError.
    """
    path = folder / SIGNATURE
    again = f"sign it again with {next_command('motorvae', 'sign', folder)}"
    if not os.path.lexists(path):
        return None
    content = bytes_of_file(path, most_bytes=_MOST_BYTES, error=SigningError, again=again)
    document = document_from_bytes(
        content, path, SignatureDocument, error=SigningError, again=again
    )
    if document.text != content:
        raise SigningError(f"{path} is not spelled as motorVAE does: {again}")
    return document


def signed_bundle(folder: Path, *, hash_all: bool) -> SignedBundle | None:
    """Return a bundle as a trusted key signed it, or None where it has no signature.

    Every file must be listed and have its size, and every listed one be there; without `hash_all`
    it is the caller who compares what it reads. A SigningError says why the signature does not hold
    or is not enough: unknown or retired keys, or other files.
    """
    document = signature_document(folder)
    if document is None:
        return None
    signers = _signers(document)
    found, listed = files_of(folder), {entry.file: entry for entry in document.files}
    if added := sorted(found.keys() - listed.keys()):
        raise SigningError(f"{added[0]!r} was added after it was signed")
    if missing := sorted(listed.keys() - found.keys()):
        raise SigningError(f"{missing[0]!r} is signed and is missing")
    signed = SignedBundle(signers, listed)
    for name, entry in listed.items():
        if found[name].st_size != entry.size_bytes:
            raise SigningError(f"{name!r} was altered after it was signed")
        if hash_all:
            signed.check(_digest_of(folder, name))
    return signed


def still_signed(folder: Path) -> bool:
    """Whether a bundle has a signature that is of all of its files as they are, whoever made it."""
    try:
        document = signature_document(folder)
        return document is not None and document.files == digests_of(folder)
    except (SigningError, ValueError):
        return False


def sign_files(
    folder: Path, files: tuple[FileEntry, ...], pem: bytes, path: Path, passphrase: str | None
) -> PublicKey:
    """Sign files of a bundle, which the caller has checked, with a private key; return the key.

    Signatures of other keys of the very same files stay, so that an older key's is counter-signed.
    """
    with needed_for("signing a bundle", extra="sign", package="cryptography"):
        from . import ed25519  # noqa: PLC0415  # the optional package
    private = ed25519.private_key_from_pem(pem, str(path), passphrase)
    key = PublicKey(path.stem, ed25519.public_bytes_of(private))
    try:
        earlier = signature_document(folder)
    except SigningError:
        earlier = None  # it is replaced
    others = earlier.signatures if earlier is not None and earlier.files == files else ()
    document = SignatureDocument(files=files, signatures=())
    signature = ed25519.signature_of(private, document.statement(key.key_id)).hex()
    own = KeySignature(key_id=key.key_id, signature=signature)
    signatures = [one for one in others if one.key_id != key.key_id] + [own]
    if len(signatures) > _MOST_SIGNATURES:
        raise SigningError(f"{folder} has {_MOST_SIGNATURES} signatures: remove {SIGNATURE} first")
    signatures.sort(key=lambda one: one.key_id)
    document = SignatureDocument(files=files, signatures=tuple(signatures))
    with replaced_file(folder / SIGNATURE) as temporary:
        temporary.write_bytes(document.text)
    return key


def _signers(document: SignatureDocument) -> tuple[PublicKey, ...]:
    """Return the trusted keys that signed this; no known key's signature may be a wrong one."""
    trusted, retired = keys_of("trusted"), keys_of("retired")
    if not document.signatures:
        raise SigningError("its signature file holds no signature")
    by_id = {key.key_id: key for key in (*trusted, *retired)}
    known = {one.key_id: one for one in document.signatures if one.key_id in by_id}
    if trusted:
        with needed_for("checking a signature", extra="sign", package="cryptography"):
            from .ed25519 import is_signed  # noqa: PLC0415  # the optional package
        for key_id, one in known.items():
            statement = document.statement(key_id)
            if not is_signed(by_id[key_id].content, bytes.fromhex(one.signature), statement):
                raise SigningError(f"its signature by {by_id[key_id].title} is of something else")
    if signers := tuple(key for key in trusted if key.key_id in known):
        return signers
    if former := [key.title for key in retired if key.key_id in known]:
        raise SigningError(
            f"it is signed by {sentence_list(former)} only, and that was retired here: have it "
            "signed by a newer key as well"
        )
    if not trusted:
        raise SigningError("it is signed, and no key is trusted here: motorvae keys trust FILE")
    ids = sentence_list([one.key_id[:8] for one in document.signatures])
    raise SigningError(f"it is signed by {ids}, and no such key is trusted here")


def _digest_of(folder: Path, name: str) -> FileEntry:
    digest, size_bytes = hashlib.sha256(), 0
    path = folder / name
    with opened_regular(path, most_bytes=None, error=SigningError, again=_COPY_AGAIN) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size_bytes += len(block)
    return FileEntry(file=name, sha256=digest.hexdigest(), size_bytes=size_bytes)
