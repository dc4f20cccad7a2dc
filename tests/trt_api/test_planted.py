"""The check finds each planted mistake on the releases where it is one, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from .checking import Finding, missing_names, type_report, unknown_names, untyped_everywhere
from .releases import HERE, RELEASES, Bindings, Release

PLANTED = "runtime/planted.py"
SOURCE = (HERE / "planted.py").read_text("utf-8")


def lines_marked(mark: str, release: Release | None = None) -> list[int]:
    """Return the lines whose comment has a mark, and names a release where one is given."""
    found = []
    for number, line in enumerate(SOURCE.splitlines(), start=1):
        _, _, comment = line.partition(f"  # {mark}")
        titles = comment.removeprefix(":").split()
        if f"  # {mark}" in line and (release is None or release.title_in(titles)):
            found.append(number)
    return found


def lines(findings: Iterable[Finding]) -> list[int]:
    return sorted({finding.line for finding in findings})


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_each_planted_mistake_is_found_where_it_is_one(
    release: Release, bindings: dict[Release, Bindings], members: frozenset[str]
) -> None:
    if release not in bindings:
        pytest.skip(f"{release.requirement} has no wheel for this Python")
    names = lines(missing_names({PLANTED: SOURCE}, bindings[release]))
    assert names == lines_marked("no name", release)

    report = type_report({PLANTED: SOURCE}, bindings[release], members)
    fits = [number for number in lines(report.errors) if number not in names]
    assert fits == lines_marked("no fit", release), "\n".join(map(str, report.errors))


def test_names_that_no_release_has_are_found(bindings: dict[Release, Bindings]) -> None:
    assert lines(unknown_names({PLANTED: SOURCE}, bindings.values())) == lines_marked("unknown")


def test_objects_of_which_nothing_is_known_are_found(
    bindings: dict[Release, Bindings], members: frozenset[str]
) -> None:
    reports = [type_report({PLANTED: SOURCE}, known, members) for known in bindings.values()]
    assert lines(untyped_everywhere(reports)) == lines_marked("untyped")
