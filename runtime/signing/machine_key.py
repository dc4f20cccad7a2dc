"""The key by which this machine knows again what it built: made once, kept, and never sent."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from ..core.errors import SigningError, next_command
from .kept_files import config_dir, keep, read_kept

MACHINE_KEY = "machine.key"
_FORMAT = re.compile(rb"motorvae-machine-key-v1 ([0-9a-f]{32}) ([0-9a-f]{64})\n")
_ID_OF, _TAG_OF = b"motorvae machine key id v1\0", b"motorvae engine built here v1\0"
"""What is hashed says what for: no tag is ever one of something else."""


@dataclass(frozen=True, slots=True)
class MachineKey:
    """A secret of this user's on this machine.

    What it tags, it knows again, and nobody without it can make a tag (HMAC-SHA256, RFC 2104).
    """

    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Its name, which tells nothing of it."""
        return hashlib.sha256(_ID_OF + self.secret).hexdigest()[:32]

    def tag(self, statement: bytes) -> str:
        """Return the tag of a statement about an engine, as 64 hexadecimal digits."""
        return hmac.new(self.secret, _TAG_OF + statement, "sha256").hexdigest()

    def made(self, tag: str, statement: bytes) -> bool:
        """Whether a tag was made with this key, of this statement."""
        return hmac.compare_digest(tag.encode(), self.tag(statement).encode())


def machine_key() -> MachineKey | None:
    """Return this machine's key, or None where it has none yet: then it has built nothing.

    A SigningError where the file was damaged, or others may know it. It is not replaced: engines
    depend on it.
    """
    path = config_dir() / MACHINE_KEY
    content = read_kept(path, is_secret=True)
    if content is None:
        return None
    found = _FORMAT.fullmatch(content)
    key = MachineKey(bytes.fromhex(found[2].decode())) if found else None
    if found is None or key is None or key.key_id != found[1].decode():
        aside = next_command("mv", path, path.with_name(f"{path.name}.old"))
        raise SigningError(
            f"{path} is damaged, it holds no whole key",
            fix=f"copy it back from a backup, or {aside} and build this machine's engines again",
        )
    return key


def own_machine_key() -> tuple[MachineKey, bool]:
    """Return this machine's key, made now where it has none, and whether it was made now.

    A SigningError as of `machine_key`; an OutputError where it cannot be written.
    """
    found = machine_key()
    if found is not None:
        return found, False
    key = MachineKey(secrets.token_bytes(32))
    line = f"motorvae-machine-key-v1 {key.key_id} {key.secret.hex()}\n"
    is_new = keep(config_dir() / MACHINE_KEY, line.encode())
    found = machine_key()
    if found is None:
        raise SigningError(f"{config_dir() / MACHINE_KEY} went away while it was read: try again")
    return found, is_new
