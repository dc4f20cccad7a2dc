"""Which graphs an engine of this machine has opened: small files in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ...bundle.graph_key import Precision
from ...core.atomic_files import cache_dir
from ...core.errors import SigningError
from ...signing.kept_files import read_kept

_MOST_RECORDS = 2000
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
            path = self._path
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # of mode 0600
            try:
                with open(handle, "wb") as file:  # noqa: PTH123  # an open descriptor
                    file.write(self._text)
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
