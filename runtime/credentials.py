"""without_credentials: what of an address may be printed, logged or written into a row."""

from __future__ import annotations

import re

HIDDEN = "***"


def without_credentials(address: str) -> str:
    """Return an address as it may be shown: user name, password and query are left out.

    All that stands before the last `@` is taken for credentials, as passwords with a `/` in them
    are typed too. Where a `?` or `#` stands before an `@`, nobody can tell a password from a
    query, and only the scheme is shown.

    Args:
        address: A URL, or what was meant as one and lacks its scheme.
    """
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address)
    scheme = found[0] if found else ""
    shown, *query = re.split("[?#]", address[len(scheme) :], maxsplit=1)
    if query and "@" in query[0]:
        return f"{scheme}{HIDDEN}"
    _, credentials, host_and_path = shown.rpartition("@")
    return f"{scheme}{f'{HIDDEN}@' if credentials else ''}{host_and_path}"
