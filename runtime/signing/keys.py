"""Keys that sign bundles: those of this user, those that are trusted here, and those that were."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..core.errors import SigningError, needed_for, next_command, sentence_list
from .kept_files import config_dir, keep, names_in, read_kept

Standing = Literal["trusted", "retired"]
"""What was said of a key here; these are also the names of the folders that say it."""
STANDINGS: tuple[Standing, ...] = get_args(Standing)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FORMAT = re.compile(rb"motorvae-public-key-v1 ([0-9a-f]{32}) ([0-9a-f]{64})\n?")
_ID_OF = b"motorvae public key id v1\0"
_PRIVATE, _PUBLIC = ".pem", ".pub"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The half of a key that anybody may know, under the name that it has here."""

    name: str
    content: bytes  # 32

    @property
    def key_id(self) -> str:
        """What signatures call it."""
        return hashlib.sha256(_ID_OF + self.content).hexdigest()[:32]

    @property
    def line(self) -> str:
        """What a file of it holds."""
        return f"motorvae-public-key-v1 {self.key_id} {self.content.hex()}\n"

    @property
    def title(self) -> str:
        """Its name and the beginning of its id, for a sentence."""
        return f"{self.name} ({self.key_id[:8]})"


def new_key(name: str, passphrase: str | None = None) -> tuple[PublicKey, Path]:
    """Make a key of this user's; return its public half and that one's file.

    A SigningError where there is one of that name; an OutputError where it cannot be written.
    """
    path = _path("keys", name, _PRIVATE)
    with needed_for("making a key", extra="sign", package="cryptography"):
        from .ed25519 import new_private_key, private_key_from_pem, public_bytes_of  # noqa: PLC0415
    content = new_private_key(passphrase)
    public = PublicKey(name, public_bytes_of(private_key_from_pem(content, str(path), passphrase)))
    if not keep(path, content) or not keep(path.with_suffix(_PUBLIC), public.line.encode()):
        raise SigningError(f"there is a key {name} already, {path}: take another name")
    return public, path.with_suffix(_PUBLIC)


def own_keys() -> list[str]:
    """Return the names of the keys that this user can sign with."""
    return _names("keys", _PRIVATE)


def own_private_key(named: str | None) -> tuple[bytes, Path]:
    """Return a private key of this user's, in PEM, and its file.

    It is a key's name, or a file; where left out, the only key that there is.
    """
    if named is None:
        names = own_keys()
        if len(names) != 1:
            made = "motorvae keys new NAME makes one" if not names else "name one with --key"
            raise SigningError(f"this user has {sentence_list(names)} to sign with: {made}")
        named = names[0]
    is_name = _NAME.fullmatch(named) is not None and named in own_keys()
    path = _path("keys", named, _PRIVATE) if is_name else Path(named).expanduser()
    # The working and the root folder have no name.
    content = read_kept(path, is_secret=True, is_ours=is_name) if path.name else None
    if content is None:
        raise SigningError(f"no key {named}: name a file, or one of {sentence_list(own_keys())}")
    return content, path


def keys_of(standing: Standing) -> tuple[PublicKey, ...]:
    """Return the keys of a standing, by name; a SigningError where something else is among them.

    A key that is both trusted and retired is retired.
    """
    keys = []
    for name in _names(standing, _PUBLIC):
        path = _path(standing, name, _PUBLIC)
        content = read_kept(path, is_secret=False)
        if content is not None:  # else it went away just now
            keys.append(_public_key(content, name, path))
    if standing == "trusted":
        retired = {key.key_id for key in keys_of("retired")}
        keys = [key for key in keys if key.key_id not in retired]
    return tuple(keys)


def trust_key(content: bytes, path: Path, name: str | None = None) -> PublicKey:
    """Trust the key in a public file from now on, by default under the file's name."""
    key = _public_key(content, name or path.name.removesuffix(_PUBLIC), path)
    for standing in STANDINGS:
        for known in keys_of(standing):
            if known.key_id == key.key_id:
                remove = next_command("motorvae", "keys", "remove", known.name)
                raise SigningError(f"{key.title} is {standing} already as {known.name}: {remove}")
    if not keep(_path("trusted", key.name, _PUBLIC), key.line.encode()):
        raise SigningError(f"another key is trusted as {key.name}: give this one a --name")
    return key


def retire_key(name: str) -> PublicKey:
    """Accept nothing any more that only this key signed; it stays known for what it was."""
    (key,) = [key for key in keys_of("trusted") if key.name == name] or [_unknown(name)]
    if not keep(_path("retired", name, _PUBLIC), key.line.encode()):
        raise SigningError(
            f"another key is retired as {name}: motorvae keys remove {name} forgets both"
        )
    _path("trusted", name, _PUBLIC).unlink(missing_ok=True)
    return key


def remove_key(name: str) -> None:
    """Forget a key that was trusted or retired."""
    found = [path for path in _places(name) if os.path.lexists(path)]
    if not found:
        _unknown(name)
    for path in found:
        path.unlink()


def _unknown(name: str) -> PublicKey:
    known = sentence_list([key.name for key in keys_of("trusted")])
    raise SigningError(
        f"no key {name} is trusted here (there are {known}): motorvae keys lists all"
    )


def _places(name: str) -> list[Path]:
    return [_path(standing, name, _PUBLIC) for standing in STANDINGS]


def _path(folder: str, name: str, suffix: str) -> Path:
    if not _NAME.fullmatch(name):
        raise SigningError(
            f"{name[:80]!r} is no name for a key: take up to 64 of letters, digits and _.-"
        )
    return config_dir() / folder / f"{name}{suffix}"


def _names(folder: str, suffix: str) -> list[str]:
    place = config_dir() / folder
    found = names_in(place)
    strange = [name for name in found if Path(name).suffix not in {_PRIVATE, _PUBLIC}]
    strange += [name for name in found if not _NAME.fullmatch(Path(name).stem)]
    if strange:
        raise SigningError(f"{place} holds {strange[0]!r}, which is no key: move that away")
    return [name.removesuffix(suffix) for name in found if name.endswith(suffix)]


def _public_key(content: bytes, name: str, path: Path) -> PublicKey:
    found = _FORMAT.fullmatch(content)
    key = PublicKey(name, bytes.fromhex(found[2].decode())) if found else None
    if found is None or key is None or key.key_id != found[1].decode():
        raise SigningError(
            f"{path} is no public key of motorVAE, or is damaged: take the .pub file that motorvae "
            "keys new made"
        )
    return key
