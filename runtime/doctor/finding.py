"""Finding: one row of the doctor's screen, with the next command where something is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict
from pydantic.dataclasses import dataclass

from ..core.errors import MotorVAEError
from ..core.text import printable

Verdict = Literal["ok", "optional", "warn", "FAILED"]
"""FAILED: `motorvae-stream --camera 0` cannot work like this. warn: something that it may come to
need is wrong. optional: something is absent, and nothing is wrong."""

_DEBIAN_PACKAGES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
"""System libraries that OpenCV's wheel asks for and a server often lacks."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Finding:
    """What one check found.

    It holds no host names, user names or serial numbers, as people share this.
    """

    what: str
    # On one line, and fit for a screen and for JSON.
    found: Annotated[str, AfterValidator(lambda text: printable(" ".join(text.split())))]
    verdict: Verdict = "ok"
    next_command: str | None = None  # what to type now; never absent after FAILED or warn

    def __post_init__(self) -> None:
        if self.verdict in {"warn", "FAILED"} and not self.next_command:
            raise ValueError(f"{self.what}: {self.verdict} needs a next_command")


def overwritten(what: str, installed: Sequence[str], install: str) -> Finding:
    """Return the row of packages that unpack into the same folder."""
    return Finding(
        what,
        f"{' and '.join(installed)} are both installed and overwrite each other",
        "FAILED",
        f"pip uninstall -y {' '.join(installed)} && pip install {install}",
    )


def not_loading(
    what: str,
    package: str,
    module: str,
    error: Exception,
    *,
    install: str | None = None,
    problem: str = "does not load",
) -> Finding:
    """Return the row of a module that raised an error when it was imported from a package.

    `install` is what pip installs where it is absent, if not the package; `problem` is what is
    wrong where it is installed with all that it needs.
    """
    library = re.search(r"(lib\S+?\.so\S*): cannot open shared object", str(error))
    if isinstance(error, ModuleNotFoundError) and error.name in {module, None}:
        found, command = "not installed", f"pip install {install or package}"
    elif isinstance(error, ModuleNotFoundError):
        found = f"needs {error.name}, which is not installed"
        command = f"pip install {error.name}"
    elif library and library[1] in _DEBIAN_PACKAGES:
        found = f"does not load: the system has no {library[1]}"
        command = f"sudo apt-get install {_DEBIAN_PACKAGES[library[1]]}"
    else:
        text = error.clause() if isinstance(error, MotorVAEError) else str(error)
        found = f"{problem}: {text or type(error).__name__}"
        command = f"pip install --force-reinstall {package}"
    return Finding(what, found, "FAILED", command)
