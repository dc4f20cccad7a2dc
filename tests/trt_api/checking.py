"""Our code against one release: does each name exist, and does each call fit."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .reading import MODULE, annotations, guards, reachable, retyped, uses
from .releases import Bindings

Sources = Mapping[str, str]
"""Source text by path, such as "runtime/engines/tensorrt/package.py"."""

_OUTPUT = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): (?P<kind>error|note): (?P<text>.*)")
_REVEALED = "Revealed type is "
_REVEALED_ANY = f'{_REVEALED}"Any"'
_ANNOTATION = "[name-defined]"
"""mypy's word for a missing name in an annotation, which `unknown_names` judges."""


@dataclass(frozen=True, order=True)
class Finding:
    """Something that does not fit a release, at a line of our code."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def sources_of(root: Path, folders: Iterable[str]) -> dict[str, str]:
    """Return every module of some folders."""
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in paths}


def missing_names(sources: Sources, bindings: Bindings) -> list[Finding]:
    """Return the names that our code takes from the module and a release does not have."""
    found = []
    for path, source in sources.items():
        tree = reachable(ast.parse(source), is_rtx=bindings.release.is_rtx, has=bindings.has)
        found += [
            Finding(path, use.line, f"no {use.chain}")
            for use in uses(tree)
            if not bindings.has(use.chain)
        ]
    return found


def unknown_names(sources: Sources, known: Iterable[Bindings]) -> list[Finding]:
    """Return the names in annotations and guards that no release has: misspelt, or long gone."""
    known = tuple(known)
    found = []
    for path, source in sources.items():
        tree = ast.parse(source)
        if not _speaks_of_tensorrt(tree):
            continue
        named = [(use.line, *use.chain.rpartition(".")[::2]) for use in annotations(tree)]
        found += [
            Finding(path, line, f"no {name} in any release")
            for line, owner, name in (*named, *guards(tree))
            if not any(_knows(bindings, owner, name) for bindings in known)
        ]
    return found


@dataclass(frozen=True)
class TypeReport:
    """What mypy says of our code under one release.

    Attributes:
        errors: Attributes that an object does not have, calls that do not fit, and the like.
        typed: Lines where something is asked of objects whose types are all known.
        untyped: Lines where something is asked of an object of which nothing is known.
    """

    errors: tuple[Finding, ...]
    typed: frozenset[Finding]
    untyped: frozenset[Finding]


def type_report(sources: Sources, bindings: Bindings, members: frozenset[str]) -> TypeReport:
    """Type-check a copy of our code in which TensorRT has its real types.

    What mypy also says where TensorRT has no types at all is none of its making and left out.

    Args:
        sources: All of our code that may meet TensorRT's objects.
        bindings: The release.
        members: What objects of any release have.
    """
    is_rtx, has = bindings.release.is_rtx, bindings.has
    copies = tuple(
        (path, retyped(source, is_rtx=is_rtx, has=has, members=members))
        for path, source in sources.items()
    )
    report, without = _mypy(copies, bindings.stubs), _mypy(copies, None)
    own = tuple(finding for finding in report.errors if finding not in without.errors)
    return dataclasses.replace(report, errors=own)


def untyped_everywhere(reports: Iterable[TypeReport]) -> list[Finding]:
    """Return the lines that no release's types say anything about: they are not checked at all.

    A type that only some releases have is unknown in the others.
    """
    reports = tuple(reports)
    typed = frozenset().union(*(report.typed for report in reports))
    untyped = frozenset().union(*(report.untyped for report in reports))
    return sorted(untyped - typed)


@functools.cache
def _mypy(copies: tuple[tuple[str, str], ...], stubs: Path | None) -> TypeReport:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, text in copies:
            written = root / "motorvae" / path
            written.parent.mkdir(parents=True, exist_ok=True)
            written.write_text(text, "utf-8")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mypy", "--config-file=", "--cache-dir=/dev/null"),
                # Only our code and TensorRT's types matter, and objects are not None once opened.
                *("--follow-imports=skip", "--ignore-missing-imports", "--no-strict-optional"),
                *("--check-untyped-defs", "--namespace-packages", "--explicit-package-bases"),
                *("--no-error-summary", "--hide-error-context", "--no-color-output"),
                *(f"motorvae/{path}" for path, _ in copies),
            ],
            cwd=root,
            env={"MYPYPATH": str(root) if stubs is None else f"{root}:{stubs}"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode not in {0, 1} or done.stderr:
        raise RuntimeError(f"mypy failed: {done.stderr or done.stdout}")
    errors, asked, untyped = set(), set(), set()
    for line in done.stdout.splitlines():
        said = _OUTPUT.fullmatch(line)
        if said is None:
            raise RuntimeError(f"mypy said {line!r}")
        if not said["path"].startswith("motorvae/"):
            continue  # generated stubs are not perfect
        path, number = said["path"].removeprefix("motorvae/"), int(said["line"])
        if said["kind"] == "error" and not said["text"].endswith(_ANNOTATION):
            errors.add(Finding(path, number, said["text"]))
        elif said["text"].startswith(_REVEALED):
            finding = Finding(path, number, "the type of what is asked here is not known")
            asked.add(finding)
            if said["text"] == _REVEALED_ANY:
                untyped.add(finding)
    return TypeReport(tuple(sorted(errors)), frozenset(asked - untyped), frozenset(untyped))


def _speaks_of_tensorrt(tree: ast.Module) -> bool:
    names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(tree)}
    return bool(MODULE & names)


def _knows(bindings: Bindings, owner: str | None, name: str) -> bool:
    if owner is None:
        return name in bindings.members
    return bindings.has(f"{owner}.{name}".lstrip("."))
