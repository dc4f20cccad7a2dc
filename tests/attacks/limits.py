"""What anything attacked may take at most, and what a process has held in memory."""

from __future__ import annotations

import re
from pathlib import Path

LIMIT_S = 20.0
MOST_BYTES = 1_000_000_000


def peak_bytes(process: int | str = "self") -> int:
    """Return the peak of a process's resident memory since it runs its program; 0 once it is gone.

    `ru_maxrss` also counts what the process held that it was forked from.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
