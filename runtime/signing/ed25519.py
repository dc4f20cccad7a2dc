"""Ed25519 keys and signatures (RFC 8032), by the package cryptography."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..core.errors import SigningError


def new_private_key(passphrase: str | None = None) -> bytes:
    """Return a new private key as PEM (PKCS 8), encrypted where a passphrase is given."""
    encryption: pem.KeySerializationEncryption = pem.NoEncryption()
    if passphrase is not None:
        encryption = pem.BestAvailableEncryption(passphrase.encode())
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption)


def private_key_from_pem(content: bytes, name: str, passphrase: str | None) -> Ed25519PrivateKey:
    """Read a private key; a SigningError where it is damaged, of another kind, or encrypted."""
    given = None if passphrase is None else passphrase.encode()
    try:
        key = pem.load_pem_private_key(content, given)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = "or the passphrase is wrong" if given else "or needs its passphrase"
        raise SigningError(
            f"{name} is no private key in PEM, is damaged, {reason}: motorvae keys new makes one"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningError(f"{name} is of another kind than Ed25519: motorvae keys new makes one")
    return key


def public_bytes_of(key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of a private key's public half."""
    return key.public_key().public_bytes_raw()


def signature_of(key: Ed25519PrivateKey, statement: bytes) -> bytes:
    """Return the 64 bytes of a signature."""
    return key.sign(statement)


def is_signed(public: bytes, signature: bytes, statement: bytes) -> bool:
    """Whether a signature is of a statement and by the private half of 32 public bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except InvalidSignature:
        return False
    return True
