"""The releases, prepared once; not collected by plain pytest as it downloads: make test-trt-api."""

from __future__ import annotations

import sys

import pytest

from .releases import RELEASES, Bindings, Release, bindings_of


@pytest.fixture(scope="session")
def bindings() -> dict[Release, Bindings]:
    """Every release that there is a wheel of for this Python."""
    python = sys.version_info.minor
    return {release: bindings_of(release) for release in RELEASES if release.fits(python)}


@pytest.fixture(scope="session")
def members(bindings: dict[Release, Bindings]) -> frozenset[str]:
    """What the objects of any release have."""
    return frozenset().union(*(known.members for known in bindings.values()))
