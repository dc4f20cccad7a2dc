"""What container files and the weekly workflow say, against what their commands need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..aarch64.roots import ALSO, EXTRAS

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "containers").glob("*.Dockerfile"))
OF_EVERY_BASE = {"video"}
"""Groups that Debian's and Ubuntu's bases have; Docker looks names up in the image's list."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_header_names_no_group_that_the_image_may_not_know(file: Path) -> None:
    head = re.match(r"(?:#.*\n)+", file.read_text(encoding="utf-8"))
    assert head
    assert f"motorvae:{file.stem}" in head[0]
    assert set(re.findall(r"--group-add ([a-z]+)", head[0])) <= OF_EVERY_BASE


def test_the_native_arm64_job_installs_what_the_emulated_root_has() -> None:
    workflow = (REPOSITORY / ".github/workflows/weekly.yml").read_text(encoding="utf-8")
    found = re.search(r"install -c constraints\.txt -e '\.\[([\w,]+)\]' (.+)", workflow)
    assert found
    assert set(found[1].split(",")) == set(EXTRAS)
    assert set(found[2].split()) == set(ALSO)
