"""Reach: which addresses a source may lead to; what lists of addresses look like."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}
HLS = "an HLS playlist"
_PLAYLISTS = {
    b"#EXTM3U": HLS,
    b"v=0": "a session description (SDP)",
    b"ffconcat": "a list of files (ffconcat)",
    b"<MPD": "a DASH playlist",
    b"[playlist]": "a playlist",
}


def playlist_kind(start: bytes) -> str | None:
    """Name the kind of list of addresses that begins so, or None for anything else."""
    text = re.sub(rb"^(?:\xef\xbb\xbf|\s|<\?xml[^>]*>)*", b"", start[:1000])
    return next((kind for mark, kind in _PLAYLISTS.items() if text.startswith(mark)), None)


def place_of(address: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL; an empty host where it is none."""
    try:
        parts = urllib.parse.urlsplit(address)
        scheme = parts.scheme.lower()
        return scheme, parts.hostname or "", parts.port or _PORTS.get(scheme, 0)
    except ValueError:
        return "", "", 0


def split_credentials(address: str) -> tuple[str, str | None]:
    """Return a URL without its user and password, and those as they stand in it."""
    scheme, _, rest = address.partition("://")
    authority = re.match("[^/?#]*", rest)[0]  # type: ignore[index]
    credentials, at, host = authority.rpartition("@")
    plain = f"{scheme.lower()}://{host}{rest[len(authority) :]}"
    return plain, credentials if at else None


class Reach:
    """The host and port that the user named, and hosts that were allowed by name.

    A change to TLS at the usual ports of the same host is no change of host.

    Args:
        address: The URL that the user named.
        allow_hosts: Further hosts, as `HOST` or `HOST:PORT`.
    """

    def __init__(self, address: str, allow_hosts: Sequence[str]) -> None:
        self._origin, self._allowed = place_of(address), set(allow_hosts)
        self._schemes = {"rtsp", "rtsps"} if address.startswith("rtsp") else {"http", "https"}

    def check(self, address: str) -> None:
        """Raise PermissionError for an address that is not allowed."""
        scheme, host, port = place_of(address)
        is_usual = _PORTS.get(scheme) == port and _PORTS.get(self._origin[0]) == self._origin[2]
        same = host == self._origin[1] and (port == self._origin[2] or is_usual)
        named = {host, f"{host}:{port}", f"[{host}]:{port}"} & self._allowed
        if scheme not in self._schemes or not host:
            raise PermissionError(f"the server leads on to an address of another kind: {scheme!r}")
        if not same and not named:
            raise PermissionError(
                f"the server leads on to {f'{host}:{port}'!r}, which you did not name: if it is "
                f"right, add --allow-hosts {host}"
            )
