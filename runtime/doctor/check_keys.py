"""The doctor's check of keys: by which this machine knows its engines, and those that it trusts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import SigningError, sentence_list
from ..signing.keys import STANDINGS, keys_of
from ..signing.machine_key import machine_key
from .finding import Finding


def check_keys(_model: Path) -> Iterator[Finding]:
    """Read every key that decides which engines run."""
    try:
        machine = machine_key()
        known = {standing: keys_of(standing) for standing in STANDINGS}
    except SigningError as error:
        yield Finding("keys", str(error), "warn", "motorvae keys")
        return
    own = f"this machine's is {machine.key_id[:8]}" if machine else "none of this machine's yet"
    parts = [
        f"{standing}: {sentence_list([key.title for key in keys])}"
        for standing, keys in known.items()
        if keys
    ]
    found = "; ".join([own, *(parts or ["none is trusted"])])
    if known["trusted"] and importlib.util.find_spec("cryptography") is None:
        problem = f"{found}; no signature can be checked, as cryptography is not installed"
        yield Finding("keys", problem, "warn", "pip install 'motorvae[sign]'")
    else:
        yield Finding("keys", found, "ok" if machine or known["trusted"] else "optional")
