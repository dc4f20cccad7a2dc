"""Recorded boards, unpacked into folders; tests/runtime/doctor/boards/README.md has their form."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

BOARDS = Path(__file__).parents[1] / "boards"
NAMES = sorted(path.stem for path in BOARDS.glob("*.txt"))
RECONSTRUCTED = "reconstructed"

Unpack = Callable[[str], Path]


class Entry(NamedTuple):
    """One entry of a recording: `value` is its content, or the target of a link."""

    path: str
    kind: str  # text, link, socket, empty, folder or gone
    value: str
    source: str


class Recording(NamedTuple):
    """A board as it is written down, without what its base has."""

    base: str | None
    sources: dict[str, str]
    entries: tuple[Entry, ...]


def recording_of(name: str) -> Recording:
    base, sources, entries = None, {}, []
    lines = iter((BOARDS / f"{name}.txt").read_text(encoding="utf-8").splitlines())
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"@base (\S+)", line):
            base = found[1]
        elif found := re.fullmatch(r"@source ([\w-]+): (.+)", line):
            sources[found[1]] = found[2]
        elif found := re.fullmatch(r"(/\S+) <<  @(\S+)", line):
            content = "\n".join(_until_end(lines))
            entries.append(Entry(found[1], "text", content, found[2]))
        elif found := re.fullmatch(r"(/\S+) \[(socket|empty|folder|gone)\]  @(\S+)", line):
            entries.append(Entry(found[1], found[2], "", found[3]))
        elif found := re.fullmatch(r"(/\S+) (=|->) (.+?)  @(\S+)", line):
            kind = "text" if found[2] == "=" else "link"
            entries.append(Entry(found[1], kind, found[3].replace("\\0", "\0"), found[4]))
        else:
            raise ValueError(f"{name}: {line}")
    return Recording(base, sources, tuple(entries))


def _until_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line == ">>":
            return
        yield line
    raise ValueError("no >> to the end")


def unpack_into(name: str, root: Path) -> Path:
    """Write a board below a folder; texts of one file in one recording follow each other."""
    recording = recording_of(name)
    if recording.base:
        unpack_into(recording.base, root)
    written: set[Path] = set()
    for entry in recording.entries:
        path = root / entry.path.lstrip("/")
        more = entry.kind == "text" and path in written
        if os.path.lexists(path) and not more:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if entry.kind == "gone":
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "text":
            before = f"{path.read_text(encoding='utf-8')}\n" if more else ""
            path.write_text(f"{before}{entry.value}\n", encoding="utf-8")
            written.add(path)
        elif entry.kind == "link":
            path.symlink_to(entry.value)
        elif entry.kind == "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        elif entry.kind == "folder":
            path.mkdir()
        else:
            path.touch()
    return root


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Unpack a board by its name into this test's folder; what it has may then be changed."""
    return lambda name: unpack_into(name, tmp_path / "root")
