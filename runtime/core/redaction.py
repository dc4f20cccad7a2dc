"""What must not leave a machine in a text: credentials, its name, its users, their folders."""

from __future__ import annotations

import getpass
import hashlib
import platform
import re
from pathlib import Path
from urllib.parse import unquote_plus

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


# Of signed addresses, what is another with each signature. Of Amazon, CloudFront, Google, Alibaba:
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
# https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/private-content-creating-signed-url-canned-policy.html
_SIGNED_KEY = re.compile(
    rf"x-(?:amz|goog|oss)-.*|expir(?:es?|y|ation)|key-pair-id|hash-algorithm|nonce|hmac|\w*accesskeyid|"
    rf"googleaccessid|(?!key$){_HIDDEN_KEY}",
    re.IGNORECASE,
)
# And of Azure, as of others beside a signature, where they may mean something else without one:
# https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas
_BESIDE_SIGNATURE = re.compile(
    r"s[teprvi]|ss|srt|spr|sip|sdd|sk[tesv]|skoid|sktid|saoid|suoid|scid|"
    r"e|exp|ts|t|time(?:stamp)?|policy",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"(?:.*-)?sig(?:nature)?|.*token|hmac|.*security.*", re.IGNORECASE)
# Of pictures and their sizes, whose values may be shown; those of others are hashed.
_SHOWN_KEY = re.compile(
    r"id|(?:image|img|photo|picture|frame|file|page|item|camera)(?:[-_]?(?:id|name|index|number))?|"
    r"name|index|number|path|version|version-?id|w|h|width|height|size|format|n|i|v",
    re.IGNORECASE,
)
_SHOWN_VALUE = re.compile(r"[\w.,+/%~-]{1,100}")


_OBJECT = re.compile(
    r"(?P<scheme>(?:s3a?|gc?s|az|abfss?|adl|oss|oci|hf)://)(?P<bucket>[^/]*)(?P<key>/.*)",
    re.IGNORECASE | re.DOTALL,
)
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")
_HARMLESS_PATH = re.compile(
    r"(?<![^/T_ -])\d\d:\d\d(?::\d\d)?(?![^/.Z_+ -])|@[1-4]x(?=\.\w+$)", re.ASCII
)


def name_of_address(address: str) -> str:
    """Return an address as it may be shown, and by which those of other files can be told apart.

    That is as of `without_credentials`, and of its query what says which picture is meant: pairs
    whose key names one, such as `id=5`, as they stand, and a hash of all others. What changes with
    each signature, such as `X-Amz-Date`, is left out, as are secrets and users: an address that is
    signed once more keeps its name. What follows a `#` is nothing to a web server.

    An object store has no secrets in its keys, which are shown as they are, with any `@`, `:` and
    `?` in them. In a path of a web server times, such as `10:00:00`, and scales, such as `@2x`, are
    no secrets; what looks like one otherwise is hidden, and nothing of it is in the name.
    """
    found = _OBJECT.fullmatch(address)
    if found is not None:
        user, at, bucket = found["bucket"].rpartition("@")
        # Azure has the container there: abfs://container@account.dfs.core.windows.net/key
        container = f"{HIDDEN if ':' in user else user}{at}"
        return f"{found['scheme']}{container}{bucket}{found['key']}"
    before, hash_mark, after = address.partition("#")
    plain, _, query = before.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    if hash_mark and not address.lower().startswith(("http://", "https://")):
        pairs.append(f"#{after}")
    authority = _AUTHORITY.match(plain)
    path = plain[authority.end() :] if authority else plain
    harmless = _HARMLESS_PATH.sub("-", path)
    shown = without_credentials(address)
    if (
        authority is not None
        and "@" not in address[len(plain) :]
        and without_credentials(f"{authority[0]}{harmless}").endswith(harmless)
    ):
        shown = f"{without_credentials(authority[0])}{path}"
    if not pairs or shown.endswith(f"//{HIDDEN}"):
        return shown
    keys = [unquote_plus(pair.partition("=")[0]) for pair in pairs]
    is_signed = any(_SIGNATURE.fullmatch(key) for key in keys)
    kept, hashed = list[str](), list[str]()
    for key, pair in zip(keys, pairs, strict=True):
        if _SIGNED_KEY.fullmatch(key) or (is_signed and _BESIDE_SIGNATURE.fullmatch(key)):
            continue
        is_shown = _SHOWN_KEY.fullmatch(key) and _SHOWN_VALUE.fullmatch(pair.partition("=")[2])
        (kept if is_shown else hashed).append(pair)
    if hashed:
        digest = hashlib.sha256("&".join(hashed).encode("utf-8", "surrogateescape"))
        kept.append(f"~{digest.hexdigest()[:12]}")
    return f"{shown}?{'&'.join(kept)}" if kept else shown


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
