"""Python processes of our own that import nothing from the working directory, from 3.10 on."""

from __future__ import annotations

import sys

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
