"""Python processes of our own that import nothing from the working directory, and their time."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

# `-c` and `-m` put the working directory first, where a folder called tensorrt or a json.py would
# be taken for the package. `-P` and PYTHONSAFEPATH, which keep it out, begin with Python 3.11, and
# `-I` also drops PYTHONPATH and the user's own packages, which many installations need. So it is
# taken out before anything is imported: sys is built in.
_OUT = "import sys; sys.path[:1] == [''] and sys.path.pop(0); "
_RUN = _OUT + "import runpy; sys.argv.pop(0); runpy.run_module(sys.argv[0], None, '__main__', True)"


def python_module(module: str, *args: str) -> list[str]:
    """Return the command that runs a module as `python -m` does, but for the working directory."""
    return [sys.executable, "-c", _RUN, module, *args]


def python_code(code: str, *args: str) -> list[str]:
    """Return the command that runs source as `python -c` does, but for the working directory."""
    return [sys.executable, "-c", _OUT + code, *args]


def processor_s(pid: int) -> float:
    """Return the seconds of processor time that a process and its children have had; Linux only.

    Children that have ended count once their parent has waited for them, as it then has their time.
    A process that is gone, or whose files cannot be read, counts as nothing.
    """
    seconds = 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        # proc(5): after the name, which may hold anything, utime, stime, cutime and cstime are
        # fields 14 to 17.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        seconds = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            seconds += sum(processor_s(int(child)) for child in children.read_bytes().split())
    return seconds
