"""mkdocs hook: a page of the site may load nothing from another host.

A warning fails `mkdocs build --strict`, which checks the links between pages itself. Links into
the repository are checked by tests/docs.
"""

from __future__ import annotations

import logging
from html.parser import HTMLParser
from typing import Any

LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev"}
LOG = logging.getLogger("mkdocs.hooks.no_remote_assets")


class _Loaded(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the address that one tag loads."""
        values = dict(attrs)
        if tag in LOADED and values.get("rel") not in NOT_LOADED:
            self.addresses.append(values.get(LOADED[tag]) or "")


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of what a page loads from elsewhere; the page stays as it is."""
    loaded = _Loaded()
    loaded.feed(output)
    for address in loaded.addresses:
        if address.startswith(("http:", "https:", "//")):
            LOG.warning("%s loads %s from another host", page.file.src_path, address)
    return output
