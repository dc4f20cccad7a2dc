"""Where files go that can be made again: the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return motorVAE's folder for files that only save time; it need not exist yet.

    `XDG_CACHE_HOME` moves it, as the XDG base directory specification says.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "motorvae"
