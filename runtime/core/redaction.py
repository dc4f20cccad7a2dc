"""What must not leave a machine in a text: credentials, its name, its users, their folders."""

from __future__ import annotations

import platform
import re
from pathlib import Path

HIDDEN = "***"


def without_credentials(address: str) -> str:
    """Return an address as it may be shown: user name, password and query are left out.

    All that stands before the last `@` is taken for credentials, as passwords with a `/` in them
    are typed too. Where a `?` or `#` stands before an `@`, nobody can tell a password from a
    query, and only the scheme is shown, if there is one.
    """
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address)
    scheme = found[0] if found else ""
    shown, *query = re.split("[?#]", address[len(scheme) :], maxsplit=1)
    if query and "@" in query[0]:
        return f"{scheme}{HIDDEN}"
    _, credentials, host_and_path = shown.rpartition("@")
    return f"{scheme}{f'{HIDDEN}@' if credentials else ''}{host_and_path}"


_LABELLED = re.compile(
    r"\b(host ?_?name|host|node ?_?name|computer ?_?name|user ?_?name|user|login)"
    r"(\s*[=:]\s*)(['\"]?)[\w.@-]+\3",
    re.IGNORECASE,
)
"""As in ONNX Runtime's `CUDA failure 35: ... ; GPU=0 ; hostname=box7 ; file=...`."""
_HOME = re.compile(r"(?<![\w.])/(?:home|Users|var/home)/[^/\s'\":;,()]+|(?<![\w.])/root(?![\w.-])")
_LEAST_NAME = 4  # a shorter host name, such as "vm", is taken for a word


def without_private(text: str) -> str:
    """Return an error text without this host's name, names of users, and their home folders."""
    text = _LABELLED.sub(lambda found: f"{found[1]}{found[2]}...", text)
    home = str(Path.home())
    if home.count("/") > 1 or home == "/root":
        text = re.sub(rf"(?<![\w.]){re.escape(home)}(?![\w.-])", "~", text)
    text = _HOME.sub("~", text)
    host = platform.node()
    for name in dict.fromkeys((host, host.partition(".")[0])):  # the longer one first
        if len(name) >= _LEAST_NAME and name != "localhost":
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "...", text)
    return text
