"""Network addresses of sinks: SCHEME://HOST:PORT."""

from __future__ import annotations

import re

from ..core.errors import ConfigError
from ..core.redaction import without_credentials

LOOPBACK = "127.0.0.1"


def address_of(output: str) -> tuple[str, int]:
    """Return host and port of `SCHEME://HOST:PORT`; no host means the loopback interface.

    Raises:
        ConfigError: It is something else.
    """
    found = re.fullmatch(r"\w+://(?:\[([0-9a-fA-F:.]+)\]|([^][:/@?#\s]*)):([0-9]{1,5})", output)
    if found is None or int(found[3]) > 65535:
        scheme = output.partition("://")[0]
        raise ConfigError(
            f"output={without_credentials(output)!r}: write {scheme}://HOST:PORT, or "
            f"{scheme}://:PORT for this machine only, without a user name or a path"
        )
    return found[1] or found[2] or LOOPBACK, int(found[3])
