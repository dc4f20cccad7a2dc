"""Our TensorRT code fits the true API of each release that it is meant for."""

from __future__ import annotations

import ast
import dataclasses
import shutil
from pathlib import Path

import pytest

from .checking import (
    TypeReport,
    missing_names,
    sources_of,
    type_report,
    unknown_names,
    untyped_everywhere,
)
from .reading import reachable, uses
from .releases import HERE, RELEASES, Bindings, Release

OURS = sources_of(HERE.parents[1], ("runtime", "export", "benchmarks"))


@pytest.fixture(scope="session")
def reports(
    bindings: dict[Release, Bindings],
    members: frozenset[str],
) -> dict[Release, TypeReport]:
    return {release: type_report(OURS, known, members) for release, known in bindings.items()}


def known_or_skip(release: Release, bindings: dict[Release, Bindings]) -> Bindings:
    if release not in bindings:
        pytest.skip(f"{release.requirement} has no wheel for this Python")
    return bindings[release]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_every_name_exists(release: Release, bindings: dict[Release, Bindings]) -> None:
    found = missing_names(OURS, known_or_skip(release, bindings))
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_every_call_fits(
    release: Release, bindings: dict[Release, Bindings], reports: dict[Release, TypeReport]
) -> None:
    known_or_skip(release, bindings)
    found = reports[release].errors
    assert not found, "\n".join(map(str, found))


def test_every_object_that_is_asked_has_a_known_type(reports: dict[Release, TypeReport]) -> None:
    found = untyped_everywhere(reports.values())
    assert not found, "\n".join(map(str, found))


def test_annotations_and_guards_name_what_some_release_has(
    bindings: dict[Release, Bindings],
) -> None:
    found = unknown_names(OURS, bindings.values())
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_a_name_that_a_release_loses_would_be_found(
    release: Release, bindings: dict[Release, Bindings]
) -> None:
    known = known_or_skip(release, bindings)
    used = 0
    for path, source in OURS.items():
        tree = reachable(ast.parse(source), is_rtx=release.is_rtx, has=known.has)
        for use in uses(tree):
            owner, _, name = use.chain.rpartition(".")
            if owner not in known.names:
                continue  # the attribute of a value
            used += 1
            names = {**known.names, owner: known.names[owner] - {name}}
            lost = dataclasses.replace(known, names=names)
            lines = [finding.line for finding in missing_names({path: source}, lost)]
            assert use.line in lines, f"{path}:{use.line}: {use.chain}"
    assert used > 20


def test_a_method_that_a_release_loses_would_be_found(
    bindings: dict[Release, Bindings], members: frozenset[str], tmp_path: Path
) -> None:
    name = "set_memory_pool_limit"
    known = bindings[RELEASES[-1]]
    stubs = tmp_path / "stubs"
    shutil.copytree(known.stubs, stubs)
    for stub in stubs.rglob("*.pyi"):
        kept = [line for line in stub.read_text().splitlines() if f"def {name}(" not in line]
        stub.write_text("\n".join(kept))
    lost = dataclasses.replace(known, stubs=stubs)
    calls = [
        f"{path}:{number}"
        for path, source in OURS.items()
        for number, line in enumerate(source.splitlines(), start=1)
        if f".{name}(" in line
    ]
    found = type_report(OURS, lost, members).errors
    assert calls
    assert [f"{finding.path}:{finding.line}" for finding in found] == calls
