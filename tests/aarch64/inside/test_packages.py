"""What is installed fits, and every module of the runtime loads and says nothing."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from packaging.requirements import Requirement

ABSENT = {"pycuda", "cuda", "tensorrt", "tensorrt_rtx"}
"""What these modules are about is not in the root: no GPU."""
LOADING = """
import importlib, pkgutil, sys
import motorvae.runtime
absent, loaded = {}, 0
for module in pkgutil.walk_packages(motorvae.runtime.__path__, "motorvae.runtime."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
        loaded += 1
    except ImportError as error:
        absent[module.name] = (error.name or str(error)).partition(".")[0]
print(loaded, sorted(set(absent.values())))
"""


def test_each_package_has_what_it_needs() -> None:
    wrong = []
    for package in importlib.metadata.distributions():
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            try:
                version = importlib.metadata.version(needed.name)
            except importlib.metadata.PackageNotFoundError:
                version = "not installed"
            if not needed.specifier.contains(version, prereleases=True):
                wrong.append(f"{package.name} needs {needed}: {version}")
    # The bindings are there by themselves, and what reads the root's Python names no package.
    assert not wrong


def test_every_module_of_the_runtime_loads_without_a_word(note: Callable[..., None]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=600, check=True
    )
    loaded, _, absent = done.stdout.partition(" ")
    assert done.stderr == ""
    assert int(loaded) > 100
    assert set(_names(absent)) <= ABSENT
    note("modules", python=platform.python_version(), loaded=int(loaded), absent=_names(absent))


def _names(text: str) -> list[Any]:
    return [name.strip(" '") for name in text.strip().strip("[]").split(",") if name.strip(" '")]
