"""The doctor's checks in their order, and the process that makes one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from .board.check import check_board
from .check_engines import check_bundle, check_gpu, check_onnx, check_tensorrt
from .check_keys import check_keys
from .check_system import (
    check_cameras,
    check_memory,
    check_opencv,
    check_packages,
    check_pyav,
    check_writing,
)
from .finding import Finding

FINDINGS = TypeAdapter(tuple[Finding, ...])


class Check(NamedTuple):
    """One check: a process of its own, so that what hangs or crashes is a row like any other.

    It is given the bundle's folder, and imports what may be absent or broken only when it is
    called. The title is for the row of one that hung or crashed.
    """

    title: str
    run: Callable[[Path], Iterator[Finding]]
    needed: bool  # by a stream


CHECKS: dict[str, Check] = {
    "packages": Check("Python packages", check_packages, needed=True),
    "board": Check("Jetson", check_board, needed=False),
    "onnx": Check("ONNX Runtime", check_onnx, needed=True),
    "gpu": Check("NVIDIA GPU", check_gpu, needed=False),
    "tensorrt": Check("TensorRT", check_tensorrt, needed=False),
    "tensorrt-rtx": Check(
        "TensorRT-RTX", partial(check_tensorrt, name="tensorrt-rtx"), needed=False
    ),
    "opencv": Check("OpenCV", check_opencv, needed=True),
    "pyav": Check("PyAV", check_pyav, needed=True),
    "cameras": Check("cameras", check_cameras, needed=True),
    "writing": Check("writing", check_writing, needed=True),
    "memory": Check("memory", check_memory, needed=True),
    "keys": Check("keys", check_keys, needed=False),
    "bundle": Check("bundle", check_bundle, needed=True),
}
"""In the order of the screen."""


def main() -> None:
    """Make the check named first, with the bundle named second; print its findings as JSON."""
    name, model = sys.argv[1:]
    # Libraries print what they like to standard output, which is kept for the findings.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        output.write(FINDINGS.dump_json(tuple(CHECKS[name].run(Path(model)))) + b"\n")


if __name__ == "__main__":
    main()
