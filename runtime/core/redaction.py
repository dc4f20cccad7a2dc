"""What must not leave a machine in a text: credentials, its name, its users, their folders."""

from __future__ import annotations

import getpass
import platform
import re
from pathlib import Path

HIDDEN = "***"


# Keys whose values are nobody's business, wherever they stand, such as in the path that video
# recorders take: rtsp://host/user=admin&password=secret&channel=1
_HIDDEN_KEY = (
    r"(?:user(?:_?name|[-_]?id)?|usr|login|account|pass(?:[-_]?w(?:or)?d|phrase|code)?|pwd|psw|pw|"
    r"user[-_]?pw|[a-z_-]*(?:secret|token|signature|credentials?|session(?:[-_]?id)?)|sig|"
    r"[a-z_-]*(?:api|access|auth|private|stream)[-_]?keys?|key|auth(?:orization)?|jwt|sid)"
)
_SECRET = re.compile(rf"(?<![^\W_]){_HIDDEN_KEY}(?:=|%3D)", re.IGNORECASE)
# What tells one camera of a recorder from another, and may be shown after a secret.
_HARMLESS = re.compile(
    r"[&;,_/](?:channel|chn?|cam(?:era)?|stream|subtype|profile|track)=\w{1,8}(?:\.sdp)?(?=[&;,_/]|$)",
    re.IGNORECASE,
)


def without_credentials(address: str) -> str:
    """Return an address as it may be shown: user name, password and query are left out.

    All that stands before the last `@` is taken for credentials, as passwords with a `/` in them
    are typed too. Where a `?`, a `#` or the key of a secret stands before an `@`, nobody can tell a
    password from the rest, and only the scheme is shown, if there is one. Of pairs in the path,
    those whose key names a secret or a user lose their value, as does what looks like
    `user:password`.
    """
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address)
    scheme = found[0] if found else ""
    shown, *query = re.split("[?#]", address[len(scheme) :], maxsplit=1)
    _, credentials, host_and_path = shown.rpartition("@")
    # An `@` after a secret in the path may be part of it.
    if (query and "@" in query[0]) or (credentials and _SECRET.search(shown.partition("/")[2])):
        return f"{scheme}{HIDDEN}"
    shown = _without_secrets(host_and_path)
    return f"{scheme}{f'{HIDDEN}@' if credentials else ''}{shown}"


def _without_secrets(host_and_path: str) -> str:
    """Hide what follows the first key of a secret, and segments of a path like `admin:12345`.

    A password may hold whatever separates pairs, so that only pairs known to be harmless are kept.
    """
    host, slash, path = host_and_path.partition("/")
    shown, kept = path, ""
    if found := _SECRET.search(path):
        shown = f"{path[: found.end()]}{HIDDEN}"
        kept = "".join(pair[0] for pair in _HARMLESS.finditer(path, found.end()))
    shown = "/".join(HIDDEN if ":" in part else part for part in shown.split("/"))
    return f"{host}{slash}{shown}{kept}"


_LABELLED = re.compile(
    r"\b(host ?_?name|host|node ?_?name|computer ?_?name|user ?_?name|user|login)"
    r"(\s*[=:]\s*)(['\"]?)[\w.@-]+\3",
    re.IGNORECASE,
)
"""As in ONNX Runtime's `CUDA failure 35: ... ; GPU=0 ; hostname=box7 ; file=...`."""
_HOME = re.compile(r"(?<![\w.])/(?:home|Users|var/home)/[^/\s'\":;,()]+|(?<![\w.])/root(?![\w.-])")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b")
"""As in a GPU's `GPU-12345678-9abc-def0-1234-56789abcdef0`."""
_SERIAL = re.compile(
    r"\b(serial(?:[ _-]?(?:number|no\.?))?)(\s*[=:#]\s*|\s+)(?=[\w-]*\d)[\w-]{4,}", re.IGNORECASE
)
_LEAST_NAME = 4  # a shorter name of a host or a user, such as "vm" or "max", is taken for a word
_NOBODY = {"root", "user", "admin", "nobody", "ubuntu", "debian", "jetson", "nvidia", "docker"}
"""Names that systems give their first user: they tell nobody apart, and are words of errors."""


def without_private(text: str) -> str:
    """Return an error text without what tells one machine or its user from another.

    That is the host's name, names of users and their home folders, serial numbers, and UUIDs.
    """
    text = _UUID.sub("...", _SERIAL.sub(r"\1\2...", text))
    text = _LABELLED.sub(lambda found: f"{found[1]}{found[2]}...", text)
    home = str(Path.home())
    if home.count("/") > 1 or home == "/root":
        text = re.sub(rf"(?<![\w.]){re.escape(home)}(?![\w.-])", "~", text)
    text = _HOME.sub("~", text)
    host = platform.node()
    names = [host, host.partition(".")[0]]  # the longer one first
    if (user := _user()) not in _NOBODY:
        names.append(user)
    for name in dict.fromkeys(names):
        if len(name) >= _LEAST_NAME and name != "localhost":
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "...", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # this number has no name here
        return ""
