"""What was found out of graphs on this machine: small files in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ...bundle.graph_key import Precision
from ...core.atomic_files import cache_dir
from ...core.errors import SigningError
from ...signing.kept_files import read_kept

_MOST_RECORDS = 2000
_PLAIN = 1.2  # times as fast: what is closer may be chance, and matters less
_BELIEVED_S = {"plain": 7 * 24 * 3600.0, "close": 24 * 3600.0}
_TRIED = re.compile(
    r"(?P<threads>\d{1,4})\n(?P<tried_s>\d{1,12})\n(?P<verdict>plain|close)\n"
    r"(?P<note>[\w ,.]{1,200})\n",
    re.ASCII,
)
_CPUINFO = Path("/proc/cpuinfo")
_CPU_FACTS = (
    *("vendor_id", "cpu family", "model", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)


@dataclass(frozen=True, slots=True)
class Opened:
    """That an engine opened and ran a graph on this machine."""

    sha256: str  # of the graph's file
    library: str  # name and version
    precision: Precision

    @property
    def _path(self) -> Path:
        return cache_dir() / "opened" / hashlib.sha256(self._text).hexdigest()

    @property
    def _text(self) -> bytes:
        facts = self.sha256, self.library, self.precision, cpu_of_machine()
        return ("\n".join(("motorvae opened this graph v1", *facts)) + "\n").encode()

    def is_known(self) -> bool:
        """Whether that was written down, in a place where nobody but this user can have done so."""
        try:
            return read_kept(self._path, is_secret=False) == self._text
        except (SigningError, OSError, RuntimeError):  # RuntimeError: this user has no home folder
            return False

    def remember(self) -> None:
        """Write it down, whole or not at all; where that is not possible, it is tried again."""
        with contextlib.suppress(OSError, RuntimeError):
            _write(self._path, self._text)


@dataclass(frozen=True, slots=True)
class Faster:
    """What an earlier trial found: how many threads, and the note that says so."""

    threads: int
    note: str


@dataclass(frozen=True, slots=True)
class FasterThreads:
    """Whether one thread or all were faster for a graph on this machine."""

    sha256: str  # of the graph's file
    library: str  # name and version of the engine, which runs it on the CPU
    precision: Precision
    threads: int  # how many all are
    images: int  # of one run

    @property
    def _head(self) -> str:
        facts = self.sha256, self.library, self.precision, self.threads, self.images
        return "\n".join(("motorvae tried threads v3", *map(str, facts), cpu_of_machine())) + "\n"

    @property
    def _path(self) -> Path:
        return cache_dir() / "threads" / hashlib.sha256(self._head.encode()).hexdigest()

    def known(self) -> Faster | None:
        """Return what was written down lately, as of `Opened.is_known`, or None.

        A week ago is late enough for what was plain, and a day for a close call.
        """
        try:
            text = (read_kept(self._path, is_secret=False) or b"").decode("ascii")
        except (SigningError, OSError, RuntimeError, ValueError):
            return None
        found = _TRIED.fullmatch(text.removeprefix(self._head))
        if found is None or not text.startswith(self._head):
            return None
        threads, tried_s = int(found["threads"]), int(found["tried_s"])
        believed_s = _BELIEVED_S[found["verdict"]]
        if threads not in {1, self.threads} or not 0 <= time.time() - tried_s < believed_s:
            return None
        day = time.strftime("%Y-%m-%d", time.localtime(tried_s))
        return Faster(threads, f"{found['note']} when that was tried on {day}")

    def remember(self, threads: int, note: str, ratio: float) -> None:
        """Write down which was faster and by how much, as of `Opened.remember`."""
        verdict = "plain" if ratio >= _PLAIN else "close"
        text = f"{self._head}{threads}\n{int(time.time())}\n{verdict}\n{note}\n"
        with contextlib.suppress(OSError, RuntimeError):
            _write(self._path, text.encode())


def _write(path: Path, content: bytes) -> None:
    """Write a record, whole or not at all, where nobody but this user can; an OSError if not."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # of mode 0600
    try:
        with open(handle, "wb") as file:  # noqa: PTH123  # an open descriptor
            file.write(content)
        os.replace(name, path)  # noqa: PTH105  # as mkstemp named it
    except BaseException:
        os.unlink(name)  # noqa: PTH108  # as above
        raise
    _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    records = [(entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(folder)]
    for _, path in sorted(records)[:-_MOST_RECORDS]:
        Path(path).unlink(missing_ok=True)


@functools.cache
def cpu_of_machine() -> str:
    """Return what an engine chooses its code by, the same after a restart."""
    try:
        with _CPUINFO.open("rb", buffering=0) as file:
            text = file.read(1 << 13).decode("ascii", "replace")
    except OSError:
        text = ""
    facts = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    found = [
        f"{name.strip()}={fact.strip()}" for name, _, fact in facts if name.strip() in _CPU_FACTS
    ]
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    return f"{platform.system()} {platform.machine()} {digest}"
